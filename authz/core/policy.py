"""`Policy`: all routes of one version of the configuration, and which of them a request has.

What is not configured is denied. What a route demands and grants is in `authz.core.route`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from authz.core.errors import AuthzError, MalformedRequest, UnknownRoute
from authz.core.exchange import AgentIdentity, AgentUser, Client
from authz.core.request import CheckRequest, Direction, normalize_host
from authz.core.route import EgressRoute, Forward, InboundRoute, Route
from authz.core.rules.public import PUBLIC

LONGEST_AUTHORITY: Final = 259
"""Characters of a host's name (RFC 1035 section 2.3.4), a colon and a port."""


@dataclass(frozen=True, slots=True)
class KnownAgent:
    """A configured agent identity.

    Attributes:
        identity: Which, without user account.
        users: User accounts as which it may act.
        workloads: SPIFFE ids that may act as it; empty where reaching us is proof enough.
    """

    identity: AgentIdentity
    users: frozenset[AgentUser] = frozenset()
    workloads: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Policy:
    """Every route of one configuration version.

    Attributes:
        version: Digest of the configuration.
        inbound: Inbound routes by name.
        egress: Egress routes by name.
        default_direction: Used when Envoy sends no `authz.direction`.
        default_inbound: Name of the inbound route used when Envoy sends no `authz.route`.
        max_token_bytes: Longest bearer token accepted.
        edge_ttl: Most seconds for which Envoy's own cache may repeat an answer; 0 for not at all.
        agents: The configured agents by client id in lower case, for callers that name one.
        open_blueprints: Blueprints of which callers may name any agent.
        any_resource: Whether callers may name scopes of other resources than the configured one.
        unscoped: Routes without scopes by name, for callers that name some; no Check finds them.
        unconfigured: The route for APIs that are not configured, for callers that name scopes.
        hosts: Egress routes by the authorities that select them.
        gives_handles: Whether some inbound route puts a reference into `baggage`.
        has_rules: Whether some route has rules.
        unruled: Direction and name of each route without rules.
        has_public_paths: Whether some route has public paths.
        binds_sessions: Whether some route binds sessions to their callers.
    """

    version: str
    inbound: Mapping[str, InboundRoute] = field(default_factory=dict)
    egress: Mapping[str, EgressRoute] = field(default_factory=dict)
    default_direction: Direction | None = None
    default_inbound: str | None = None
    max_token_bytes: int = 49152
    edge_ttl: float = 0.0
    agents: Mapping[str, KnownAgent] = field(default_factory=dict)
    open_blueprints: frozenset[Client] = frozenset()
    any_resource: bool = False
    unscoped: Mapping[str, EgressRoute] = field(default_factory=dict)
    unconfigured: EgressRoute | None = None
    hosts: Mapping[str, EgressRoute] = field(init=False, compare=False)
    gives_handles: bool = field(init=False, compare=False)
    has_rules: bool = field(init=False, compare=False)
    unruled: frozenset[tuple[str, str]] = field(init=False, compare=False)
    has_public_paths: bool = field(init=False, compare=False)
    binds_sessions: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        hosts: dict[str, EgressRoute] = {}
        for route in self.egress.values():
            for host in route.hosts:
                if hosts.setdefault(host.lower(), route) is not route:
                    raise ValueError(f"host {host!r} belongs to two egress routes")
        inbound = self.inbound.values()
        routes: dict[tuple[str, str], Route] = {
            **{(Direction.INBOUND.value, name): route for name, route in self.inbound.items()},
            **{(Direction.EGRESS.value, name): route for name, route in self.egress.items()},
        }
        derived = {
            "hosts": hosts,
            "gives_handles": any(Forward.HANDLE in route.forward for route in inbound),
            "has_rules": any(route.rules for route in routes.values()),
            "unruled": frozenset(key for key, route in routes.items() if route.rules is None),
            "has_public_paths": any(route.public for route in inbound),
            "binds_sessions": any(route.bound_at for route in inbound),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def find(self, request: CheckRequest) -> Route:
        """Return the route of a request: by the name Envoy gave, else by host.

        Raises:
            MalformedRequest: The request has no host, so it was no HTTP request.
            UnknownRoute: Nothing is configured for it.
        """
        if not request.host:
            raise MalformedRequest("the check has no HTTP attributes")
        match self._direction(request):
            case Direction.INBOUND:
                name = request.route or self.default_inbound
                found: Route | None = self.inbound.get(name) if name else None
            case Direction.EGRESS:
                found = self._named(request) if request.route else self.by_host(request.host)
            case None:
                raise UnknownRoute("no direction: neither Envoy nor the configuration gives one")
            case _ as unreachable:
                assert_never(unreachable)
        if found is None:
            raise UnknownRoute(self._why_none(request))
        return found

    def rule_of(self, request: CheckRequest) -> str | None:
        """Return the name of the rule that allows a request; None if none does, or a body has to be read.

        It is empty where the request's route has no rules.
        """
        is_named = (request.direction, request.route) in self.unruled and not request.outdated
        if is_named or not self.has_rules:
            return ""
        if request.body is not None:
            # Reading it takes time, and only who is known may take ours.
            return None
        try:
            route = self.find(request)
            return route.rule if route.rules is None else route.rules.allow(request).rule
        except AuthzError:
            return None

    def public_route(self, request: CheckRequest) -> InboundRoute | None:
        """Return the route of a request that needs no token, as what it is for it; None for any other."""
        if not self.has_public_paths:
            return None
        try:
            route = self.find(request)
        except AuthzError:
            return None
        if not isinstance(route, InboundRoute) or route.public is None:
            return None
        found = route.public.include(request.method, request.path)
        return replace(route, rule=PUBLIC) if found else None

    def _named(self, request: CheckRequest) -> EgressRoute | None:
        """Return the egress route that Envoy names, if it still is for the request's host.

        Envoy's word counts where it was rendered from this configuration, or written by hand. Routes
        without hosts have theirs in Envoy alone.

        Raises:
            UnknownRoute: Envoy was rendered from another configuration, and the route has no such host here.
        """
        found = self.egress.get(request.route or "")
        if found is None or not found.hosts or not request.outdated:
            return found
        if self.by_host(request.host, any_port=request.opens_tunnel) is found:
            return found
        raise UnknownRoute(
            f"route {found.name!r} has no host {request.host!r}: Envoy was rendered from another configuration"
        )

    def _why_none(self, request: CheckRequest) -> str:
        """Say for the log what was looked for, and among what; names that Envoy sent are bounded there."""
        direction = self._direction(request)
        if request.route:
            return f"no {direction} route has the name {request.route!r}"
        if direction is Direction.EGRESS:
            return f"no egress route has the host {request.host!r}"
        if self.default_inbound:
            return f"listen.inbound_route is {self.default_inbound!r}, and no inbound route has the name"
        return "the request names no inbound route, and listen.inbound_route gives none"

    def _direction(self, request: CheckRequest) -> Direction | None:
        if request.direction is None:
            return self.default_direction
        try:
            return Direction(request.direction)
        except ValueError as error:
            raise UnknownRoute(f"direction {request.direction!r}") from error

    def by_host(self, authority: str, *, any_port: bool = False) -> EgressRoute | None:
        """Return the egress route that a host selects: the most specific one. None for what can be no host.

        Args:
            authority: The host, maybe with a port.
            any_port: Whether a host without a port means every port, and not only those of HTTP and HTTPS.
        """
        if len(authority) > LONGEST_AUTHORITY:
            # Each part of it would be looked up, which takes as long as the square of its length.
            return None
        whole, bare = normalize_host(authority)
        found = self.hosts.get(whole)
        if found is None and (any_port or whole in (bare, f"{bare}:80", f"{bare}:443")):
            found = self.hosts.get(bare)
            suffix = bare
            while found is None and "." in suffix:
                suffix = suffix.partition(".")[2]
                found = self.hosts.get(f"*.{suffix}")
        return found or self.hosts.get("*")
