"""`Recorder`: an `Observer` that remembers everything that it is notified of, for tests to compare."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from authz.core.errors import AuthzError
from authz.core.exchange import Flow, TokenExchange
from authz.core.record import CacheName, CacheResult, CheckRecord


@dataclass
class Recorder:
    """An observer that remembers, in the order of arrival.

    Attributes:
        records: Decisions.
        lookups: Look-ups in caches.
        exchanges: Exchanges that called Entra: flow, error, seconds.
        begun_for: The egress route of each exchange.
        prefetches: Prefetches: route, outcome.
        calls: Calls to APIs: route, outcome.
    """

    records: list[CheckRecord] = field(default_factory=list)
    lookups: list[tuple[CacheName, CacheResult]] = field(default_factory=list)
    exchanges: list[tuple[Flow, AuthzError | None, float]] = field(default_factory=list)
    begun_for: list[str | None] = field(default_factory=list)
    prefetches: list[tuple[str, str]] = field(default_factory=list)
    calls: list[tuple[str, int | AuthzError]] = field(default_factory=list)

    def decided(self, records: Sequence[CheckRecord]) -> None:
        """Remember decisions; a repeated one is a hit of the answers' cache."""
        self.records += records
        repeats = [record for record in records if record.trace.repeated]
        self.lookups += [(CacheName.ANSWERS, CacheResult.HIT) for _ in repeats]

    def looked_up(self, cache: CacheName, result: CacheResult) -> None:
        """Remember a look-up."""
        self.lookups.append((cache, result))

    def exchanged(
        self,
        exchange: TokenExchange,
        error: AuthzError | None,
        seconds: float,
        *,
        route: str | None,
    ) -> None:
        """Remember an exchange."""
        self.exchanges.append((exchange.flow, error, seconds))
        self.begun_for.append(route)

    def called(self, route: str, outcome: int | AuthzError, seconds: float) -> None:
        """Remember a call to an API."""
        self.calls.append((route, outcome))

    def prefetched(self, route: str, outcome: str) -> None:
        """Remember a prefetch."""
        self.prefetches.append((route, outcome))

    def results(self, cache: CacheName) -> list[CacheResult]:
        """Return how the look-ups of one cache ended."""
        return [result for name, result in self.lookups if name is cache]
