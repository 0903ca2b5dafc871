"""The path of one Check, to be read from top to bottom.

`CheckService` walks; `authz.core` decides; the doors in `authz.envoy` translate. Only the wait for a
signing key and the wait for an exchange can take time, and both end with the Check's own deadline.
"""

from dataclasses import dataclass
from typing import Final, assert_never
from urllib.parse import quote

from authz.caching import CachedExchange
from authz.core.cache import PrincipalCache
from authz.core.decision import Allow, Decision, Deny
from authz.core.errors import AuthzError, Reason
from authz.core.exchange import IssuedToken, TokenExchange
from authz.core.policy import (
    EgressRoute,
    Forward,
    InboundRoute,
    Policy,
    authorize,
    authorize_workload,
    plan,
)
from authz.core.principal import Principal
from authz.core.request import BearerToken, CheckRequest, parse_bearer
from authz.core.token import Expectation, peek, verify
from authz.ports import CacheName, CacheResult, CheckRecord, Clock, KeySource, Observer, Timer

AUTHORIZATION: Final = "authorization"
IDENTITY_HEADERS: Final = (
    "x-authz-subject",
    "x-authz-subject-type",
    "x-authz-tenant",
    "x-authz-actor",
    "x-authz-actor-blueprint",
    "x-authz-scopes",
    "x-authz-roles",
)
_VISIBLE: Final = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of everything that a configuration change replaces, swapped as a whole.

    Attributes:
        policy: The routes.
        keys: Signing keys of the issuers that the routes trust.
        tokens: Exchanges with the credentials that the routes' agents use.
    """

    policy: Policy
    keys: KeySource
    tokens: CachedExchange


@dataclass(frozen=True, slots=True)
class _Walk:
    """One Check on its way: what it goes by, and where it notes what it finds.

    Attributes:
        record: The request, and what is known of it so far.
        snapshot: The configuration that was in use when the Check arrived.
        deadline: Monotonic second at which the answer must stand.
    """

    record: CheckRecord
    snapshot: Snapshot
    deadline: float

    @property
    def request(self) -> CheckRequest:
        """What Envoy asked."""
        return self.record.request

    def bearer(self) -> BearerToken:
        """Parse the one bearer value of the request."""
        limit = self.snapshot.policy.max_token_bytes
        return parse_bearer(self.request.authorization, max_bytes=limit)


class CheckService:
    """Decides on requests. The numbers are those of docs/architecture.md, "The path of one Check".

    Args:
        snapshot: The configuration to start with.
        principals: Cache of verified tokens.
        observer: Hears of each decision, once.
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
        self._principals = principals
        self._observer = observer
        self._clock = clock
        self._timer = timer

    def swap(self, snapshot: Snapshot) -> None:
        """Use another configuration from the next Check on; those under way end with the old one."""
        self._snapshot = snapshot

    async def check(self, request: CheckRequest, *, deadline: float) -> CheckRecord:
        """Decide on one request before `deadline` (monotonic seconds). Never raises.

        An unexpected exception is a defect of ours and a denial like any other (law 3).
        """
        record = CheckRecord(request=request, started=self._timer())
        try:
            record.decision = await self._decide(_Walk(record, self._snapshot, deadline))
        except AuthzError as error:
            # Others may be raising the same error at this moment, from the failure cache.
            record.error = error.bare()
            record.decision = Deny.because(error)
        except Exception as fault:  # noqa: BLE001 - fail closed by type
            record.fault = fault
            record.decision = Deny(Reason.INTERNAL)
        record.finished = self._timer()
        self._observer.decided(record)  # 9
        return record

    async def _decide(self, walk: _Walk) -> Decision:
        route = walk.record.route = walk.snapshot.policy.find(walk.request)  # 2
        match route:
            case InboundRoute():
                return await self._inbound(walk, route)
            case EgressRoute():
                return await self._egress(walk, route)
            case _ as unreachable:
                assert_never(unreachable)

    async def _inbound(self, walk: _Walk, route: InboundRoute) -> Decision:
        bearer = walk.bearer()  # 3
        principal = await self._verified(walk, bearer, route.expectation)  # 4
        authorize(route.requirement, principal)  # 5
        headers = identity_headers(principal)
        # What is not set is removed, whether or not Envoy told us that the client sent it: an empty
        # value would leave it to Envoy what becomes of a forged one.
        named = {name for name, _ in headers}
        unset = dict.fromkeys((*IDENTITY_HEADERS, *walk.request.own_headers))
        remove = tuple(name for name in unset if name not in named)
        match route.forward:  # 8
            case Forward.BEARER:
                return Allow(headers=headers, remove=remove)
            case Forward.STRIP:
                return Allow(headers=headers, remove=(*remove, AUTHORIZATION))
            case _ as unreachable:
                assert_never(unreachable)

    async def _egress(self, walk: _Walk, route: EgressRoute) -> Decision:
        authorize_workload(route, walk.request)
        bearer: BearerToken | None = None
        principal: Principal | None = None
        if route.flow.is_delegated:
            bearer = walk.bearer()  # 3
            assert route.expectation is not None
            principal = await self._verified(walk, bearer, route.expectation)  # 4
            authorize(route.requirement, principal)  # 5
        exchange = plan(route, principal, bearer)  # 6
        own_headers = walk.request.own_headers
        if exchange is None:
            # Law 4: what the app sent, very likely the user's token, does not go out.
            return Allow(remove=(*own_headers, AUTHORIZATION))
        token = await self._exchanged(walk, exchange)  # 7
        return Allow(authorization=token.secret, remove=own_headers)  # 8

    async def _exchanged(self, walk: _Walk, exchange: TokenExchange) -> IssuedToken:
        record, started = walk.record, self._timer()

        def seen(result: CacheResult) -> None:
            record.token_cache = result

        try:
            return await walk.snapshot.tokens.obtain(exchange, deadline=walk.deadline, seen=seen)
        finally:
            record.exchange_seconds = self._timer() - started

    async def _verified(
        self, walk: _Walk, bearer: BearerToken, expectation: Expectation
    ) -> Principal:
        record, started = walk.record, self._timer()
        try:
            record.principal = await self._known_or_verified(walk, bearer, expectation)
        finally:
            record.verify_seconds = self._timer() - started
        return record.principal

    async def _known_or_verified(
        self, walk: _Walk, bearer: BearerToken, expectation: Expectation
    ) -> Principal:
        keys, digest = walk.snapshot.keys, bearer.secret.digest()
        principal = self._principals.get(expectation.key, digest, self._clock())
        result = CacheResult.MISS if principal is None else CacheResult.HIT
        if principal is not None and keys.current(principal.issuer, principal.key_id) is None:
            # The key was withdrawn: what it once proved is no longer proved.
            self._principals.drop(expectation.key, digest)
            result, principal = CacheResult.STALE_KEY, None
        self._observer.looked_up(CacheName.PRINCIPALS, result)
        walk.record.principal_cache = result
        if principal is None:
            claim = peek(bearer, expectation)
            key = keys.current(claim.issuer, claim.key_id)
            if key is None:
                key = await keys.find(claim.issuer, claim.key_id, deadline=walk.deadline)
            now = self._clock()
            principal = verify(bearer, key, expectation, now=now)
            self._principals.put(expectation.key, digest, principal, now=now)
        return principal


def identity_headers(principal: Principal) -> tuple[tuple[str, str], ...]:
    """Return what the app may know of its caller: those `IDENTITY_HEADERS` that have a value."""
    values = (
        principal.subject.object_id,
        principal.subject.type.value,
        principal.subject.tenant_id,
        principal.actor.client_id,
        principal.actor.blueprint or "",
        _header_list(principal.scopes),
        _header_list(principal.roles),
    )
    pairs = zip(IDENTITY_HEADERS, values, strict=True)
    return tuple((name, value) for name, value in pairs if value)


def _header_list(names: frozenset[str]) -> str:
    # A role's name is free text. A blank inside it would read as two roles, a line break as a header.
    return " ".join(sorted(quote(name, safe=_VISIBLE) for name in names))
