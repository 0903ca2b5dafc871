"""The path of one Check, to be read from top to bottom.

`CheckService` walks; `authz.core` decides; the doors in `authz.envoy` translate. Only the wait for a
signing key and the wait for an exchange can take time, and both end with the Check's own deadline.
"""

from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Final, assert_never

from authz.core.answer import Answer
from authz.core.baggage import Baggage
from authz.core.cache import PrincipalCache
from authz.core.decision import Allow
from authz.core.errors import TunnelRefused
from authz.core.moment import Moment, earliest
from authz.core.policy import (
    EgressRoute,
    InboundRoute,
    Policy,
    authorize,
    authorize_workload,
    plan,
)
from authz.core.principal import Principal
from authz.core.request import BearerToken, CheckRequest, Direction, is_oversized
from authz.core.secret import Secret
from authz.core.subject import Origin, SubjectSource, authorize_reference, find_subject
from authz.forwarding import AUTHORIZATION, BAGGAGE, forwarded, received, without_reference
from authz.ports import (
    CacheName,
    CacheResult,
    CheckRecord,
    Clock,
    Observer,
    Repeat,
    SubjectStore,
    Timer,
)
from authz.prefetching import Prefetches
from authz.steps import Snapshot, Steps, Walk, denying

LOOK_AGAIN: Final = 1.0
"""Seconds for which an answer stands whose token is due for a successor that is not there yet."""
_new_tuple: Final = tuple.__new__


class CheckService:
    """Decides on requests. The numbers are those of docs/architecture.md, "The path of one Check".

    Args:
        snapshot: The configuration to start with.
        principals: Cache of verified tokens.
        subjects: References that are given to apps.
        observer: Is notified of each decision, once.
        clock: Epoch seconds, for tokens.
        timer: Monotonic seconds, for durations and for what is counted here.
        prefetches: Runs what inbound routes prefetch.
        prefetch_timeout: Seconds that one of those may take; may be changed at any time.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        principals: PrincipalCache,
        subjects: SubjectStore,
        observer: Observer,
        clock: Clock,
        timer: Timer,
        prefetches: Prefetches,
        prefetch_timeout: float,
    ) -> None:
        self._snapshot = snapshot
        self._steps = Steps(principals=principals, observer=observer, clock=clock, timer=timer)
        self._subjects = subjects
        self._observer = observer
        self._clock = clock
        self._timer = timer
        self._prefetches = prefetches
        self.prefetch_timeout = prefetch_timeout

    @property
    def gives_handles(self) -> bool:
        """Whether apps receive references in `baggage`, so that nothing else may carry baggage."""
        return self._snapshot.policy.gives_handles

    def swap(self, snapshot: Snapshot) -> None:
        """Use another configuration from the next Check on; those under way end with the old one."""
        self._snapshot = snapshot

    def repeat(
        self,
        situation: Hashable,
        authorization: Secret | None,
        baggage: Secret | None,
        request: Callable[[], CheckRequest],
        started: float,
    ) -> bytes | None:
        """Return the reply that was prepared for such a request, if its answer still stands.

        This is the hit path: it is short, waits for nothing and hashes once. Whatever is in doubt is
        left to `check`, a defect too, which there is a denial.

        Args:
            situation: That of the request.
            authorization: That of the request.
            baggage: That of the request.
            request: Reads what is told of the request, for those who want to know it.
            started: Monotonic second at which it arrived.
        """
        # Past `Moment.__new__` and `Repeat.__new__`, which Python would have to interpret.
        now = _new_tuple(Moment, (self._clock(), started))
        try:
            answer = self._standing(situation, authorization, baggage, self._snapshot, now)
        except Exception:  # noqa: BLE001 - see above
            return None
        if answer is None or answer.reply is None:
            return None
        if answer.edge_ttl and answer.expires_at.left(now) < answer.edge_ttl:
            # Near its end an answer tells Envoy's cache a shorter time each time.
            return None
        told = request() if self._observer.reads_requests else None
        repeat = _new_tuple(Repeat, (answer, told, now.wall, self._timer() - started))
        self._observer.repeated((repeat,))
        return answer.reply

    async def check(self, request: CheckRequest, *, deadline: float) -> CheckRecord:
        """Decide on one request before `deadline` (monotonic seconds). Never raises.

        An unexpected exception is a defect of ours and a denial like any other (law 3).
        """
        record = CheckRecord(request, self._timer())
        await self._answer(Walk(record, self._snapshot, deadline))
        record.finished = self._timer()
        self._observer.decided(record)  # 9
        return record

    async def _answer(self, walk: Walk) -> CheckRecord:
        record = walk.record
        with denying(record):
            if walk.request.opens_tunnel:
                record.decision = _tunnel(walk)
            elif not self._repeat(record, walk.snapshot):
                allow = await self._decide(walk)
                self._remember(record, allow, walk.snapshot)
                record.decision = allow
        return record

    def _now(self) -> Moment:
        return Moment(self._clock(), self._timer())

    def _repeat(self, record: CheckRecord, snapshot: Snapshot) -> bool:
        """Give an answer again, if one stands."""
        now = self._now()
        request, most = record.request, snapshot.policy.max_token_bytes
        if request.authorization is not None and is_oversized(request.authorization, most):
            # Not even hashed; the parser will refuse it.
            return False
        answer = self._standing(
            request.situation, request.authorization, request.baggage, snapshot, now
        )
        found = CacheResult.MISS if answer is None else CacheResult.HIT
        self._observer.looked_up(CacheName.ANSWERS, found)
        if answer is None:
            return False
        record.repeats(answer)
        record.edge_ttl = _edge_ttl(record, snapshot.policy, now)
        return True

    def _standing(
        self,
        situation: Hashable,
        authorization: Secret | None,
        baggage: Secret | None,
        snapshot: Snapshot,
        now: Moment,
    ) -> Answer | None:
        answer = snapshot.answers.get(situation, authorization, baggage, now)
        if answer is None:
            return None
        principal, reference = answer.principal, answer.reference
        if (
            # The key was withdrawn: the whole path will say what that means.
            principal is not None
            and snapshot.keys.current(principal.issuer, principal.key_id) is None
        ) or (
            # It was evicted, and would be refused on egress.
            reference is not None and not self._subjects.holds(reference, now)
        ):
            snapshot.answers.drop(situation, authorization, baggage)
            return None
        return answer

    def _remember(self, record: CheckRecord, allow: Allow, snapshot: Snapshot) -> None:
        """Let an allowance stand until something it rests on ends. Denials are decided each time."""
        route, now = record.route, self._now()
        assert route is not None
        until, token = record.expires_at, record.token
        if record.principal is not None:
            until = earliest(until, now.epoch(record.principal.expires_at))
        if token is not None:
            until = earliest(until, snapshot.tokens.usable_until(token))
        reference = record.reference
        if reference is not None:
            until = earliest(until, reference.expires_at)
        record.expires_at = until
        record.edge_ttl = _edge_ttl(record, snapshot.policy, now)
        if token is not None:
            # From then on somebody has to go the whole path, which fetches a successor ahead. Once a
            # second is enough while Entra does not answer.
            is_due = token.refresh_at.has_come(now)
            until = earliest(until, now.counted(LOOK_AGAIN) if is_due else token.refresh_at)
        if reference is not None:
            until = earliest(until, reference.renew_at)
        record.answer = Answer(
            route,
            record.principal,
            allow,
            record.expires_at,
            until,
            token is not None,
            None if reference is None else reference.secret,
        )
        snapshot.answers.put(record.request, record.answer, now)

    async def _decide(self, walk: Walk) -> Allow:
        route = walk.record.route = walk.snapshot.policy.find(walk.request)  # 2
        match route:
            case InboundRoute():
                return await self._inbound(walk, route)
            case EgressRoute():
                return await self._egress(walk, route)
            case _ as unreachable:
                assert_never(unreachable)

    async def _inbound(self, walk: Walk, route: InboundRoute) -> Allow:
        bearer, principal = await self._steps.let_in(walk, route)  # 3 to 5
        if route.gives_reference:
            walk.record.reference = await self._subjects.give(
                bearer.secret,
                Origin(route.name, route.called, walk.request.peer),
                expires_at=principal.expires_at,
                now=self._now(),
            )
        allow = forwarded(walk.request, route, principal, walk.record.reference)  # 8
        self._prefetch(walk, route, allow)
        return allow

    def _prefetch(self, walk: Walk, route: InboundRoute, allow: Allow) -> None:
        """Begin the Checks that the agent will probably ask for, as if it had asked already."""
        for name in route.prefetch:
            wanted = walk.snapshot.policy.egress.get(name)
            client = None if wanted is None else wanted.credential_holder
            foresee = partial(
                self._foresee, walk, name, received(walk.request, route, allow), allow
            )
            self._prefetches.begin(name, client, foresee)

    def _foresee(
        self, walk: Walk, name: str, authorization: Secret | None, allow: Allow
    ) -> Awaitable[CheckRecord]:
        request = CheckRequest(
            host=walk.request.host,
            authorization=authorization,
            baggage=allow.baggage,
            direction=Direction.EGRESS.value,
            route=name,
            peer=walk.request.peer,
            at_edge=walk.request.at_edge,
        )
        started = self._timer()
        record = CheckRecord(request, started)
        return self._answer(Walk(record, walk.snapshot, started + self.prefetch_timeout))

    async def _egress(self, walk: Walk, route: EgressRoute) -> Allow:
        authorize_workload(route, walk.request)
        baggage = Baggage.parse(walk.request.baggage)
        bearer: BearerToken | None = None
        principal: Principal | None = None
        if route.flow.is_delegated:
            bearer = await self._subject(walk, route, baggage)  # 3
            if bearer is None:
                assert route.fallback is not None
                route = walk.record.route = route.fallback
            else:
                assert route.expectation is not None
                principal = await self._steps.verified(walk, bearer, route.expectation)  # 4
                authorize(route.requirement, principal)  # 5
        exchange = plan(route, principal, bearer)  # 6
        # Law 4: what the app sent, very likely the user's token or what stands for it, does not go out.
        carried, gone = without_reference(baggage)
        remove = (*walk.request.own_headers, *gone, *route.remove)
        if exchange is None:
            return Allow(baggage=carried, remove=(*remove, AUTHORIZATION))
        token = walk.record.token = await self._steps.exchanged(walk, exchange)  # 7
        return Allow(token.secret, carried, remove=remove)  # 8

    async def _subject(
        self, walk: Walk, route: EgressRoute, baggage: Baggage
    ) -> BearerToken | None:
        """Return the token of the user for whom the agent calls; None where the route does without one."""
        policy, request = walk.snapshot.policy, walk.request
        if route.sources == (SubjectSource.BEARER,):
            return walk.bearer()
        found = find_subject(
            route.sources, request.authorization, baggage, max_bytes=policy.max_token_bytes
        )
        if not isinstance(found, Secret):
            return found
        now, result = self._now(), CacheResult.MISS
        try:
            subject = await self._subjects.find(found, now)
            result = CacheResult.HIT
        finally:
            self._observer.looked_up(CacheName.SUBJECTS, result)
        authorize_reference(subject.origin, peer=request.peer, accepted=route.origins)
        # No answer that rests on it outlives it.
        walk.record.expires_at = earliest(walk.record.expires_at, subject.expires_at)
        return BearerToken(subject.token)


def _tunnel(walk: Walk) -> Allow:
    """Decide on a connection, which no answer of before has decided on.

    Where Envoy's route is for any host, the host may still have one of its own, in whatever spelling.
    """
    policy, host = walk.snapshot.policy, walk.request.host
    route, own = policy.find(walk.request), policy.by_host(host, any_port=True)
    if isinstance(route, EgressRoute) and own is not None and not own.tunnel:
        route = own
    walk.record.route = route
    if not isinstance(route, EgressRoute) or not route.tunnel:
        raise TunnelRefused(f"a connection to {host!r}")
    return Allow(remove=(*walk.request.own_headers, AUTHORIZATION, BAGGAGE))


def _edge_ttl(record: CheckRecord, policy: Policy, now: Moment) -> float:
    """Return for how many seconds Envoy may give the answer again without asking."""
    request, route = record.request, record.route
    if not request.at_edge or request.route is None or request.own_headers:
        return 0.0
    if route is None or not route.may_repeat_at_edge:
        return 0.0
    return max(0.0, min(policy.edge_ttl, record.expires_at.left(now)))
