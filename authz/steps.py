"""What each path through the service is made of: its configuration, what it notes, and shared steps.

The paths themselves are `authz.service` (Envoy asks) and `authz.issuing` (an app asks by itself).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from authz.caching import CachedExchange
from authz.core.answer import AnswerCache
from authz.core.cache import PrincipalCache
from authz.core.decision import Deny
from authz.core.errors import AuthzError, Reason
from authz.core.exchange import IssuedToken, TokenExchange, check_subject_lives
from authz.core.moment import Moment
from authz.core.policy import InboundRoute, Policy, authorize
from authz.core.principal import Principal
from authz.core.request import BearerToken, CheckRequest, parse_bearer
from authz.core.token import Expectation, peek, verify
from authz.ports import CacheName, CacheResult, CheckRecord, Clock, KeySource, Observer, Timer


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
class Walk:
    """One request on its way: what it goes by, and where it notes what it finds.

    Attributes:
        record: The request, and what is known of it so far.
        snapshot: The configuration that was in use when the request arrived.
        deadline: Monotonic second at which the answer must stand.
    """

    record: CheckRecord
    snapshot: Snapshot
    deadline: float

    @property
    def request(self) -> CheckRequest:
        """What is asked."""
        return self.record.request

    def bearer(self) -> BearerToken:
        """Parse the one bearer value of the request."""
        limit = self.snapshot.policy.max_token_bytes
        return parse_bearer(self.request.authorization, max_bytes=limit)


@contextmanager
def denying(record: CheckRecord) -> Iterator[None]:
    """Make a denial of whatever is raised inside: an unexpected exception is one like any other (law 3)."""
    try:
        yield
    except AuthzError as error:
        # Others may be raising the same error at this moment, from the failure cache.
        record.error = error.bare()
        record.decision = Deny.because(error)
    except Exception as fault:  # noqa: BLE001 - fail closed by type
        record.fault = fault
        record.decision = Deny(Reason.INTERNAL)


class Steps:
    """Verification and exchange, each timed and noted.

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

    async def let_in(self, walk: Walk, route: InboundRoute) -> tuple[BearerToken, Principal]:
        """Return who calls, verified and authorized by an inbound route."""
        bearer = walk.bearer()
        principal = await self.verified(walk, bearer, route.expectation)
        authorize(route.requirement, principal)
        return bearer, principal

    async def verified(
        self, walk: Walk, bearer: BearerToken, expectation: Expectation
    ) -> Principal:
        """Return whom a token speaks of, once it is proved to be what is expected."""
        record, started = walk.record, self._timer()
        try:
            record.principal = await self._known_or_verified(walk, bearer, expectation)
        finally:
            record.verify_seconds = self._timer() - started
        return record.principal

    async def exchanged(
        self, walk: Walk, exchange: TokenExchange, *, anew: bool = False
    ) -> IssuedToken:
        """Return the token of an exchange, from the cache unless it is to be issued anew.

        Raises:
            InvalidToken: The user's token has ended, be it within the leeway.
            AuthzError: The exchange failed.
        """
        record, started, tokens = walk.record, self._timer(), walk.snapshot.tokens

        def seen(result: CacheResult) -> None:
            record.token_cache = result

        check_subject_lives(exchange, self._clock())
        try:
            if not anew:
                return await tokens.obtain(exchange, deadline=walk.deadline, seen=seen)
            held = tokens.held(exchange)
            return await tokens.renew(exchange, instead_of=held, deadline=walk.deadline)
        finally:
            record.exchange_seconds = self._timer() - started

    async def _known_or_verified(
        self, walk: Walk, bearer: BearerToken, expectation: Expectation
    ) -> Principal:
        keys, digest = walk.snapshot.keys, bearer.secret.digest()
        now = Moment(self._clock(), self._timer())
        principal = self._principals.get(expectation.key, digest, now)
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
            now = Moment(self._clock(), self._timer())
            principal = verify(bearer, key, expectation, now=now.wall)
            self._principals.put(expectation.key, digest, principal, now=now)
        return principal
