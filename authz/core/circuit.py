"""`Circuit`: whether an endpoint that keeps failing is asked for one client. It is given the time.

Closed: everybody asks. Open: nobody asks, until a pause is over. Half open: one call at a time asks, the
probe; its outcome closes the circuit, or opens it again for twice as long.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from authz.core.errors import ExchangeUnavailable

FAILURES: Final = 3
"""Different questions whose failures, with no answer in between, open the circuit. A user is one question,
whatever is asked for: the failures may be about the user."""
SPAN: Final = 2.0
"""Seconds that they must cover, the first call included: a short disturbance opens nothing."""
WINDOW: Final = 60.0
"""Seconds without a failure after which earlier ones no longer count."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 10.0
"""Seconds until the next probe; the pause doubles."""
HEAD_START: Final = 1.5
"""Seconds for which questions that have failed leave the probe to others. The failures may be about them;
and who keeps to a `Retry-After` comes up to a second later than who does not."""
MOST_FAILING: Final = 16
"""Questions remembered for that."""
WHILE_PROBING: Final = 1.0
"""Seconds after which to ask again, while a probe is under way."""


class CircuitState(StrEnum):
    """The states, as the log has them."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitOpen(ExchangeUnavailable):
    """The endpoint was not asked, because it keeps failing."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call that may be made.

    Attributes:
        began: Monotonic second.
        ends: Monotonic second after which its outcome does not come any more.
    """

    began: float
    ends: float


class Circuit:
    """What is known of one endpoint. All times are monotonic seconds.

    Attributes:
        state: Its state.
        failures: Failures in a row.
        pause: Seconds from its opening to the next probe.
    """

    def __init__(self) -> None:
        self.state = CircuitState.CLOSED
        self.failures = 0
        self._failing: dict[Hashable, None] = {}
        self._first_began = 0.0
        self._last_failed = 0.0
        self.pause = FIRST_PAUSE
        self._probe_from = 0.0
        self._probe: Attempt | None = None

    def is_open(self, now: float) -> bool:
        """Whether calls are refused, but for probes. Not any more when nobody has asked for a while."""
        return self.state is not CircuitState.CLOSED and now < self._probe_from + WINDOW

    def check(self, now: float, question: Hashable) -> None:
        """Raise `CircuitOpen` if the endpoint may not be asked this now."""
        if not self.is_open(now):
            return
        begins = self._probe_from
        if question in self._failing:
            begins += HEAD_START
        if now < begins:
            raise CircuitOpen(
                "the endpoint keeps failing and is not asked", retry_after=begins - now
            )
        if self._probe is not None and now < self._probe.ends:
            raise CircuitOpen(
                "the endpoint keeps failing, and another call tries it", retry_after=WHILE_PROBING
            )

    def begin(self, now: float, question: Hashable, *, ends: float) -> Attempt:
        """Begin a call, which is the probe if the circuit is not closed.

        Raises:
            CircuitOpen: The endpoint may not be asked now.
        """
        self.check(now, question)
        attempt = Attempt(now, ends)
        if self.is_open(now):
            self.state, self._probe = CircuitState.HALF_OPEN, attempt
        elif self.state is not CircuitState.CLOSED:
            # Nobody has asked for a while: what was known is of no use any more.
            self.succeeded()
        return attempt

    def succeeded(self) -> None:
        """Close the circuit: the endpoint has answered, whichever call it was."""
        self.state = CircuitState.CLOSED
        self.failures, self.pause, self._probe = 0, FIRST_PAUSE, None
        self._failing.clear()

    def failed(self, attempt: Attempt, now: float, question: Hashable) -> None:
        """Count a failure of the endpoint."""
        if self.state is CircuitState.CLOSED:
            self._count(attempt, now, question)
            if len(self._failing) >= FAILURES and now - self._first_began >= SPAN:
                self._open(now)
        elif attempt is self._probe:
            self._remember(question)
            self.pause = min(LONGEST_PAUSE, 2 * self.pause)
            self._open(now)

    def abandoned(self, attempt: Attempt) -> None:
        """Forget a call that has shown nothing of the endpoint. If it was the probe, the next call is one."""
        if attempt is self._probe:
            self._probe = None

    def _count(self, attempt: Attempt, now: float, question: Hashable) -> None:
        if now - self._last_failed > WINDOW:
            self._failing.clear()
            self.failures = 0
        if not self._failing or attempt.began < self._first_began:
            self._first_began = attempt.began
        self.failures += 1
        self._last_failed = now
        self._remember(question)

    def _remember(self, question: Hashable) -> None:
        self._failing[question] = None
        if len(self._failing) > MOST_FAILING:
            del self._failing[next(iter(self._failing))]

    def _open(self, now: float) -> None:
        self.state, self._probe = CircuitState.OPEN, None
        self._probe_from = now + self.pause
