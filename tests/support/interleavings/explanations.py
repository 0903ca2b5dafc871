"""`Ledger`: which denials an injected fault explains, for whom, and how long after its end."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from authz.core.circuit import FAILURES
from authz.core.errors import Reason
from authz.tokens.caching import FailureLifetimes

FLIGHT: Final = 6.0
"""Seconds for which an exchange that was begun in a fault may go on after it, and some."""
LOST: Final = "no answer"
"""In place of a reason: Envoy's own answer that the service gave none, or no answer at all."""
LATE: Final = "no answer in time"
"""The same after Envoy's own limit: an exchange took so long that the service's answer came too late."""

UNAVAILABLE: Final = frozenset(
    {Reason.EXCHANGE_UNAVAILABLE.value, Reason.DEADLINE_EXCEEDED.value, LATE}
)
REFUSED: Final = UNAVAILABLE | {
    Reason.EXCHANGE_THROTTLED.value, Reason.EXCHANGE_MISCONFIGURED.value, Reason.EXCHANGE_REJECTED.value,
    Reason.INTERACTION_REQUIRED.value, Reason.CONSENT_REQUIRED.value,
}  # fmt: skip
"""Every way in which an exchange may fail that Entra does not answer well. Never `internal`."""


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose requests a fault may touch; None for every one's."""

    user: str | None = None
    agent: str | None = None
    tenant: str | None = None
    before_generation: int | None = None
    from_generation: int | None = None


@dataclass(slots=True)
class Explanation:
    """A fault, while it is there and a while longer."""

    whose: Whose
    reasons: frozenset[str]
    began: float
    ended: float | None = None

    def holds(self, whose: Whose, reason: str, began: float, answered: float) -> bool:
        """Whether it explains this denial of a request that was under way between two moments."""
        return (
            self.lasts(reason, began, answered)
            and self.whose.user in (None, whose.user)
            and self.whose.agent in (None, whose.agent)
            and self.whose.tenant in (None, whose.tenant)
            and _generations(self.whose, whose.before_generation)
        )

    def lasts(self, reason: str, began: float, answered: float) -> bool:
        """Whether it may have to do with a request that was under way between two moments, whosever it is."""
        return (
            reason in self.reasons
            and self.began <= answered
            and (self.ended is None or began <= self.ended + _lasting(reason))
        )


@dataclass(slots=True)
class Ledger:
    """What has been injected so far, as far as it can still matter."""

    _entries: list[Explanation] = field(default_factory=list)

    @contextmanager
    def open(self, whose: Whose, reasons: frozenset[str]) -> Iterator[None]:
        """Explain denials through the block, and a while longer."""
        entry = self.begin(whose, reasons)
        try:
            yield
        finally:
            entry.ended = monotonic()

    def begin(self, whose: Whose, reasons: frozenset[str]) -> Explanation:
        """Explain denials from now on; whoever keeps it may end it."""
        now = monotonic()
        longest = max(map(_lasting, REFUSED)) + 60
        self._entries = [e for e in self._entries if e.ended is None or now < e.ended + longest]
        self._entries.append(entry := Explanation(whose, reasons, now))
        return entry

    def explains(self, whose: Whose, reason: str, began: float, answered: float) -> bool:
        """Whether a fault explains this denial, or those of so many users that a circuit opens for all."""
        if any(entry.holds(whose, reason, began, answered) for entry in self._entries):
            return True
        failing = {each.whose.user for each in self._entries if each.lasts(reason, began, answered)}
        return reason in UNAVAILABLE and len(failing - {None}) >= FAILURES


_LIFETIMES: Final = FailureLifetimes().by_reason


def _lasting(reason: str) -> float:
    """Seconds for which a reason is told after its cause has gone."""
    known = reason in set(Reason)
    return FLIGHT + (_LIFETIMES.get(Reason(reason), 0.0) if known else 0.0)


def _generations(entry: Whose, generation: int | None) -> bool:
    if entry.before_generation is None and entry.from_generation is None:
        return True
    if generation is None:
        return False
    before, since = entry.before_generation, entry.from_generation
    return (before is None or generation < before) and (since is None or generation >= since)
