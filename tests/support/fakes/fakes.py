"""Fakes of the service's ports that behave: keys that roll, an Entra that hangs, fails and recovers.

They keep count and never assert; what ought to have happened is said in the tests.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from authz.core.budget import Budget
from authz.core.errors import AuthzError, DeadlineExceeded, InvalidToken, TokenFault
from authz.core.exchange import Flow, IssuedToken, TokenExchange
from authz.core.keys import SigningKey
from authz.core.moment import Moment
from authz.core.record import CacheName, CacheResult, CheckRecord
from authz.core.secret import Secret
from authz.ports import Timer


class FakeKeys:
    """A `KeySource`: published keys are found by fetching, fetched ones are there at once."""

    def __init__(
        self, fetched: Iterable[SigningKey] = (), *, timer: Timer = time.monotonic
    ) -> None:
        self._timer = timer
        self._fetched = {(key.issuer, key.key_id): key for key in fetched}
        self._published: dict[tuple[str, str], SigningKey] = {}
        self._failure: Exception | None = None
        self._reachable = asyncio.Event()
        self._reachable.set()
        self.finds: list[tuple[str, str]] = []

    def current(self, issuer: str, key_id: str) -> SigningKey | None:
        """Return a fetched key."""
        return self._fetched.get((issuer, key_id))

    async def find(self, issuer: str, key_id: str, *, deadline: float) -> SigningKey:
        """Fetch a published key, unless told to hang or fail."""
        self.finds.append((issuer, key_id))
        try:
            async with asyncio.timeout(deadline - self._timer()):
                await self._reachable.wait()
        except TimeoutError:
            raise DeadlineExceeded from None
        if self._failure is not None:
            raise self._failure
        key = self._published.get((issuer, key_id))
        if key is None:
            raise InvalidToken(TokenFault.UNKNOWN_KEY)
        self._fetched[issuer, key_id] = key
        return key

    def publish(self, key: SigningKey) -> None:
        """Have a key found by the next fetch."""
        self._published[key.issuer, key.key_id] = key

    def withdraw(self, key_id: str) -> None:
        """Trust a key no longer, whoever its issuer is."""
        for keys in (self._fetched, self._published):
            for known in [known for known in keys if known[1] == key_id]:
                del keys[known]

    def fail(self, error: Exception) -> None:
        """Answer every fetch by this error from now on."""
        self._failure = error

    def hang(self) -> None:
        """Answer no fetch from now on."""
        self._reachable.clear()

    def release(self) -> None:
        """Answer again."""
        self._reachable.set()


class FakeExchange:
    """An `Exchange`: issues tokens with a number each, hangs and fails on order.

    Args:
        now: Tells the time.
        lifetime: Seconds for which its tokens live.
        refresh_after: Seconds after which a successor is worth fetching.
    """

    def __init__(
        self, now: Callable[[], Moment], *, lifetime: float = 3600.0, refresh_after: float = 1800.0
    ) -> None:
        self._now = now
        self.lifetime = lifetime
        self.refresh_after = refresh_after
        self._failure: Exception | None = None
        self._hit: Callable[[TokenExchange], bool] = lambda _: False
        self._answering = asyncio.Event()
        self._answering.set()
        self.asked = asyncio.Event()
        self.calls: list[TokenExchange] = []
        self.budgets: list[Budget] = []
        self.cancelled = 0
        self.carried_out: bool | None = None
        """What budgets are to say of that."""

    async def __call__(self, exchange: TokenExchange, budget: Budget) -> IssuedToken:
        """Issue `issued-1`, `issued-2` and so on."""
        budget.carried_out = self.carried_out
        self.calls.append(exchange)
        self.budgets.append(budget)
        self.asked.set()
        number = len(self.calls)
        try:
            await self._answering.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self._failure is not None and self._hit(exchange):
            raise self._failure
        now = self._now()
        return IssuedToken(
            Secret(f"issued-{number}"), now.later(self.lifetime), now.later(self.refresh_after)
        )

    def fail(
        self, error: Exception, *, when: Callable[[TokenExchange], bool] = lambda _: True
    ) -> None:
        """Refuse by this error from now on, everyone or those whom `when` picks."""
        self._failure, self._hit = error, when

    def recover(self) -> None:
        """Issue again."""
        self._failure = None

    def hang(self) -> None:
        """Answer nobody from now on."""
        self._answering.clear()

    def release(self) -> None:
        """Answer everybody, those who wait included."""
        self._answering.set()


class FakeObserver:
    """An `Observer` that remembers."""

    def __init__(self) -> None:
        self.records: list[CheckRecord] = []
        self.lookups: list[tuple[CacheName, CacheResult]] = []
        self.exchanges: list[tuple[Flow, AuthzError | None, float]] = []
        self.begun_for: list[str | None] = []
        """Routes of the exchanges."""
        self.prefetches: list[tuple[str, str]] = []

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
        """Take no interest."""

    def prefetched(self, route: str, outcome: str) -> None:
        """Remember a prefetch."""
        self.prefetches.append((route, outcome))

    def results(self, cache: CacheName) -> list[CacheResult]:
        """Return how the look-ups of one cache ended."""
        return [result for name, result in self.lookups if name is cache]
