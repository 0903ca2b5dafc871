"""What the service needs from the outside world, as Protocols, and the record it makes of a Check.

No implementation lives here. `authz.entra`, `authz.observe` and the tests' fakes provide them.
"""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, assert_never

from authz.core.answer import Answer
from authz.core.budget import Budget
from authz.core.decision import Decision, Deny
from authz.core.errors import AuthzError, Reason
from authz.core.exchange import Flow, IssuedToken, TokenExchange
from authz.core.keys import SigningKey
from authz.core.moment import NEVER, Moment
from authz.core.policy import EgressRoute, InboundRoute, Route
from authz.core.principal import Principal
from authz.core.request import CheckRequest, Direction
from authz.core.secret import Secret
from authz.core.subject import Origin, Reference, Subject
from authz.core.wish import Wish

Clock = Callable[[], float]
"""Epoch seconds, as `time.time`: what tokens go by. Somebody may set it at any time."""

Timer = Callable[[], float]
"""Monotonic seconds, as `asyncio`'s loop time: for deadlines, durations and whatever else we count."""


class Checks(Protocol):
    """Decisions on requests: what the ext_authz door calls."""

    @property
    def gives_handles(self) -> bool:
        """Whether apps receive references in `baggage`, so that nothing else may carry baggage."""

    def repeat(
        self,
        situation: Hashable,
        authorization: Secret | None,
        baggage: Secret | None,
        request: Callable[[], CheckRequest],
        started: float,
    ) -> bytes | None:
        """Return the reply that was prepared for such a request, if its answer still stands."""

    def check(self, request: CheckRequest, *, deadline: float) -> Awaitable["CheckRecord"]:
        """Decide before `deadline` (monotonic seconds). Never raises."""


class Tokens(Protocol):
    """Tokens for those who ask for one by themselves: what the HTTP API calls."""

    def issue(
        self,
        request: CheckRequest,
        read_wish: Callable[[], Wish],
        *,
        authenticated: bool,
        deadline: float,
    ) -> Awaitable["CheckRecord"]:
        """Get the token of an egress route, changed as wished. Never raises."""

    def refused(self, record: "CheckRecord") -> None:
        """Hear that the API refused the token that was issued."""

    def validate(self, request: CheckRequest, *, deadline: float) -> Awaitable["CheckRecord"]:
        """Verify a caller as the default inbound route does. Never raises."""


class KeySource(Protocol):
    """Signing keys of trusted issuers."""

    def current(self, issuer: str, key_id: str) -> SigningKey | None:
        """Return a key that is trusted now, without waiting."""

    async def find(self, issuer: str, key_id: str, *, deadline: float) -> SigningKey:
        """Return the key, fetching once if it is unknown and fetching is due.

        Raises:
            InvalidToken: The issuer has no such key.
            KeysUnavailable: No keys of this issuer could be had yet.
            DeadlineExceeded: The answer did not come before `deadline`.
        """


class Exchange(Protocol):
    """One way to have a token issued."""

    async def __call__(self, exchange: TokenExchange, budget: Budget) -> IssuedToken:
        """Ask Entra.

        Raises:
            AuthzError: Entra refused, or could not be reached.
        """


class Standing(StrEnum):
    """How a credential, or a client by its credentials, stands with Entra."""

    UNREAD = "unread"
    """There is nothing to show: its file is missing, say."""
    UNPROVED = "unproved"
    """Its newest version was not shown to Entra yet, or without an answer."""
    ACCEPTED = "accepted"
    REFUSED = "refused"


class SubjectStore(Protocol):
    """References to verified users' tokens. One that several processes share would wait, hence `async`."""

    async def give(
        self, token: Secret, origin: Origin, *, expires_at: float, now: Moment
    ) -> Reference:
        """Return a reference to a token that ends at `expires_at` (epoch seconds)."""

    async def find(self, reference: Secret, now: Moment) -> Subject:
        """Return what a reference stands for.

        Raises:
            UnknownSubject: It was never given out, has ended, or was evicted.
        """

    def holds(self, reference: Secret, now: Moment) -> bool:
        """Whether a reference that was given out may be given out again, as far as is known here."""


class CacheName(StrEnum):
    """The caches, as metric labels."""

    PRINCIPALS = "principals"
    TOKENS = "tokens"
    ASSERTIONS = "assertions"
    ANSWERS = "answers"
    SUBJECTS = "subjects"


class CacheResult(StrEnum):
    """How a look-up ended, as metric label."""

    HIT = "hit"
    MISS = "miss"
    JOINED = "joined"
    FAILURE = "failure"
    STALE_KEY = "stale_key"


_UNDECIDED: Final = Deny(Reason.INTERNAL)


@dataclass(slots=True)
class CheckRecord:
    """What is known of one Check, filled in along the way and observed once at its end.

    Attributes:
        request: What Envoy asked.
        started: Monotonic second at which the Check began.
        route: The route, once found.
        principal: The verified principal, once there is one.
        decision: The answer; a denial until the path's end is reached.
        error: The denial's cause, with detail for the log.
        fault: An unexpected exception: a defect of ours.
        finished: Monotonic second at which the decision stood.
        verify_seconds: Spent on the token, including the wait for a key.
        exchange_seconds: Spent on the exchange, including waits.
        principal_cache: Result of the verified-token look-up.
        token_cache: Result of the exchanged-token look-up.
        exchange: What was exchanged, by the whole path.
        token: What was issued for the exchange, by the whole path.
        reference: What was given to the app to refer to its caller, by the whole path.
        expires_at: When an allowance ends: the earliest end of a token it rests on.
        edge_ttl: Seconds for which Envoy's own cache may repeat the answer; 0 for not at all.
        answer: The remembered answer that this one repeats or has become, if there is one.
        repeated: Whether it repeats one.
    """

    request: CheckRequest
    started: float
    route: Route | None = None
    principal: Principal | None = None
    decision: Decision = _UNDECIDED
    error: AuthzError | None = None
    fault: Exception | None = None
    finished: float = 0.0
    verify_seconds: float = 0.0
    exchange_seconds: float = 0.0
    principal_cache: CacheResult | None = None
    token_cache: CacheResult | None = None
    exchange: TokenExchange | None = None
    token: IssuedToken | None = None
    reference: Reference | None = None
    expires_at: Moment = NEVER
    edge_ttl: float = 0.0
    answer: Answer | None = None
    repeated: bool = False

    def repeats(self, answer: Answer) -> None:
        """Take over an answer that is given again."""
        self.answer, self.repeated = answer, True
        self.route, self.principal = answer.route, answer.principal
        self.decision, self.expires_at = answer.decision, answer.expires_at
        if answer.principal is not None:
            self.principal_cache = CacheResult.HIT
        if answer.has_token:
            self.token_cache = CacheResult.HIT

    @property
    def direction(self) -> Direction | None:
        """Which way, once the route is known."""
        match self.route:
            case InboundRoute():
                return Direction.INBOUND
            case EgressRoute():
                return Direction.EGRESS
            case None:
                return None
            case _ as unreachable:
                assert_never(unreachable)


class Repeat(NamedTuple):
    """An answer that was given again, by its prepared reply.

    Attributes:
        answer: Which.
        request: What is told of the request, if anybody wants to know: no `authorization`, and of what
            decides only the peer.
        at: Epoch second.
        seconds: How long it took.
    """

    answer: Answer
    request: CheckRequest | None
    at: float
    seconds: float

    def record(self) -> CheckRecord:
        """Return the same as the whole path would have told it."""
        record = CheckRecord(self.request or CheckRequest(), 0.0, finished=self.seconds)
        record.repeats(self.answer)
        return record


class Observer(Protocol):
    """Who is notified of what happens. Must not raise and must not wait."""

    @property
    def reads_requests(self) -> bool:
        """Whether `repeated` wants each `Repeat.request`: reading it takes time."""

    def decided(self, record: CheckRecord) -> None:
        """Hear of the end of a Check. Called exactly once for each that went the whole path."""

    def repeated(self, repeats: Sequence[Repeat]) -> None:
        """Hear of Checks that were answered by a prepared reply."""

    def looked_up(self, cache: CacheName, result: CacheResult) -> None:
        """Hear of a cache look-up."""

    def exchanged(self, flow: Flow, error: AuthzError | None, seconds: float) -> None:
        """Hear of the end of an exchange or a leg that was really carried out."""

    def called(self, route: str, outcome: int | AuthzError, seconds: float) -> None:
        """Hear of a call to an API, made for a caller of the HTTP API: its status, or why there is none."""

    def prefetched(self, route: str, outcome: str) -> None:
        """Hear of the end of a prefetch: `issued`, `known`, `skipped`, or the reason of a denial."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who holds the other end of a connection.

    Attributes:
        spiffe_id: What its certificate proves; None for a Unix socket, which is the proof itself.
    """

    spiffe_id: str | None = None


class SecretObserver(Protocol):
    """Who is notified of tokens that Envoys are given ahead. Must not raise and must not wait.

    The argument is the name of the egress route; None for a name that no route has.
    """

    def secret_sent(self, route: str | None, *, empty: bool) -> None:
        """Hear of a value sent to one Envoy."""

    def secret_rejected(self, route: str | None) -> None:
        """Hear of an Envoy that could not use a value."""
