"""Fakes of the service's ports that behave: keys that roll, an Entra that hangs, fails and recovers.

They keep count and never assert; what ought to have happened is said in the tests.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from authz.core.budget import Budget
from authz.core.errors import DeadlineExceeded, InvalidToken, TokenFault
from authz.core.exchange import IssuedToken, TokenExchange
from authz.core.keys import SigningKey
from authz.core.moment import Moment
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
