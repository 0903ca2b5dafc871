"""`AnswerCache`: allowances that may be given again, for as long as all they rest on holds.

Denials are not remembered. Before an allowance is repeated, ask whether the signing key of its principal
is trusted; time is watched here, and a new configuration begins with an empty cache.
"""

from itertools import count
from typing import Final

from authz.core.baggage import is_plain
from authz.core.cache import ENTRY_OVERHEAD, BoundedCache
from authz.core.moment import Moment
from authz.core.outcome import Granted
from authz.core.request import CheckRequest, Situation

MAX_SITUATIONS: Final = 4096
"""Situations known at a time. They are few: routes times peers; names of odd headers could add some."""
LONGEST_SITUATION: Final = 2048
"""Characters of all parts of a situation that is remembered: they are the client's, and not counted."""
_NO_VALUE: Final = bytes(32)
"""In place of a digest, so that keys of one situation cannot be mistaken for one another."""


def _size_of(granted: Granted) -> int:
    decision = granted.decision
    secrets = (part for part in (decision.authorization, decision.baggage) if part is not None)
    named = sum(map(len, decision.remove)) + sum(
        len(name) + len(value) for name, value in decision.headers
    )
    # What a door prepares for it holds all of them a second time.
    return ENTRY_OVERHEAD + 2 * (sum(map(len, secrets)) + named)


def _length_of(situation: Situation) -> int:
    return sum(
        len(part) if isinstance(part, str) else sum(map(len, part))
        for part in situation
        if isinstance(part, str | tuple)
    )


class AnswerCache:
    """Answers by what decides: the situation, and those values of which the route reads something.

    `Authorization` counts on routes that read it. `baggage` counts wherever it is not plain, which may
    change it, and on routes that put a member of ours in among the others.

    Args:
        max_entries: Most answers held.
        max_bytes: Most estimated bytes held.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._answers: BoundedCache[Granted] = BoundedCache(
            max_entries=max_entries, max_bytes=max_bytes, size_of=_size_of
        )
        self._situations: dict[Situation, tuple[bytes, bool, bool]] = {}
        self._numbers = count()

    def find(self, request: CheckRequest, rule: str, now: Moment) -> Granted | None:
        """Return the allowance that answers such a request under the rule that allows it."""
        key = self._key(request, rule)
        return None if key is None else self._answers.get(key, now)

    def put(self, request: CheckRequest, granted: Granted, now: Moment) -> None:
        """Let an allowance answer such requests, for as long as its lifetime says.

        One for a host or odd headers of great length answers that request alone.
        """
        rule = granted.route.rule
        situation = request.situation(rule)
        if situation not in self._situations:
            if _length_of(situation) > LONGEST_SITUATION:
                return
            if len(self._situations) >= MAX_SITUATIONS:
                # Numbers are never given twice, so what was known under the old ones is met no more.
                self._situations.clear()
            number = next(self._numbers).to_bytes(8, "big")
            route = granted.route
            self._situations[situation] = (number, route.reads_authorization, route.reads_baggage)
        key = self._key(request, rule)
        assert key is not None
        self._answers.put(key, granted, expires_at=granted.lifetime.reuse_until, now=now)

    def drop(self, request: CheckRequest, rule: str) -> None:
        """Forget the answer to such a request, if there is one."""
        key = self._key(request, rule)
        if key is not None:
            self._answers.drop(key)

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def evictions(self) -> int:
        """How many live answers were evicted."""
        return self._answers.evictions

    def _key(self, request: CheckRequest, rule: str) -> bytes | None:
        known = self._situations.get(request.situation(rule))
        if known is None:
            return None
        key, reads_authorization, reads_baggage = known
        authorization, baggage = request.authorization, request.baggage
        if reads_authorization:
            key += _NO_VALUE if authorization is None else authorization.digest()
        if baggage is not None and (reads_baggage or not is_plain(baggage)):
            key += baggage.digest()
        return key
