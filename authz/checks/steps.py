"""What both paths through the service are made of: the configuration, one request, and the shared steps.

The paths themselves are `authz.checks.service` (Envoy asks) and `authz.doors.sidecar_api.issuer` (an app
asks).
"""

from dataclasses import dataclass

from authz.core.answer import AnswerCache
from authz.core.cache import PrincipalCache
from authz.core.event import LookedUp
from authz.core.exchange import IssuedToken, TokenExchange, check_subject_lives
from authz.core.moment import Moment
from authz.core.policy import Policy
from authz.core.principal import Principal
from authz.core.record import CacheName, CacheResult, Trace
from authz.core.request import BearerToken, CheckRequest, parse_bearer
from authz.core.requirement import authorize
from authz.core.route import InboundRoute
from authz.core.token import Expectation, read, verify
from authz.ports import Clock, KeySource, Observer, Timer
from authz.tokens.caching import CachedExchange


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of everything that a configuration change replaces, swapped as a whole.

    Attributes:
        policy: The routes.
        keys: Signing keys of the issuers that the routes trust.
        tokens: Exchanges with the credentials that the routes' agents use.
        answers: What was answered under this configuration, and still holds.
    """

    policy: Policy
    keys: KeySource
    tokens: CachedExchange
    answers: AnswerCache


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, and what it is decided by.

    Attributes:
        request: What is asked.
        snapshot: The configuration that was in use when the request arrived.
        deadline: Monotonic second at which the answer must stand.
        trace: Where the steps note what they see.
    """

    request: CheckRequest
    snapshot: Snapshot
    deadline: float
    trace: Trace

    def bearer(self) -> BearerToken:
        """Parse the one bearer value of the request."""
        limit = self.snapshot.policy.max_token_bytes
        return parse_bearer(self.request.authorization, max_bytes=limit)


class Steps:
    """Verification and exchange, each timed.

    Args:
        principals: Cache of verified tokens.
        observer: Is notified of look-ups.
        clock: Epoch seconds, for tokens.
        timer: Monotonic seconds, for durations.
    """

    def __init__(
        self, *, principals: PrincipalCache, observer: Observer, clock: Clock, timer: Timer
    ) -> None:
        self._principals = principals
        self._observer = observer
        self._clock = clock
        self._timer = timer

    async def admitted(self, asked: Asked, route: InboundRoute) -> tuple[BearerToken, Principal]:
        """Return who calls, verified and authorized by an inbound route."""
        bearer = asked.bearer()
        principal = await self.verified(asked, bearer, route.expectation)
        authorize(route.requirement, principal)
        return bearer, principal

    async def verified(
        self, asked: Asked, bearer: BearerToken, expectation: Expectation
    ) -> Principal:
        """Return whom a token speaks of, once it is proved to be what is expected."""
        trace, started = asked.trace, self._timer()
        try:
            principal = await self._known_or_verified(asked, bearer, expectation)
        finally:
            trace.verify_seconds = self._timer() - started
        trace.principal = principal
        return principal

    async def exchanged(
        self, asked: Asked, exchange: TokenExchange, *, route: str, force_refresh: bool = False
    ) -> IssuedToken:
        """Return the token of a route's exchange, from the cache unless a new one is demanded.

        Raises:
            InvalidToken: The user's token has ended, be it within the leeway.
            AuthzError: The exchange failed.
        """
        trace, started, tokens = asked.trace, self._timer(), asked.snapshot.tokens

        def seen(result: CacheResult) -> None:
            trace.token_cache = result

        check_subject_lives(exchange, self._clock())
        try:
            if not force_refresh:
                return await tokens.obtain(
                    exchange, deadline=asked.deadline, route=route, seen=seen
                )
            held = tokens.held(exchange)
            return await tokens.renew(
                exchange, instead_of=held, deadline=asked.deadline, route=route
            )
        finally:
            trace.exchange_seconds = self._timer() - started

    async def _known_or_verified(
        self, asked: Asked, bearer: BearerToken, expectation: Expectation
    ) -> Principal:
        keys, digest = asked.snapshot.keys, bearer.secret.digest()
        now = Moment(self._clock(), self._timer())
        principal = self._principals.get(expectation.key, digest, now)
        result = CacheResult.MISS if principal is None else CacheResult.HIT
        if principal is not None and keys.current(principal.issuer, principal.key_id) is None:
            # The key was withdrawn: what it once proved is no longer proved.
            self._principals.drop(expectation.key, digest)
            result, principal = CacheResult.STALE_KEY, None
        self._observer.observe(LookedUp(CacheName.PRINCIPALS, result))
        asked.trace.principal_cache = result
        if principal is None:
            token = read(bearer, expectation)
            key = keys.current(token.issuer, token.key_id)
            if key is None:
                key = await keys.find(token.issuer, token.key_id, deadline=asked.deadline)
            now = Moment(self._clock(), self._timer())
            principal = verify(token, key, expectation, now=now.wall)
            self._principals.put(expectation.key, digest, principal, now=now)
        return principal
