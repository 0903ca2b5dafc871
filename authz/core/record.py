"""`CheckRecord`, everything that is reported about one Check; and `Trace`, what is measured during it.

Nothing here decides. Doors make their answer of a record, observers count and log it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, assert_never

from authz.core.decision import Decision
from authz.core.errors import AuthzError, RuleDenied
from authz.core.exchange import Target
from authz.core.grant import NoToken
from authz.core.outcome import Denied, Granted, Outcome, Replied
from authz.core.principal import Principal
from authz.core.request import CheckRequest, Direction
from authz.core.route import EgressRoute, InboundRoute, Route


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


_ON_ROUTE: Final = (Granted, Replied)
"""Outcomes that have a route. As a union, `isinstance` would build it for each Check."""


@dataclass(slots=True)
class Trace:
    """What is seen on the way, for the log and the metrics. No step reads it.

    Attributes:
        route: The route, once found: a denial names it too.
        principal: The verified caller, once known: a denial names it too.
        verify_seconds: Spent on the token, including the wait for a key.
        exchange_seconds: Spent on the exchange, including waits.
        principal_cache: Result of the verified-token look-up.
        token_cache: Result of the exchanged-token look-up.
    """

    route: Route | None = None
    principal: Principal | None = None
    verify_seconds: float = 0.0
    exchange_seconds: float = 0.0
    principal_cache: CacheResult | None = None
    token_cache: CacheResult | None = None


class CheckRecord(NamedTuple):
    """One Check, once it is decided.

    Attributes:
        request: What was asked.
        outcome: How it ended.
        at: Epoch second at which the decision stood.
        seconds: How long it took.
        trace: What was seen on the way; None where an earlier answer was given again.
        edge_ttl: Seconds for which Envoy's own cache may repeat the answer; 0 for not at all.
        edge_epoch: Names what must be there still when it does; empty where nothing must.
    """

    request: CheckRequest
    outcome: Outcome
    at: float
    seconds: float
    trace: Trace | None = None
    edge_ttl: float = 0.0
    edge_epoch: str = ""

    @property
    def decision(self) -> Decision:
        """What becomes of the request."""
        return self.outcome.decision

    @property
    def repeated(self) -> bool:
        """Whether an earlier answer was given again."""
        return self.trace is None

    @property
    def route(self) -> Route | None:
        """Its route; None where none was found."""
        if isinstance(self.outcome, _ON_ROUTE):
            return self.outcome.route
        return None if self.trace is None else self.trace.route

    @property
    def rule(self) -> str:
        """The rule that decided; empty where the route has none, or none of them is for the request."""
        if isinstance(self.error, RuleDenied):
            return self.error.rule or ""
        return "" if self.route is None else self.route.rule

    @property
    def tool(self) -> str:
        """The tool of an MCP server that the request calls; empty where none was read."""
        body = self.request.body
        return "" if body is None or body.operation is None else body.operation.tool

    @property
    def message_id(self) -> str | int | None:
        """The `id` of the JSON-RPC message that the request sends; None where none was read, or waits."""
        body = self.request.body
        return None if body is None or body.operation is None else body.message_id

    @property
    def target(self) -> Target | None:
        """What the token that was given is for; None where none was given."""
        route = self.route
        if not isinstance(self.outcome, Granted) or not isinstance(route, EgressRoute):
            return None
        return None if isinstance(route.grant, NoToken) else route.grant.target

    @property
    def principal(self) -> Principal | None:
        """The verified caller, as far as known."""
        if isinstance(self.outcome, Granted):
            return self.outcome.principal
        return None if self.trace is None else self.trace.principal

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
        if self.trace is None:
            return None if self.principal is None else CacheResult.HIT
        return self.trace.principal_cache

    @property
    def token_cache(self) -> CacheResult | None:
        """Result of the exchanged-token look-up: of a repeated answer it was found with the answer."""
        if self.trace is not None:
            return self.trace.token_cache
        has_token = isinstance(self.outcome, Granted) and self.outcome.token is not None
        return CacheResult.HIT if has_token else None

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
