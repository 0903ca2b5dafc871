"""The path of one Check, to be read from top to bottom.

`CheckService` takes the steps in order and returns a value, `Granted`, or raises why not. `authz.core`
decides; `authz.doors` translate. Only the wait for a signing key and the wait for an exchange can take time,
and both end with the Check's own deadline.
"""

from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import assert_never

from authz.checks.edge import edge_epoch, edge_ttl
from authz.checks.identity_headers import (
    AUTHORIZATION,
    BAGGAGE,
    anonymous,
    forwarded,
    received,
    without_reference,
)
from authz.checks.prefetching import Prefetches
from authz.checks.steps import Asked, Snapshot, Steps
from authz.core.baggage import Baggage
from authz.core.cache import PrincipalCache
from authz.core.decision import Allow
from authz.core.errors import TunnelRefused
from authz.core.event import Decided, LookedUp
from authz.core.exchange import SubjectToken, TokenExchange
from authz.core.grant import Delegated, NoToken, Own
from authz.core.lifetime import ENDLESS, ONCE, lifetime
from authz.core.moment import NEVER, Moment
from authz.core.outcome import Denied, Granted, Replied
from authz.core.principal import Principal
from authz.core.record import CacheName, CacheResult, CheckRecord, Trace
from authz.core.request import (
    CONNECT,
    Authorization,
    BearerToken,
    CheckRequest,
    Direction,
    is_oversized,
)
from authz.core.requirement import authorize
from authz.core.resource import METADATA
from authz.core.route import EgressRoute, InboundRoute, Route, authorize_workload, ruled
from authz.core.secret import Secret
from authz.core.session import SessionOwners
from authz.core.subject import Origin, SubjectSource, authorize_reference, find_subject
from authz.ports import Clock, Decide, RepeatObserver, SubjectStore, Timer


class CheckService:
    """Decides on requests.

    Args:
        snapshot: The configuration to start with.
        principals: Cache of verified tokens.
        subjects: References that are given to apps.
        observer: Is notified of each decision, once.
        clock: Epoch seconds, for tokens.
        timer: Monotonic seconds, for durations and for what is counted here.
        sessions: Owners of sessions of MCP servers.
        prefetches: Runs what inbound routes prefetch.
        prefetch_timeout: Seconds that one of those may take; may be changed at any time.

    Attributes:
        gives_handles: Whether apps receive references in `baggage`, so that nothing else may carry baggage.
        has_rules: Whether some route has rules, so that headers by which servers read another request count.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        principals: PrincipalCache,
        subjects: SubjectStore,
        observer: RepeatObserver,
        clock: Clock,
        timer: Timer,
        sessions: SessionOwners,
        prefetches: Prefetches,
        prefetch_timeout: float,
    ) -> None:
        self.swap(snapshot)
        self._steps = Steps(principals=principals, observer=observer, clock=clock, timer=timer)
        self._subjects = subjects
        self._observer = observer
        self._clock = clock
        self._timer = timer
        self._sessions = sessions
        self._prefetches = prefetches
        self.prefetch_timeout = prefetch_timeout

    def swap(self, snapshot: Snapshot) -> None:
        """Use another configuration from the next Check on; those under way end with the old one."""
        self._snapshot = snapshot
        self.gives_handles = snapshot.policy.gives_handles
        self.has_rules = snapshot.policy.has_rules

    def repeat(self, request: CheckRequest) -> CheckRecord | None:
        """Return the answer that such a request had before, if all that it rests on still holds."""
        snapshot, now = self._snapshot, self._now()
        try:
            granted = self._standing(request, snapshot, now)
            if granted is None:
                return None
            edge = self._edge(request, granted, snapshot, now)
            seconds = self._timer() - now.steady
            record = CheckRecord(request, granted, now.wall, seconds, None, *edge)
        except Exception as defect:  # noqa: BLE001 - fail closed by type
            record = CheckRecord(request, Denied.because(defect), now.wall, 0.0, Trace())
            self._observer.observe(Decided(record))
            return record
        self._observer.repeated(granted, record)
        return record

    def decider(self) -> Decide:
        """Return what decides on requests that were read by the configuration in use now."""
        return partial(self._decide, snapshot=self._snapshot)

    async def _decide(
        self, request: CheckRequest, *, deadline: float, snapshot: Snapshot
    ) -> CheckRecord:
        """Decide on a request for which no answer stands.

        An unexpected exception is a defect of ours and a denial like any other (law 3).
        """
        record = await self._decided(request, snapshot, deadline)
        self._observer.observe(Decided(record))
        return record

    async def _decided(
        self, request: CheckRequest, snapshot: Snapshot, deadline: float
    ) -> CheckRecord:
        begun, trace = self._now(), Trace()
        asked = Asked(request, snapshot, deadline, trace)
        try:
            settled = _replied(asked) or _public(asked)
            if settled is not None:
                # For this request alone: neither we nor Envoy may repeat it.
                seconds = self._timer() - begun.steady
                return CheckRecord(request, settled, begun.wall, seconds, trace)
            granted, now = await self._granted(asked), self._now()
            edge = self._edge(request, granted, snapshot, now)
            seconds = now.steady - begun.steady
            return CheckRecord(request, granted, now.wall, seconds, trace, *edge)
        except Exception as cause:  # noqa: BLE001 - fail closed by type
            seconds, denied = self._timer() - begun.steady, _denied(cause, trace.route)
            return CheckRecord(request, denied, self._clock(), seconds, trace)

    def _edge(
        self, request: CheckRequest, granted: Granted, snapshot: Snapshot, now: Moment
    ) -> tuple[float, str]:
        """Return for how long Envoy's own cache may repeat an answer, and what must be there still then."""
        if not request.at_edge:
            return 0.0, ""
        ttl = edge_ttl(request, granted, snapshot.policy, now)
        return ttl, edge_epoch(granted, snapshot.policy, self._subjects)

    async def _granted(self, asked: Asked) -> Granted:
        """Return a new allowance, which then stands."""
        if asked.request.opens_tunnel:
            return _tunnel(asked)
        policy, trace = asked.snapshot.policy, asked.trace
        route = trace.route = policy.find(asked.request)
        match route:
            case InboundRoute():
                granted = await self._inbound(asked, route)
            case EgressRoute():
                granted = await self._egress(asked, route)
            case _ as unreachable:
                assert_never(unreachable)
        asked.snapshot.answers.put(asked.request, granted, self._now())
        return granted

    def _standing(self, request: CheckRequest, snapshot: Snapshot, now: Moment) -> Granted | None:
        """Return the allowance that stands for such a request."""
        policy = snapshot.policy
        if request.method == CONNECT or request.path.startswith(METADATA):
            # No answer knows the path that it was given for.
            return None
        binding = policy.binds_sessions and request.direction != Direction.EGRESS
        if binding and (request.session is not None or request.outdated):
            # Nor the session. An Envoy that was rendered from another configuration may not show it.
            return None
        if policy.has_public_paths and policy.public_route(request) is not None:
            return None
        authorization = request.authorization
        if authorization is not None and is_oversized(authorization, policy.max_token_bytes):
            # Not even hashed; the parser refuses it.
            return None
        rule = policy.rule_of(request)
        if rule is None:
            return None
        granted = snapshot.answers.find(request, rule, now)
        if granted is not None and not self._stands(granted, snapshot, now):
            snapshot.answers.drop(request, rule)
            granted = None
        if granted is None:
            self._observer.observe(LookedUp(CacheName.ANSWERS, CacheResult.MISS))
        return granted

    def _stands(self, granted: Granted, snapshot: Snapshot, now: Moment) -> bool:
        principal, reference = granted.principal, granted.reference
        # A key that was withdrawn proves nothing any more.
        if principal and snapshot.keys.current(principal.issuer, principal.key_id) is None:
            return False
        # A reference that was evicted would be refused on egress.
        return reference is None or self._subjects.holds(reference, now)

    async def _inbound(self, asked: Asked, route: InboundRoute) -> Granted:
        bearer = asked.bearer()
        principal = await self._steps.verified(asked, bearer, route.expectation)
        route = asked.trace.route = ruled(route, asked.request)
        authorize(route.requirement, principal)
        if route.bound_at:
            called = route.called or route.name
            self._sessions.claim(asked.request, called, principal.subject, route.bound_at)
        reference = None
        if route.gives_reference:
            reference = await self._subjects.give(
                bearer.secret,
                Origin(route.name, route.called, asked.request.peer),
                expires_at=principal.expires_at,
                now=self._now(),
            )
        allow = forwarded(asked.request, route, principal, reference)
        self._prefetch(asked, route, allow)
        life = lifetime(
            self._now(), principal=principal, token=None, margin=0.0, reference=reference
        )
        secret = None if reference is None else reference.secret
        return Granted(route, allow, life, principal, reference=secret)

    async def _egress(self, asked: Asked, route: EgressRoute) -> Granted:
        authorize_workload(route, asked.request)
        route = asked.trace.route = ruled(route, asked.request)
        baggage = Baggage.parse(asked.request.baggage)
        match route.grant:
            case NoToken():
                return Granted(route, _outgoing(asked, route, baggage, None), ENDLESS)
            case Own() as own:
                return await self._exchanged(asked, route, baggage, own.exchange)
            case Delegated() as grant:
                bearer, ends = await self._subject(asked, grant, baggage)
                if bearer is None:
                    own = grant.stand_in()
                    route = asked.trace.route = replace(route, grant=own)
                    return await self._exchanged(asked, route, baggage, own.exchange)
                principal = await self._steps.verified(asked, bearer, grant.expectation)
                authorize(grant.requirement, principal)
                subject = SubjectToken(bearer.secret, principal.expires_at)
                exchange = grant.exchange(subject)
                return await self._exchanged(asked, route, baggage, exchange, principal, ends)
            case _ as unreachable:
                assert_never(unreachable)

    async def _exchanged(
        self,
        asked: Asked,
        route: EgressRoute,
        baggage: Baggage,
        exchange: TokenExchange,
        principal: Principal | None = None,
        subject_ends: Moment = NEVER,
    ) -> Granted:
        """Return the allowance by the token of an exchange."""
        token = await self._steps.exchanged(asked, exchange, route=route.name)
        life = lifetime(
            self._now(),
            principal=principal,
            token=token,
            margin=asked.snapshot.tokens.margin,
            subject_ends=subject_ends,
        )
        allow = _outgoing(asked, route, baggage, token.secret)
        return Granted(route, allow, life, principal, token)

    async def _subject(
        self, asked: Asked, grant: Delegated, baggage: Baggage
    ) -> tuple[BearerToken | None, Moment]:
        """Return the token of the user for whom the agent calls, and the end of what led to it.

        There is no token where the route does without a user.
        """
        policy, request = asked.snapshot.policy, asked.request
        if grant.sources == (SubjectSource.BEARER,):
            return asked.bearer(), NEVER
        found = find_subject(
            grant.sources, request.authorization, baggage, max_bytes=policy.max_token_bytes
        )
        if not isinstance(found, Secret):
            return found, NEVER
        now, result = self._now(), CacheResult.MISS
        try:
            subject = await self._subjects.find(found, now)
            result = CacheResult.HIT
        finally:
            self._observer.observe(LookedUp(CacheName.SUBJECTS, result))
        authorize_reference(subject.origin, peer=request.peer, accepted=grant.origins)
        return BearerToken(subject.token), subject.expires_at

    def _prefetch(self, asked: Asked, route: InboundRoute, allow: Allow) -> None:
        """Begin the Checks that the agent will probably ask for, as if it had asked already."""
        for name in route.prefetch:
            wanted = asked.snapshot.policy.egress.get(name)
            client = None if wanted is None else wanted.credential_holder
            foresee = partial(
                self._foresee, asked, name, received(asked.request, route, allow), allow
            )
            self._prefetches.begin(name, client, foresee)

    def _foresee(
        self, asked: Asked, name: str, authorization: Authorization | None, allow: Allow
    ) -> Awaitable[CheckRecord]:
        request = CheckRequest(
            host=asked.request.host,
            authorization=authorization,
            baggage=allow.baggage,
            direction=Direction.EGRESS.value,
            route=name,
            peer=asked.request.peer,
            at_edge=asked.request.at_edge,
        )
        return self._decided(request, asked.snapshot, self._timer() + self.prefetch_timeout)

    def _now(self) -> Moment:
        return Moment(self._clock(), self._timer())


def _replied(asked: Asked) -> Replied | None:
    """Return the answer to a client that asks where to get a token; None for any other request."""
    request = asked.request
    if not request.path.startswith(METADATA):
        return None
    route = asked.snapshot.policy.find(request)
    if not isinstance(route, InboundRoute) or route.resource is None:
        return None
    reply = route.resource.reply_to(request)
    return None if reply is None else Replied(route, reply)


def _public(asked: Asked) -> Granted | None:
    """Return the allowance of a request that needs no token; None for any other."""
    route = asked.snapshot.policy.public_route(asked.request)
    return None if route is None else Granted(route, anonymous(asked.request), ONCE)


def _denied(cause: Exception, route: Route | None) -> Denied:
    """Return the denial that an exception stands for, with where its caller can get another token."""
    denied = Denied.because(cause)
    if not isinstance(route, InboundRoute) or route.resource is None:
        return denied
    return replace(denied, decision=route.resource.challenge(denied.decision))


def _outgoing(asked: Asked, route: EgressRoute, baggage: Baggage, token: Secret | None) -> Allow:
    """Return what becomes of the app's request.

    Law 4: what the app sent, very likely the user's token or what stands for it, does not go out.
    """
    carried, gone = without_reference(baggage)
    remove = (*asked.request.own_headers, *gone, *route.remove)
    if token is None:
        remove = (*remove, AUTHORIZATION)
    return Allow(token, carried, remove=remove)


def _tunnel(asked: Asked) -> Granted:
    """Decide on a connection, which no answer of before has decided on.

    Where Envoy's route is for any host, the host may still have one of its own, in whatever spelling.
    """
    policy, host = asked.snapshot.policy, asked.request.host
    route, own = policy.find(asked.request), policy.by_host(host, any_port=True)
    if isinstance(route, EgressRoute) and own is not None and not own.allows_tunnels:
        route = own
    asked.trace.route = route
    if not isinstance(route, EgressRoute) or not route.allows_tunnels:
        raise TunnelRefused(f"a connection to {host!r}")
    allow = Allow(remove=(*asked.request.own_headers, AUTHORIZATION, BAGGAGE))
    return Granted(route, allow, ONCE)
