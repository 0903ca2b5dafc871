"""`PushedTokens`: which routes' tokens Envoys hold ahead of requests, and who may hold them.

A `Keeper` (`keeper`) renews the token of one route for as long as there is a subscriber. How values travel to
Envoy is `authz.doors.envoy.sds`; what a token costs and who shares it is `caching`.
"""

import asyncio
import random
from collections.abc import Callable
from itertools import count
from typing import Any

from authz.core.errors import Reason, WorkloadNotAllowed
from authz.core.policy import Policy
from authz.core.request import CheckRequest
from authz.core.route import EgressRoute, authorize_workload
from authz.ports import Clock, Peer, Timer
from authz.tokens.caching import CachedExchange
from authz.tokens.keeper import Keeper, Means, Subscription, Wait, waiting


class PushedTokens:
    """Keeps tokens for subscribers.

    Args:
        policy: The routes.
        tokens: Where tokens come from: Checks and keepers share cache and flights.
        clock: Epoch seconds.
        timer: Monotonic seconds, the clock of deadlines.
        margin: Seconds before a token's own expiry at which it is no longer handed out.
        wait: Waits until a moment has come, or until somebody has set the wall clock.
        jitter: A number from 0 to 1, drawn each time: keepers that failed together do not return so.
    """

    def __init__(
        self,
        policy: Policy,
        tokens: CachedExchange,
        *,
        clock: Clock,
        timer: Timer,
        margin: float,
        wait: Wait | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._tokens = tokens
        self._means = Means(
            clock, timer, margin, wait or waiting(clock, timer), jitter, count(1).__next__
        )
        self._subscriptions: dict[Subscription, None] = {}
        self._keepers: dict[str, Keeper] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def subscribe(self, name: str, peer: Peer, on_change: Callable[[], None]) -> Subscription:
        """Begin to keep a route's token for a peer; `on_change` is called when the value has changed.

        A name that the peer may not have is no error: it has the empty value, so that what depends
        on it is closed and everything else in that Envoy works.
        """
        subscription = Subscription(name, peer, on_change)
        self._subscriptions[subscription] = None
        self._settle(subscription)
        return subscription

    def cancel(self, subscription: Subscription) -> None:
        """End a subscription; with the last one of a route, the keeping ends."""
        self._subscriptions.pop(subscription, None)
        self._part(subscription)

    def swap(self, policy: Policy, tokens: CachedExchange) -> None:
        """Go by another configuration: what it no longer grants is empty at once."""
        self._policy, self._tokens = policy, tokens
        for name, keeper in list(self._keepers.items()):
            route = policy.egress.get(name)
            own = None if route is None else route.pushed
            if route is None or own is None:
                self._end(name)
            else:
                keeper.adopt(route, own.exchange, tokens)
        for subscription in self._subscriptions:
            before = subscription.value
            self._settle(subscription)
            if subscription.value is not before:
                subscription.on_change()

    def expiries(self) -> dict[str, float]:
        """Return the seconds until each kept token's own expiry; 0 where no Envoy holds one."""
        now = self._means.now()
        return {
            name: keeper.held.expires_at.left(now) if keeper.held and keeper.holders else 0.0
            for name, keeper in self._keepers.items()
            if keeper.value is not None
        }

    def status(self) -> dict[str, dict[str, Any]]:
        """Return, for each kept token, the seconds until its expiry and how many Envoys hold it.

        While it cannot be renewed, also why.
        """
        expiries = self.expiries()
        return {
            name: {
                "seconds": round(expiries[name], 1) if name in expiries else None,
                "subscribers": keeper.holders,
                **keeper.failure,
            }
            for name, keeper in self._keepers.items()
        }

    def subscribers(self) -> int:
        """Return how many subscriptions there are."""
        return len(self._subscriptions)

    async def close(self) -> None:
        """End every keeper, and wait until it has ended."""
        for name in list(self._keepers):
            self._end(name)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _settle(self, subscription: Subscription) -> None:
        """Grant or refuse a subscription by the policy of now."""
        name = subscription.route
        route = self._policy.egress.get(name)
        subscription.is_configured = route is not None
        own = None if route is None else route.pushed
        refusal = _refusal(route, subscription.peer)
        subscription.reason, subscription.refusal = refusal or (None, None)
        if subscription.refusal is not None or route is None or own is None:
            self._part(subscription)
            return
        keeper = self._keepers.get(name)
        if keeper is None:
            keeper = self._keepers[name] = Keeper(route, own.exchange, self._tokens, self._means)
        keeper.subscribers[subscription] = None
        subscription.join(keeper)

    def _part(self, subscription: Subscription) -> None:
        subscription.join(None)
        keeper = self._keepers.get(subscription.route)
        if keeper is not None and subscription in keeper.subscribers:
            del keeper.subscribers[subscription]
            if not keeper.subscribers:
                self._end(subscription.route)

    def _end(self, name: str) -> None:
        for task in self._keepers.pop(name).end():
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


def _refusal(route: EgressRoute | None, peer: Peer) -> tuple[Reason, str] | None:
    """Return why a peer gets no token of a route, in words too; None when it does (law 2)."""
    if route is None:
        return Reason.UNKNOWN_ROUTE, "no egress route has this name"
    if route.pushed is None:
        # Envoy was rendered when it was pushed.
        return (
            Reason.UNKNOWN_ROUTE,
            f"the route is not pushed: its flow is {route.flow.value}, or it has push: false",
        )
    try:
        # A connection proves its own end only. What an Envoy says about others, which counts with
        # `workload_identity: source_principal`, comes with a request, and here is none.
        authorize_workload(route, CheckRequest(peer=peer.spiffe_id))
    except WorkloadNotAllowed as error:
        return (
            Reason.WORKLOAD_NOT_ALLOWED,
            f"the route is for certain workloads: {error.detail} is none of them",
        )
    return None
