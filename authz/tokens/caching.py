"""`CachedExchange`: any exchange, behind a bounded cache, with one flight per key.

A flight is detached from the Checks that wait for it: a caller who leaves, or whose deadline comes,
neither cancels nor delays the others, and what the flight brings is there for the next request.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Final

from authz.core.budget import Budget
from authz.core.cache import FailureCache, RejectionCache, TokenCache
from authz.core.circuit import CircuitOpen
from authz.core.errors import (
    AuthzError,
    DeadlineExceeded,
    ExchangeUnavailable,
    Reason,
)
from authz.core.event import Exchanged, LookedUp
from authz.core.exchange import (
    CacheKey,
    IssuedToken,
    TokenExchange,
    cache_key,
    client_of,
    subject_of,
)
from authz.core.moment import Moment
from authz.core.record import CacheName, CacheResult
from authz.core.shares import Shares
from authz.core.throttle import PROBE_EVERY, ApplicationThrottled
from authz.ports import Clock, Exchange, Observer, Timer

RETRY_SOON: Final = 1.0
"""Seconds to wait where the next try will probably find the finished flight's result."""

MOST_REJECTIONS: Final = 10_000
"""Exchanges remembered whose tokens an API refused."""


@dataclass(frozen=True, slots=True)
class FailureLifetimes:
    """Seconds for which a failure is repeated to the very same question instead of asking again.

    Long enough to spare Entra a storm, short enough that a user who has just consented or been enabled again,
    or an operator who has just repaired the configuration, does not wait. docs/errors.md states them.
    """

    by_reason: dict[Reason, float] = field(
        default_factory=lambda: {
            Reason.INTERACTION_REQUIRED: 5.0,
            Reason.CONSENT_REQUIRED: 5.0,
            Reason.EXCHANGE_REJECTED: 5.0,
            Reason.EXCHANGE_MISCONFIGURED: 5.0,
            Reason.EXCHANGE_UNAVAILABLE: 1.0,
            Reason.EXCHANGE_THROTTLED: 5.0,
        }
    )

    def seconds(self, error: AuthzError, *, of_a_user: bool = True) -> float:
        """Return for how long the failure is repeated: Entra's own `Retry-After` where that is longer.

        What several users need, such as T1, is probed once a minute.
        """
        lifetime, wait = self.by_reason.get(error.reason, 0.0), error.retry_after or 0.0
        if isinstance(error, CircuitOpen | ApplicationThrottled):
            # Nothing was asked, and another exchange may show before that time that one may ask.
            return min(lifetime, wait)
        return max(lifetime, wait if of_a_user else min(wait, PROBE_EVERY))


class CachedExchange:
    """Look up, else join the flight under way, else start one.

    Args:
        exchange: What really asks Entra.
        tokens: Holds what was issued.
        failures: Holds what was refused, for a short while.
        name: Which cache this is, for metrics.
        observer: Is notified of look-ups and flights.
        clock: Epoch seconds.
        timer: Monotonic seconds, the clock of deadlines and of what is counted here. The event loop's
            own time would do, but uvloop rounds it to milliseconds.
        flight_timeout: Seconds after which a flight is given up, whoever waits for it.
        places: Flights that each client may have at a time; one more is refused at once.
        lifetimes: How long failures stand.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        tokens: TokenCache,
        failures: FailureCache,
        name: CacheName,
        observer: Observer,
        clock: Clock,
        timer: Timer,
        flight_timeout: float,
        places: Shares,
        lifetimes: FailureLifetimes | None = None,
    ) -> None:
        self._exchange: Exchange | None = exchange
        self._tokens = tokens
        self._failures = failures
        self._name = name
        self._observer = observer
        self._clock = clock
        self._timer = timer
        self._flight_timeout = flight_timeout
        self._places = places
        self._lifetimes = lifetimes or FailureLifetimes()
        self._rejections = RejectionCache(max_entries=MOST_REJECTIONS)
        self._flights: dict[CacheKey, asyncio.Task[IssuedToken | AuthzError]] = {}

    async def obtain(
        self,
        exchange: TokenExchange,
        *,
        deadline: float,
        needed_by: float | None = None,
        route: str | None = None,
        seen: Callable[[CacheResult], None] = lambda _: None,
    ) -> IssuedToken:
        """Return a token for the exchange before `deadline` (monotonic seconds).

        `needed_by` is the earlier moment at which a Check stops waiting, where it is another,
        and `route` the egress route that asks, for the log.

        A hit does not wait. Past its `refresh_at` a token is still handed out while one flight fetches
        its successor, so that Entra can be down for the rest of the token's life unnoticed.

        Raises:
            DeadlineExceeded: The flight did not land in time; it continues.
            AuthzError: The exchange failed, just now or a moment ago.
        """
        key = cache_key(exchange)
        now = Moment(self._clock(), self._timer())
        token = self._tokens.get(key, now)
        if token is not None:
            self._note(CacheResult.HIT, seen)
            if token.refresh_at.has_come(now) and self._failures.get(key, now) is None:
                self._refresh(key, exchange, route)
            return token
        failure = self._failures.get(key, now)
        if failure is not None:
            self._note(CacheResult.FAILURE, seen)
            raise failure.with_traceback(None)
        flight = self._flights.get(key)
        self._note(CacheResult.MISS if flight is None else CacheResult.JOINED, seen)
        flight = flight or self._take_off(
            key, exchange, deadline if needed_by is None else needed_by, route
        )
        return await self._land(flight, deadline)

    async def renew(
        self,
        exchange: TokenExchange,
        *,
        instead_of: IssuedToken | None,
        deadline: float,
        route: str | None = None,
    ) -> IssuedToken:
        """Return a token that is not due for renewal, and not `instead_of`, before `deadline`.

        Unlike `obtain` this waits for the successor of a token that could still be handed out.

        Raises:
            DeadlineExceeded: The flight did not land in time; it continues.
            AuthzError: The exchange failed, just now or a moment ago.
        """
        key = cache_key(exchange)
        now = Moment(self._clock(), self._timer())
        token = self._tokens.get(key, now)
        if token is not None and token is not instead_of and not token.refresh_at.has_come(now):
            return token
        failure = self._failures.get(key, now)
        if failure is not None:
            raise failure.with_traceback(None)
        flight = self._flights.get(key) or self._take_off(key, exchange, deadline, route)
        return await self._land(flight, deadline)

    def held(self, exchange: TokenExchange) -> IssuedToken | None:
        """Return the token that `obtain` would hand out at once."""
        return self._tokens.get(cache_key(exchange), Moment(self._clock(), self._timer()))

    def forget(self, exchange: TokenExchange) -> None:
        """Drop what is held for the exchange: Entra no longer takes it."""
        self._tokens.drop(cache_key(exchange))

    def reject(self, exchange: TokenExchange, token: IssuedToken) -> None:
        """Drop a token that an API refused, so that the next one who asks gets another.

        An API that refuses whatever it is sent does not make us ask Entra each time: a second token of one
        exchange is dropped after a minute at the earliest, a third one two minutes later, and so on up to an
        hour.
        """
        key = cache_key(exchange)
        is_held = self._tokens.get(key, Moment(self._clock(), self._timer())) is token
        if is_held and self._rejections.note(key, self._timer()):
            self._tokens.drop(key)

    @property
    def margin(self) -> float:
        """Seconds before a token's own expiry at which it is no longer handed out."""
        return self._tokens.margin

    def flights(self) -> int:
        """Return how many exchanges are under way."""
        return len(self._flights)

    async def drain(self) -> None:
        """Wait for every flight under way; their timeouts bound the wait."""
        while self._flights:
            await asyncio.wait(list(self._flights.values()))

    async def retire(self) -> None:
        """Wait for every flight under way, begin none from now on, and let go of what asks Entra.

        That one refers to the cache of the assertions that it needs. Both, and each agent's MSAL client with
        them, would stay until a full garbage collection.
        """
        await self.drain()
        self._exchange = None

    async def close(self) -> None:
        """Give up every flight under way: nobody waits for one any more."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _note(self, result: CacheResult, seen: Callable[[CacheResult], None]) -> None:
        self._observer.observe(LookedUp(self._name, result))
        seen(result)

    def _refresh(self, key: CacheKey, exchange: TokenExchange, route: str | None) -> None:
        carry_out = self._exchange
        if carry_out and key not in self._flights and self._places.take(client_of(exchange)):
            self._start(carry_out, key, exchange, inf, route)

    async def _land(
        self, flight: asyncio.Task[IssuedToken | AuthzError], deadline: float
    ) -> IssuedToken:
        # asyncio.wait leaves the flight alone when this caller is cancelled or late.
        remaining = max(0.0, deadline - self._timer())
        done, _ = await asyncio.wait({flight}, timeout=remaining)
        if not done:
            raise DeadlineExceeded("the exchange is still under way", retry_after=RETRY_SOON)
        outcome = flight.result()
        if isinstance(outcome, AuthzError):
            # Many waiters raise the same error; without this its traceback would grow with each.
            raise outcome.with_traceback(None)
        return outcome

    def _take_off(
        self, key: CacheKey, exchange: TokenExchange, needed_by: float, route: str | None
    ) -> asyncio.Task[IssuedToken | AuthzError]:
        carry_out, client = self._exchange, client_of(exchange)
        if carry_out is None:
            raise ExchangeUnavailable(
                "the configuration that asks has been replaced", retry_after=RETRY_SOON
            )
        if not self._places.take(client):
            raise ExchangeUnavailable(
                f"too many exchanges of {client.name} are under way", retry_after=RETRY_SOON
            )
        return self._start(carry_out, key, exchange, needed_by, route)

    def _start(
        self,
        carry_out: Exchange,
        key: CacheKey,
        exchange: TokenExchange,
        needed_by: float,
        route: str | None,
    ) -> asyncio.Task[IssuedToken | AuthzError]:
        """Start a flight, whose place has been taken."""

        def landed(_: asyncio.Task[IssuedToken | AuthzError]) -> None:
            self._flights.pop(key, None)
            self._places.give_back(client_of(exchange))

        flight = asyncio.get_running_loop().create_task(
            self._fly(carry_out, key, exchange, needed_by, route)
        )
        self._flights[key] = flight
        flight.add_done_callback(landed)
        return flight

    async def _fly(
        self,
        carry_out: Exchange,
        key: CacheKey,
        exchange: TokenExchange,
        needed_by: float,
        route: str | None,
    ) -> IssuedToken | AuthzError:
        started = self._timer()
        budget = Budget(needed_by, ends=started + self._flight_timeout, route=route)
        error: AuthzError | None = None
        try:
            async with asyncio.timeout(self._flight_timeout):
                token = await carry_out(exchange, budget)
        except AuthzError as refusal:
            error = refusal.bare()
        except TimeoutError:
            error = ExchangeUnavailable("the exchange took too long", retry_after=RETRY_SOON)
        if budget.carried_out is not False:
            self._observer.observe(Exchanged(exchange, error, self._timer() - started, route))
        now, subject = Moment(self._clock(), self._timer()), subject_of(exchange)
        if error is not None:
            seconds = self._lifetimes.seconds(error, of_a_user=subject is not None)
            self._failures.put(key, error, seconds=seconds, now=now)
            return error
        self._tokens.put(
            key, token, subject_expires_at=subject.expires_at if subject else None, now=now
        )
        self._failures.drop(key)
        return token
