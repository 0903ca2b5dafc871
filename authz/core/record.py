"""`CheckRecord`, everything that is reported about one Check; and `Trace`, what is measured during it.

Nothing here decides. Doors make their answer of a record, observers count and log it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, assert_never

from authz.core.decision import Decision
from authz.core.errors import AuthzError
from authz.core.outcome import Denied, Granted, Outcome
from authz.core.policy import EgressRoute, InboundRoute, Route
from authz.core.principal import Principal
from authz.core.request import CheckRequest, Direction


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


@dataclass(slots=True)
class Trace:
    """What is seen on the way, for the log and the metrics. No step reads it.

    Attributes:
        started: Monotonic second at which the Check began.
        finished: Monotonic second at which the decision stood.
        at: Epoch second at which it stood.
        route: The route, once found: a denial names it too.
        principal: The verified caller, once known: a denial names it too.
        repeated: Whether an earlier answer was given again.
        verify_seconds: Spent on the token, including the wait for a key.
        exchange_seconds: Spent on the exchange, including waits.
        principal_cache: Result of the verified-token look-up.
        token_cache: Result of the exchanged-token look-up.
    """

    started: float
    finished: float = 0.0
    at: float = 0.0
    route: Route | None = None
    principal: Principal | None = None
    repeated: bool = False
    verify_seconds: float = 0.0
    exchange_seconds: float = 0.0
    principal_cache: CacheResult | None = None
    token_cache: CacheResult | None = None


class CheckRecord(NamedTuple):
    """One Check, once it is decided.

    Attributes:
        request: What was asked.
        outcome: How it ended.
        trace: What was seen on the way.
        edge_ttl: Seconds for which Envoy's own cache may repeat the answer; 0 for not at all.
        edge_epoch: Names what must be there still when it does; empty where nothing must.
    """

    request: CheckRequest
    outcome: Outcome
    trace: Trace
    edge_ttl: float = 0.0
    edge_epoch: str = ""

    @property
    def decision(self) -> Decision:
        """What becomes of the request."""
        return self.outcome.decision

    @property
    def route(self) -> Route | None:
        """Its route; None where none was found."""
        return self.outcome.route if isinstance(self.outcome, Granted) else self.trace.route

    @property
    def principal(self) -> Principal | None:
        """The verified caller, as far as known."""
        return self.outcome.principal if isinstance(self.outcome, Granted) else self.trace.principal

    @property
    def error(self) -> AuthzError | None:
        """What a denial came from."""
        return self.outcome.error if isinstance(self.outcome, Denied) else None

    @property
    def fault(self) -> Exception | None:
        """The defect that a denial came from."""
        return self.outcome.fault if isinstance(self.outcome, Denied) else None

    @property
    def principal_cache(self) -> CacheResult | None:
        """Result of the verified-token look-up: of a repeated answer it was found with the answer."""
        if self.trace.repeated:
            return None if self.principal is None else CacheResult.HIT
        return self.trace.principal_cache

    @property
    def token_cache(self) -> CacheResult | None:
        """Result of the exchanged-token look-up: of a repeated answer it was found with the answer."""
        if self.trace.repeated and isinstance(self.outcome, Granted):
            return None if self.outcome.token is None else CacheResult.HIT
        return self.trace.token_cache

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.trace.finished - self.trace.started

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
