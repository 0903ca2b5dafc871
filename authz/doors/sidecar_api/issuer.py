"""The path of an app's request for a token over the HTTP API, to be read from top to bottom.

`overrides` says which token is meant; the endpoints are in `server`. Caches, keys and exchanges are those of
the Checks.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, assert_never

from authz.checks.steps import Asked, Snapshot, Steps
from authz.core.cache import PrincipalCache
from authz.core.decision import Allow
from authz.core.errors import (
    AgentNotAllowed,
    BadOverride,
    ExchangeMisconfigured,
    MissingToken,
    RuleDenied,
    UnknownApi,
)
from authz.core.event import Decided
from authz.core.exchange import SubjectToken, TokenExchange
from authz.core.grant import Delegated, Own
from authz.core.lifetime import ONCE
from authz.core.outcome import Denied, Granted, Issued, Outcome
from authz.core.policy import Policy
from authz.core.record import CheckRecord, Trace
from authz.core.request import BearerToken, CheckRequest
from authz.core.requirement import authorize
from authz.core.route import EgressRoute, InboundRoute, authorize_workload
from authz.doors.sidecar_api.overrides import Overrides, Permitted, granted, overridden
from authz.ports import Clock, Observer, Timer

_BLUEPRINT_FOR_A_USER: Final = 82002
"""AADSTS number."""


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
        self._clock = clock
        self._timer = timer

    def swap(self, snapshot: Snapshot) -> None:
        """Use another configuration from the next request on; those under way end with the old one."""
        self._snapshot = snapshot

    async def validate(self, request: CheckRequest, *, deadline: float) -> CheckRecord:
        """Verify a caller as the default inbound route does. Never raises."""

        async def validated(asked: Asked) -> Granted:
            asked.trace.route = entrance = _entrance(asked)
            _, principal = await self._steps.admitted(asked, entrance)
            return Granted(entrance, Allow(), ONCE, principal)

        return await self._serve(request, deadline, validated)

    async def issue(
        self,
        request: CheckRequest,
        read_overrides: Callable[[], Overrides],
        *,
        authenticated: bool,
        deadline: float,
    ) -> CheckRecord:
        """Get the token of an egress route, changed as asked for. Never raises.

        Args:
            request: Its `route` names the egress route.
            read_overrides: Reads what the caller overrides; may raise `BadOverride`.
            authenticated: Whether the caller must be one whom the default inbound route lets in.
            deadline: Monotonic second at which the answer must stand.
        """

        async def issued(asked: Asked) -> Granted:
            entrance = _entrance(asked)
            bearer: BearerToken | None = None
            if authenticated:
                bearer, _ = await self._steps.admitted(asked, entrance)
            configured = _api(asked)
            if configured is not None and configured.rules is not None:
                # A token in the app's hands is used on any path.
                raise RuleDenied("its rules are for requests through Envoy")
            overrides = read_overrides()
            found = configured or _unconfigured(asked, overrides)
            route = asked.trace.route = overridden(found, overrides, _permitted(asked, entrance))
            authorize_workload(route, request)
            exchange = await self._exchange(asked, granted(route), bearer)
            with _blaming(overrides, asked.snapshot.policy, changed=route.flow is not found.flow):
                token = await self._steps.exchanged(
                    asked, exchange, route=route.name, force_refresh=overrides.force_refresh
                )
            caller = asked.trace.principal
            return Issued(route, Allow(token.secret), ONCE, caller, token, exchange=exchange)

        return await self._serve(request, deadline, issued)

    def refused(self, record: CheckRecord) -> None:
        """Hear that the API refused the token that was issued: nobody is to get it again."""
        match record.outcome:
            case Issued(exchange=exchange, token=token) if exchange and token:
                self._snapshot.tokens.reject(exchange, token)

    async def _serve(
        self, request: CheckRequest, deadline: float, path: Callable[[Asked], Awaitable[Granted]]
    ) -> CheckRecord:
        started, trace = self._timer(), Trace()
        outcome: Outcome
        try:
            outcome = await path(Asked(request, self._snapshot, deadline, trace))
        except Exception as cause:  # noqa: BLE001 - fail closed by type
            outcome = Denied.because(cause)
        record = CheckRecord(request, outcome, self._clock(), self._timer() - started, trace)
        self._observer.observe(Decided(record))
        return record

    async def _exchange(
        self, asked: Asked, grant: Own | Delegated, bearer: BearerToken | None
    ) -> TokenExchange:
        match grant:
            case Own(exchange=own):
                return own
            case Delegated():
                if bearer is None:
                    raise MissingToken(
                        "a token on behalf of a user needs that user's token", taken_nowhere=True
                    )
                principal = await self._steps.verified(asked, bearer, grant.expectation)
                authorize(grant.requirement, principal)
                return grant.exchange(SubjectToken(bearer.secret, principal.expires_at))
            case _ as unreachable:
                assert_never(unreachable)


@contextmanager
def _blaming(overrides: Overrides, policy: Policy, *, changed: bool) -> Iterator[None]:
    """Make the caller's error of what Entra would otherwise call a wrong configuration of ours.

    That is so where the caller named what no configuration knows, and Entra does not either.
    """
    try:
        yield
    except ExchangeMisconfigured as error:
        known = policy.agents.get(overrides.agent or "")
        if error.by_credential:
            raise
        if overrides.agent is not None and known is None:
            text = f"agent {overrides.agent}: {error.detail}"
            raise AgentNotAllowed(text, by_entra=True) from error
        if overrides.user is not None and (known is None or overrides.user not in known.users):
            text = f"user account of agent {overrides.agent}: {error.detail}"
            raise AgentNotAllowed(text, by_entra=True) from error
        by_caller = bool(overrides.scopes) or (overrides.app_token is not None and changed)
        if error.code == _BLUEPRINT_FOR_A_USER and overrides.agent is None and by_caller:
            raise BadOverride(
                "AgentIdentity: name an agent: a blueprint cannot act on behalf of a user"
            ) from error
        if overrides.scopes:
            raise BadOverride("optionsOverride.Scopes: Entra does not accept them here") from error
        if overrides.app_token is not None and changed:
            raise BadOverride(
                "optionsOverride.RequestAppToken: Entra gives no such token here"
            ) from error
        raise


def _entrance(asked: Asked) -> InboundRoute:
    policy = asked.snapshot.policy
    found = policy.inbound.get(policy.default_inbound or "")
    if found is None:
        raise ValueError("the configuration has no inbound route by which callers are verified")
    return found


def _api(asked: Asked) -> EgressRoute | None:
    """Return the route of a configured API, and record it: also for what is wrong with the overrides."""
    policy, name = asked.snapshot.policy, asked.request.route or ""
    asked.trace.route = found = policy.egress.get(name) or policy.unscoped.get(name)
    return found


def _unconfigured(asked: Asked, overrides: Overrides) -> EgressRoute:
    """Return the route of an API that is not configured: scopes say what its tokens are for."""
    found = asked.snapshot.policy.unconfigured
    if found is None or not overrides.scopes or overrides.for_own_resource:
        raise UnknownApi(f"no API {asked.request.route!r}")
    return found


def _permitted(asked: Asked, entrance: InboundRoute) -> Permitted:
    policy = asked.snapshot.policy
    return Permitted(
        policy.agents,
        policy.open_blueprints,
        entrance.expectation,
        any_resource=policy.any_resource,
    )
