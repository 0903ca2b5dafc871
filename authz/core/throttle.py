"""`Throttle`: whether an application that Entra has asked to wait is asked for. It is given the time.

Entra's 429 does not say whom it means: the user, or the application for all users. So the 429 of one
question counts for that question only. Three questions in a row that are all answered 429 show that the
application is meant. From then on nobody asks until the time that Entra named, but for one probe a minute.
After that time one call asks first, and its answer decides for the others. A question that was answered 429
comes last: it may be a user who is throttled alone.
"""

from collections.abc import Hashable
from math import inf
from typing import Final

from authz.core.circuit import HEAD_START, WHILE_PROBING, Attempt
from authz.core.errors import ExchangeThrottled

QUESTIONS: Final = 3
"""Different questions that Entra must answer with 429, and none otherwise. A user is one question, whatever
is asked for."""
MOST_QUESTIONS: Final = 1000
"""Questions remembered that were answered 429: they are no probes."""
PROBE_EVERY: Final = 60.0
"""Seconds between probes, where Entra named a longer time: it may have meant several users only."""
FORGOTTEN_AFTER: Final = 60.0
"""Seconds after the named time when nobody needs to ask first any more."""


class ApplicationThrottled(ExchangeThrottled):
    """Entra was not asked, because it has asked this application to wait."""


class Throttle:
    """What Entra's 429 answers say of one application. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._refused: dict[Hashable, float] = {}
        self._last_refused = -inf
        self._until = -inf
        self._probe_from = -inf
        self._probe: Attempt | None = None

    def is_held(self, now: float) -> bool:
        """Whether calls are held back, but for probes."""
        return now < self._until + FORGOTTEN_AFTER

    def is_idle(self, now: float) -> bool:
        """Whether there is nothing to remember."""
        return not self.is_held(now) and all(now >= until for until in self._refused.values())

    def check(self, now: float, question: Hashable) -> None:
        """Raise `ApplicationThrottled` if this may not be asked for the application now."""
        if not self.is_held(now):
            return
        begins, left = self._probe_from, self._until - now
        if question in self._refused:
            # Another 429 for it would show nothing of the application.
            begins = self._until + HEAD_START
            left = begins - now
        if now < begins:
            raise ApplicationThrottled("Entra has asked the application to wait", retry_after=left)
        if self._probe is not None and now < self._probe.ends:
            raise ApplicationThrottled(
                "Entra has asked the application to wait, and another call tries it",
                retry_after=max(left, WHILE_PROBING),
            )

    def begin(self, attempt: Attempt) -> None:
        """Begin a call, which is the probe if calls are held back. `check` has allowed it."""
        if self.is_held(attempt.began):
            self._probe = attempt

    def refused(self, attempt: Attempt, now: float, *, seconds: float, question: Hashable) -> None:
        """Note a 429 that asks to wait for some seconds.

        Args:
            attempt: The call.
            now: When it was answered.
            seconds: How long to wait.
            question: The user whose token was sent, or what was asked for where none was.
        """
        self._last_refused, until = now, now + seconds
        held = self.is_held(now)
        if not held:
            self._refused = {of: end for of, end in self._refused.items() if now < end}
        self._refused[question] = until
        if len(self._refused) > MOST_QUESTIONS:
            del self._refused[next(iter(self._refused))]
        if attempt is self._probe:
            self._hold(until, now)
        elif held:
            # It was under way when the others were refused.
            self._hold(max(self._until, until), now)
        elif len(self._refused) >= QUESTIONS:
            self._hold(max(self._refused.values()), now)

    def answered(self, attempt: Attempt) -> None:
        """Note any other answer of Entra. That of a call which began before the last 429 shows nothing."""
        if attempt is self._probe:
            self._until, self._probe = -inf, None
        elif attempt.began < self._last_refused:
            return
        self._refused.clear()

    def abandoned(self, attempt: Attempt) -> None:
        """Forget a call without an answer. If it was the probe, the next call is one."""
        if attempt is self._probe:
            self._probe = None

    def _hold(self, until: float, now: float) -> None:
        self._until, self._probe = until, None
        self._probe_from = min(until, now + PROBE_EVERY)
