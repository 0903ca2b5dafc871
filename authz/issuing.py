"""The path of one who asks for a token by himself, to be read from top to bottom.

`TokenIssuer` walks; `authz.core.wish` says which token is meant; the door is `authz.sidecar_api`. Caches,
keys and exchanges are those of the Checks.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from authz.core.cache import PrincipalCache
from authz.core.decision import Allow
from authz.core.errors import (
    AgentNotAllowed,
    BadWish,
    ExchangeMisconfigured,
    MissingToken,
    UnknownApi,
)
from authz.core.policy import EgressRoute, InboundRoute, Policy, authorize, authorize_workload, plan
from authz.core.principal import Principal
from authz.core.request import BearerToken, CheckRequest
from authz.core.wish import Grants, Wish, fulfil
from authz.ports import CheckRecord, Clock, Observer, Timer
from authz.steps import Snapshot, Steps, Walk, denying


class TokenIssuer:
    """Verifies callers and gets them tokens.

    Args:
        snapshot: The configuration to start with.
        principals: Cache of verified tokens.
        observer: Is notified of each decision, once.
        clock: Epoch seconds, for tokens.
        timer: Monotonic seconds, for durations.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        principals: PrincipalCache,
        observer: Observer,
        clock: Clock,
        timer: Timer,
    ) -> None:
        self._snapshot = snapshot
        self._steps = Steps(principals=principals, observer=observer, clock=clock, timer=timer)
        self._observer = observer
        self._timer = timer

    def swap(self, snapshot: Snapshot) -> None:
        """Use another configuration from the next request on; those under way end with the old one."""
        self._snapshot = snapshot

    async def validate(self, request: CheckRequest, *, deadline: float) -> CheckRecord:
        """Verify a caller as the default inbound route does. Never raises."""

        async def validated(walk: Walk) -> Allow:
            walk.record.route = entrance = _entrance(walk)
            await self._steps.let_in(walk, entrance)
            return Allow()

        return await self._serve(request, deadline, validated)

    async def issue(
        self,
        request: CheckRequest,
        read_wish: Callable[[], Wish],
        *,
        authenticated: bool,
        deadline: float,
    ) -> CheckRecord:
        """Get the token of an egress route, changed as wished. Never raises.

        Args:
            request: Its `route` names the egress route.
            read_wish: Reads what the caller wishes; may raise `BadWish`.
            authenticated: Whether the caller must be one whom the default inbound route lets in.
            deadline: Monotonic second at which the answer must stand.
        """

        async def issued(walk: Walk) -> Allow:
            entrance = _entrance(walk)
            bearer: BearerToken | None = None
            if authenticated:
                bearer, _ = await self._steps.let_in(walk, entrance)
            configured = _api(walk)
            wish = read_wish()
            found = configured or _unconfigured(walk, wish)
            route = walk.record.route = fulfil(found, wish, _grants(walk, entrance))
            authorize_workload(route, request)
            principal = await self._user(walk, route, bearer)
            exchange = plan(route, principal, bearer)
            assert exchange is not None
            with _blaming(wish, walk.snapshot.policy, changed=route.flow is not found.flow):
                token = await self._steps.exchanged(walk, exchange, anew=wish.anew)
            walk.record.exchange, walk.record.token = exchange, token
            return Allow(token.secret)

        return await self._serve(request, deadline, issued)

    def refused(self, record: CheckRecord) -> None:
        """Hear that the API refused the token that was issued: nobody is to get it again."""
        if record.exchange is not None and record.token is not None:
            self._snapshot.tokens.reject(record.exchange, record.token)

    async def _serve(
        self, request: CheckRequest, deadline: float, path: Callable[[Walk], Awaitable[Allow]]
    ) -> CheckRecord:
        walk = Walk(CheckRecord(request, self._timer()), self._snapshot, deadline)
        record = walk.record
        with denying(record):
            record.decision = await path(walk)
        record.finished = self._timer()
        self._observer.decided(record)
        return record

    async def _user(
        self, walk: Walk, route: EgressRoute, bearer: BearerToken | None
    ) -> Principal | None:
        if not route.flow.is_delegated:
            return None
        if bearer is None:
            raise MissingToken("a token on behalf of a user is had with that user's token only")
        assert route.expectation is not None
        principal = await self._steps.verified(walk, bearer, route.expectation)
        authorize(route.requirement, principal)
        return principal


@contextmanager
def _blaming(wish: Wish, policy: Policy, *, changed: bool) -> Iterator[None]:
    """Make the caller's error of what Entra would otherwise call a wrong configuration of ours.

    That is so where the caller named what no configuration knows, and Entra does not either.
    """
    try:
        yield
    except ExchangeMisconfigured as error:
        known = policy.agents.get(wish.agent or "")
        if error.by_credential:
            raise
        if wish.agent is not None and known is None:
            raise AgentNotAllowed(f"agent {wish.agent}: {error.detail}") from error
        if wish.user is not None and (known is None or wish.user not in known.users):
            raise AgentNotAllowed(f"user account of agent {wish.agent}: {error.detail}") from error
        if wish.scopes:
            raise BadWish("optionsOverride.Scopes: Entra does not accept them here") from error
        if wish.app_token is not None and changed:
            raise BadWish(
                "optionsOverride.RequestAppToken: Entra gives no such token here"
            ) from error
        raise


def _entrance(walk: Walk) -> InboundRoute:
    policy = walk.snapshot.policy
    found = policy.inbound.get(policy.default_inbound or "")
    if found is None:
        raise ValueError("the configuration has no inbound route by which callers are verified")
    return found


def _api(walk: Walk) -> EgressRoute | None:
    """Return the route of a configured API, and record it: also for what is wrong with the wish."""
    policy, name = walk.snapshot.policy, walk.request.route or ""
    walk.record.route = found = policy.egress.get(name) or policy.unscoped.get(name)
    return found


def _unconfigured(walk: Walk, wish: Wish) -> EgressRoute:
    """Return the route of an API that is not configured: scopes say what its tokens are for."""
    found = walk.snapshot.policy.unconfigured
    if found is None or not wish.scopes or wish.for_own_resource:
        raise UnknownApi(f"no API {walk.request.route!r}")
    return found


def _grants(walk: Walk, entrance: InboundRoute) -> Grants:
    policy = walk.snapshot.policy
    return Grants(
        policy.agents,
        policy.open_blueprints,
        entrance.expectation,
        any_resource=policy.any_resource,
    )
