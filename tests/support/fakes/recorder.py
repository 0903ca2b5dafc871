"""`Recorder`: an `Observer` that remembers everything that it is notified of, for tests to compare."""

from dataclasses import dataclass, field

from authz.core.errors import AuthzError
from authz.core.event import (
    Called,
    Decided,
    Event,
    Exchanged,
    LookedUp,
    Prefetched,
    Repeated,
    SecretRejected,
    SecretSent,
)
from authz.core.exchange import Flow
from authz.core.outcome import Granted
from authz.core.record import CacheName, CacheResult, CheckRecord


@dataclass
class Recorder:
    """An observer that remembers, in the order of arrival.

    Attributes:
        records: Decisions.
        repeats: Answers that were given again, with the seconds that it took.
        lookups: Look-ups in caches.
        exchanges: Exchanges that called Entra: flow, error, seconds.
        begun_for: The egress route of each exchange.
        prefetches: Prefetches: route, outcome.
        calls: Calls to APIs: route, outcome.
        sent: Values sent to Envoys: route, whether empty.
        rejected: The route of each value that an Envoy could not use.
    """

    records: list[CheckRecord] = field(default_factory=list)
    repeats: list[tuple[Granted, float]] = field(default_factory=list)
    lookups: list[tuple[CacheName, CacheResult]] = field(default_factory=list)
    exchanges: list[tuple[Flow, AuthzError | None, float]] = field(default_factory=list)
    begun_for: list[str | None] = field(default_factory=list)
    prefetches: list[tuple[str, str]] = field(default_factory=list)
    calls: list[tuple[str, int | AuthzError]] = field(default_factory=list)
    sent: list[tuple[str | None, bool]] = field(default_factory=list)
    rejected: list[str | None] = field(default_factory=list)

    def observe(self, event: Event) -> None:
        """Remember an event. A repeated answer is a hit of the answers' cache."""
        match event:
            case Decided(record):
                self.records.append(record)
            case Repeated(answers, records):
                self.repeats += answers
                self.records += records
                self.lookups += [(CacheName.ANSWERS, CacheResult.HIT) for _ in answers]
            case LookedUp(cache, result):
                self.lookups.append((cache, result))
            case Exchanged(exchange, error, seconds, route):
                self.exchanges.append((exchange.flow, error, seconds))
                self.begun_for.append(route)
            case Called(route, outcome):
                self.calls.append((route, outcome))
            case Prefetched(route, outcome):
                self.prefetches.append((route, outcome))
            case SecretSent(name, is_empty):
                self.sent.append((name, is_empty))
            case SecretRejected(name):
                self.rejected.append(name)

    def repeated(self, granted: Granted, record: CheckRecord) -> None:
        """Remember an answer that is given again."""
        self.observe(Repeated([(granted, record.seconds)], [record]))

    def results(self, cache: CacheName) -> list[CacheResult]:
        """Return how the look-ups of one cache ended."""
        return [result for name, result in self.lookups if name is cache]
