"""`Scene`, a real `CheckService` whose outside world is fake: what a test of the Check path starts from.

It has one inbound route, and one egress route for each flow a route can name, called as the flow is.
"""

from dataclasses import replace
from math import inf
from typing import Any, Final, TypedDict, Unpack

from authz.checks.prefetching import Prefetches
from authz.checks.service import CheckService
from authz.checks.steps import Snapshot
from authz.core.answer import AnswerCache
from authz.core.cache import FailureCache, PrincipalCache, TokenCache
from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.core.exchange import Flow
from authz.core.moment import Moment
from authz.core.operation import Body
from authz.core.policy import Policy
from authz.core.record import CacheName, CheckRecord
from authz.core.request import Authorization, CheckRequest
from authz.core.requirement import Requirement
from authz.core.route import EgressRoute, InboundRoute
from authz.core.secret import Secret
from authz.core.session import SessionOwners
from authz.core.shares import Shares
from authz.ports import Timer
from authz.tokens.caching import CachedExchange
from authz.tokens.references import SubjectMemory
from support.fakes.clock import Clock
from support.fakes.fakes import FakeExchange, FakeKeys
from support.fakes.recorder import Recorder
from support.fakes.routes import route_of
from support.fakes.tenant import FakeTenant

INBOUND: Final = "agent"
EGRESS_FLOWS: Final = tuple(
    flow for flow in Flow if flow not in (Flow.BLUEPRINT_ASSERTION, Flow.AGENT_ASSERTION)
)
DELEGATED_FLOWS: Final = tuple(flow for flow in EGRESS_FLOWS if flow.is_delegated)


class Fields(TypedDict, total=False):
    """Fields of a request that a test names; the types are the request's own."""

    method: str
    host: str
    path: str
    authorization: Authorization | None
    baggage: Secret | None
    direction: str | None
    route: str | None
    peer: str | None
    source_principal: str | None
    own_headers: tuple[str, ...]
    at_edge: bool
    outdated: bool
    reads_otherwise: str
    edge_knows_rules: bool
    body: Body | None
    session: Secret | None
    request_id: str
    traceparent: str


class Scene:
    """A service and everything around it, which a test may look into and disturb."""

    def __init__(
        self,
        *,
        timer: Timer | None = None,
        max_flights: int = 100,
        clock: Clock | None = None,
        has_defects: bool = False,
    ) -> None:
        # Where a test causes none, a denial because of one is not what it looks for.
        self.has_defects = has_defects
        self.clock = clock or Clock()
        self.timer = timer = timer or self.clock.timer
        self.tenant = FakeTenant(clock=self.clock)
        self.keys = FakeKeys(
            [self.tenant.signing_key(), self.tenant.signing_key(self.tenant.issuer_v1)],
            timer=timer,
        )
        self.entra = FakeExchange(self._now)
        self.observer = Recorder()
        self.failures = FailureCache(max_entries=100)
        self.tokens = CachedExchange(
            self.entra,
            tokens=TokenCache(max_entries=100, max_bytes=10**6, margin=60.0),
            failures=self.failures,
            name=CacheName.TOKENS,
            observer=self.observer,
            clock=self.clock,
            timer=timer,
            flight_timeout=5.0,
            places=Shares(max_flights, holders=1),
        )
        self.principals = PrincipalCache(max_entries=100, max_bytes=10**6)
        self.subjects = SubjectMemory(max_entries=100, max_bytes=10**6, max_age=600.0)
        self.prefetches = Prefetches(observer=self.observer, places=Shares(3, holders=1))
        self.service = CheckService(
            self.snapshot(Policy(version="empty")),
            principals=self.principals,
            subjects=self.subjects,
            observer=self.observer,
            clock=self.clock,
            timer=timer,
            sessions=SessionOwners(100),
            prefetches=self.prefetches,
            prefetch_timeout=5.0,
        )
        self.inbound_route = InboundRoute(INBOUND, self.tenant.expectation())
        self.egress_routes = {flow.value: self._egress_route(flow) for flow in EGRESS_FLOWS}
        self.configure()

    def _now(self) -> Moment:
        # A timer of the test's own may count its looks.
        own = self.timer == self.clock.timer
        return self.clock.moment() if own else Moment(self.clock(), inf)

    def configure(self, *routes: InboundRoute | EgressRoute, **changes: Any) -> None:
        """Put a policy into force: the scene's routes, these in place of or beside them."""
        inbound = {INBOUND: self.inbound_route}
        egress = dict(self.egress_routes)
        for route in routes:
            if isinstance(route, InboundRoute):
                inbound[route.name] = route
            else:
                egress[route.name] = route
        policy = Policy(version="v1", inbound=inbound, egress=egress)
        self.service.swap(self.snapshot(replace(policy, **changes)))

    def snapshot(self, policy: Policy) -> Snapshot:
        """Return a version of the configuration with the scene's keys and tokens."""
        answers = AnswerCache(max_entries=100, max_bytes=10**6)
        return Snapshot(policy, self.keys, self.tokens, answers)

    async def check(self, request: CheckRequest, *, within: float = 5.0) -> CheckRecord:
        """Ask for a decision."""
        record = self.service.repeat(request)
        if record is None:
            record = await self.service.decider()(request, deadline=self.timer() + within)
        reason = record.decision.reason if isinstance(record.decision, Deny) else None
        assert self.has_defects or reason is not Reason.INTERNAL, repr(record.fault)
        return record

    async def inbound(self, token: str | None, **changes: Unpack[Fields]) -> CheckRecord:
        """Send a request with a bearer token to the agent."""
        return await self.check(self.request("inbound", INBOUND, token, **changes))

    async def egress(
        self,
        route: str,
        token: str | None = None,
        /,
        *,
        within: float = 5.0,
        **changes: Unpack[Fields],
    ) -> CheckRecord:
        """Send a request of the agent through an egress route."""
        return await self.check(self.request("egress", route, token, **changes), within=within)

    def request(
        self, direction: str, route: str, token: str | None, /, **changes: Unpack[Fields]
    ) -> CheckRequest:
        """Build a request; keywords replace fields."""
        authorization = None if token is None else Authorization(f"Bearer {token}")
        request = CheckRequest(
            "GET", "api.example", "/", authorization, direction=direction, route=route
        )
        return request._replace(**changes)

    def _egress_route(self, flow: Flow) -> EgressRoute:
        hosts = (f"{flow.value}.example".replace("_", "-"),)
        if not flow.is_delegated:
            return route_of(flow.value, flow, hosts)
        return route_of(
            flow.value,
            flow,
            hosts,
            expectation=self.tenant.expectation(),
            requirement=Requirement(scopes=(("access_as_user",),)),
        )
