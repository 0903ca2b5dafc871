"""`Keeper`: keeps the token of one route fresh for as long as some Envoy holds it, and publishes each value.

Which route has a keeper, and who may hold its token, is `authz.tokens.pushing`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from authz.core.errors import AuthzError, ExchangeUnavailable, Reason
from authz.core.exchange import CacheKey, IssuedToken, TokenExchange, cache_key
from authz.core.grant import OwnExchange
from authz.core.lifetime import usable_until
from authz.core.moment import Moment
from authz.core.route import EgressRoute
from authz.core.secret import Secret
from authz.ports import Clock, Peer, Timer
from authz.tokens.caching import CachedExchange

ATTEMPT: Final = 5.0
"""Seconds until an attempt counts as failed. Its flight continues, and the next attempt joins it. Envoy's
start waits for the first attempt, so it is short."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 15.0
"""Seconds between attempts; the pause doubles. Short also at its longest: an outage ends for Envoy only
when an attempt succeeds."""
LEAD: Final = 0.25
"""Part of a token's usable life that is left for its renewal where Entra recommends none earlier."""
LONGEST_NAP: Final = 1.0
"""Seconds after which a wait looks at the clocks again."""
SET: Final = 1.0
"""Seconds by which the two clocks differ more or less than before when somebody has set the wall clock. It
also differs more after a machine was suspended."""

Wait = Callable[[Moment], Awaitable[None]]
"""Waits until a moment has come, or until somebody has set the wall clock."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PushedValue:
    """What Envoy shall hold now.

    Attributes:
        version: Changes with the token; unique in this process. 0 is the empty value of a refusal.
        token: The access token; None is the empty value, with which Envoy refuses requests.
    """

    version: int
    token: Secret | None

    @property
    def is_empty(self) -> bool:
        """Whether Envoy shall refuse what depends on it."""
        return self.token is None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What must be in no log."""
        return () if self.token is None else (self.token,)


@dataclass(frozen=True, slots=True)
class RefusalValue:
    """Why Envoy holds no token, for its reply to a request that needs one.

    Attributes:
        version: Changes with the reason; unique in this process.
        reason: `exchange_misconfigured`, `unknown_route` or `workload_not_allowed`, where waiting does not
            help; None where there is a token, or where it may come.
    """

    version: int
    reason: str | None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say."""
        return self.reason is None

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What must be in no log: nothing."""
        return ()


REFUSED: Final = PushedValue(0, None)
UNEXPLAINED: Final = RefusalValue(0, None)
# Keepers' versions are above 0.
_NOT_GRANTED: Final = {
    reason: RefusalValue(-number, reason.value)
    for number, reason in enumerate((Reason.UNKNOWN_ROUTE, Reason.WORKLOAD_NOT_ALLOWED), start=1)
}
"""What says why a configuration grants no token."""
REFUSAL: Final = "refusal/"
"""Begins the name of the secret that holds a `RefusalValue`; the route's name follows."""


class Subscription:
    """One Envoy's interest in a route's token, or in why there is none. Made by `PushedTokens.subscribe`."""

    def __init__(self, name: str, peer: Peer, on_change: Callable[[], None]) -> None:
        self.name = name
        self.asks_why = name.startswith(REFUSAL)
        self.route = name.removeprefix(REFUSAL)
        self.peer = peer
        self.on_change = on_change
        self.refusal: str | None = None
        """Why there is only the empty value, for the log; None when it was granted."""
        self.reason: Reason | None = None
        """The same, for Envoy's reply to an app."""
        self.is_configured = False
        """Whether the name is that of an egress route: only then may it become a metric's label."""
        self._keeper: Keeper | None = None

    @property
    def value(self) -> PushedValue | RefusalValue | None:
        """What Envoy shall hold; None while the first attempt is under way."""
        if self._keeper is None:
            if not self.asks_why:
                return REFUSED
            return UNEXPLAINED if self.reason is None else _NOT_GRANTED[self.reason]
        return self._keeper.refusal if self.asks_why else self._keeper.value

    def join(self, keeper: "Keeper | None") -> None:
        """Take values from a keeper from now on; from None the empty one."""
        self._keeper = keeper


@dataclass(frozen=True, slots=True)
class Means:
    """What every keeper works with."""

    clock: Clock
    timer: Timer
    margin: float
    wait: Wait
    jitter: Callable[[], float]
    next_version: Callable[[], int]

    def now(self) -> Moment:
        """Return the present."""
        return Moment(self.clock(), self.timer())


class Keeper:
    """Keeps one route's token, from its making until `end`."""

    def __init__(
        self, route: EgressRoute, exchange: OwnExchange, tokens: CachedExchange, means: Means
    ) -> None:
        self._means = means
        self.subscribers: dict[Subscription, None] = {}
        self.value: PushedValue | None = None
        self.refusal: RefusalValue | None = None
        self.failure: dict[str, str] = {}
        """Why the last attempt failed, in words for the status; empty after one that did not."""
        self.held: IssuedToken | None = None
        self._held_for: CacheKey | None = None
        self._expiry: asyncio.Task[None] | None = None
        self._begin(route, exchange, tokens)

    @property
    def holders(self) -> int:
        """How many Envoys hold the token."""
        return sum(not subscription.asks_why for subscription in self.subscribers)

    def adopt(self, route: EgressRoute, exchange: OwnExchange, tokens: CachedExchange) -> None:
        """Go by another version of the route."""
        self._renewal.cancel()
        self._begin(route, exchange, tokens)

    def end(self) -> Iterator[asyncio.Task[None]]:
        """Stop; returns what is still to come to its end."""
        for task in (self._renewal, self._expiry):
            if task is not None:
                task.cancel()
                yield task

    def _begin(self, route: EgressRoute, exchange: OwnExchange, tokens: CachedExchange) -> None:
        self._route, self._tokens, self._exchange = route, tokens, exchange
        self._renewal = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        failures, due, pause = 0, None, None
        while True:
            try:
                token = await self._attempt(due)
            except AuthzError as error:
                error.bare()  # others may be raising it, and our frames hold tokens
                failures += 1
                self._fail(error.reason.value, error.detail)
                pause = self._pause(failures, error.retry_after or 0.0)
            except Exception as fault:  # noqa: BLE001 - fail closed by type
                failures += 1
                self._fail("internal", type(fault).__name__)
                pause = self._pause(failures, 0.0)
            else:
                failures, due, pause = 0, token, None
                self._hold(token)
            if pause is not None:
                # A clock that is set ends it: a wrong one may have been the cause.
                await self._means.wait(self._means.now().counted(pause))
            else:
                await self._until(self._renewal_of(token))

    async def _attempt(self, due: IssuedToken | None) -> IssuedToken:
        deadline = self._means.timer() + ATTEMPT
        token = await self._tokens.renew(
            self._exchange, instead_of=due, deadline=deadline, route=self._route.name
        )
        if self._hard_expiry(token).has_come(self._means.now()):
            raise ExchangeUnavailable("the token expires within cache.tokens.margin")
        return token

    async def _expire(self, token: IssuedToken) -> None:
        await self._until(self._hard_expiry(token))
        self._empty("expired", "the token could not be renewed in time")

    def _hold(self, token: IssuedToken) -> None:
        self._held_for = _identity(self._exchange)
        self.failure = {}
        if token is self.held:
            return
        self._forget()
        self.held = token
        self._expiry = asyncio.get_running_loop().create_task(self._expire(token))
        self._publish(token.secret)
        _log.info(
            "secret pushed",
            **self._told(),
            seconds=round(token.expires_at.left(self._means.now())),
        )

    def _fail(self, reason: str, detail: str) -> None:
        self.failure = {"reason": reason, "detail": detail}
        # A token of another identity does not outlive the first attempt under this configuration.
        if self.held is not None and self._held_for == _identity(self._exchange):
            _log.warning("secret not renewed", **self._told(), reason=reason, detail=detail)
        else:
            self._empty(reason, detail)

    def _empty(self, reason: str, detail: str) -> None:
        self._forget()
        was_empty = self.value is not None and self.value.token is None
        if not was_empty or self._explains_otherwise():
            self._publish(None)
        if not was_empty:
            _log.warning("secret empty", **self._told(), reason=reason, detail=detail)

    def _forget(self) -> None:
        self.held = None
        if self._expiry is not None and self._expiry is not asyncio.current_task():
            self._expiry.cancel()
        self._expiry = None

    def _reason(self) -> str | None:
        """Return what Envoy shall tell an app that needs the token while there is none."""
        reason = self.failure.get("reason")
        return reason if reason == Reason.EXCHANGE_MISCONFIGURED.value else None

    def _explains_otherwise(self) -> bool:
        return self.refusal is None or self.refusal.reason != self._reason()

    def _publish(self, token: Secret | None) -> None:
        if self.value is None or token is not None or self.value.token is not None:
            self.value = PushedValue(self._means.next_version(), token)
        if self._explains_otherwise():
            self.refusal = RefusalValue(self._means.next_version(), self._reason())
        for subscription in self.subscribers:
            subscription.on_change()

    def _told(self) -> dict[str, Any]:
        route = self._route
        # An Envoy that starts asks for the reason first, and for the token a moment later.
        holders = {"subscribers": self.holders} if self.holders else {}
        return {"route": route.name, "flow": route.flow.value, **holders}

    def _hard_expiry(self, token: IssuedToken) -> Moment:
        return usable_until(token, self._means.margin)

    async def _until(self, moment: Moment) -> None:
        while not moment.has_come(self._means.now()):
            await self._means.wait(moment)

    def _renewal_of(self, token: IssuedToken) -> Moment:
        now = self._means.now()
        ahead = self._hard_expiry(token).left(now) * (1 - LEAD)
        return now.later(max(min(token.refresh_at.left(now), ahead), FIRST_PAUSE))

    def _pause(self, failures: int, retry_after: float) -> float:
        doubled = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
        pause = doubled * (0.5 + self._means.jitter() / 2)
        return max(pause, retry_after)


def _identity(exchange: TokenExchange) -> CacheKey:
    """Return what an exchange's token stands for, whichever version of the configuration asks."""
    return cache_key(replace(exchange, target=replace(exchange.target, policy_version="")))


def waiting(clock: Clock, timer: Timer) -> Wait:
    """Return a wait that goes by these clocks."""

    async def wait(moment: Moment) -> None:
        now = Moment(clock(), timer())
        difference = now.wall - now.steady
        while (left := moment.left(now)) > 0:
            await asyncio.sleep(min(left, LONGEST_NAP))
            now = Moment(clock(), timer())
            if abs(now.wall - now.steady - difference) > SET:
                return

    return wait
