"""Routes: what each demands of the caller, and which token exchange follows.

A `Policy` is one immutable version of the configuration. What is not configured is denied.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeVar, assert_never

from authz.core.errors import AuthzError, MalformedRequest, UnknownRoute, WorkloadNotAllowed
from authz.core.exchange import AgentIdentity, AgentUser, Client, Flow
from authz.core.grant import Delegated, Grant, NoToken, Own
from authz.core.request import CheckRequest, Direction, normalize_host
from authz.core.requirement import Requirement
from authz.core.resource import ProtectedResource
from authz.core.rules.public import PUBLIC, PublicPaths
from authz.core.rules.rule import Rules
from authz.core.token import Expectation


class Forward(StrEnum):
    """What the app receives for the user's verified token, beside the identity headers.

    `HANDLE` comes in `baggage`, the others in `Authorization`, where a handle alone leaves nothing.
    """

    BEARER = "bearer"
    STRIP = "strip"
    PLACEHOLDER = "placeholder"
    HANDLE = "handle"


class PeerSource(StrEnum):
    """Whose word says which workload is asking."""

    CONNECTION = "connection"
    SOURCE_PRINCIPAL = "source_principal"


@dataclass(frozen=True, slots=True)
class InboundRoute:
    """User to agent: verify, authorize, and tell the app who is calling.

    Attributes:
        name: Route name.
        expectation: What the caller's token must be.
        requirement: What the caller must be and hold.
        forward: What the app receives for the token.
        called: Client id of the agent or application that is called; None where the route names none.
        prefetch: Names of egress routes that the agent will probably use for this caller.
        rules: Which requests it lets in, each as what it then is; None where it lets in all.
        rule: Name of the rule by which it became what it is; empty where none did.
        resource: What clients without a token may learn of the route; None where it is nothing.
        public: Paths that need no token; None where each does.
        reads_messages: Whether its rules are about messages, which Envoy's cache does not read.
        bound_at: Paths of its MCP server, if a session belongs to the caller who used it first; else none.
    """

    name: str
    expectation: Expectation
    requirement: Requirement = field(default_factory=Requirement)
    forward: frozenset[Forward] = frozenset({Forward.BEARER})
    called: str | None = None
    prefetch: tuple[str, ...] = ()
    rules: "Rules[InboundRoute] | None" = None
    rule: str = ""
    resource: ProtectedResource | None = None
    public: PublicPaths | None = None
    reads_messages: bool = False
    bound_at: tuple[str, ...] = ()

    @property
    def gives_reference(self) -> bool:
        """Whether the app receives a reference to the token."""
        return bool(self.forward & {Forward.PLACEHOLDER, Forward.HANDLE})

    @property
    def reads_authorization(self) -> bool:
        """Whether the request's `Authorization` has a part in the decision."""
        return True

    @property
    def reads_baggage(self) -> bool:
        """Whether foreign members of `baggage` have a part in the answer."""
        return Forward.HANDLE in self.forward

    @property
    def may_repeat_at_edge(self) -> bool:
        """Whether Envoy knows all that the decision depends on."""
        return not self.reads_messages


@dataclass(frozen=True, slots=True)
class EgressRoute:
    """Agent to API: replace whatever the app sent by what the route grants.

    Attributes:
        name: Route name.
        hosts: Authorities that select the route when Envoy names none, or was rendered from another
            configuration. `*.suffix` and `*` match.
        grant: Which token, if any.
        workloads: SPIFFE ids that may use the route; empty where the socket itself is the proof.
        peer_source: Whose word says which workload is asking.
        remove: Names of headers that Envoy removes from each request.
        rules: Which requests it lets out, each as what it then is; None where it lets out all.
        rule: Name of the rule by which it became what it is; empty where none did.
        reads_messages: Whether its rules are about messages, which Envoy's cache does not read.
    """

    name: str
    hosts: tuple[str, ...]
    grant: Grant
    workloads: frozenset[str] = frozenset()
    peer_source: PeerSource = PeerSource.CONNECTION
    remove: tuple[str, ...] = ()
    rules: "Rules[EgressRoute] | None" = None
    rule: str = ""
    reads_messages: bool = False

    @property
    def flow(self) -> Flow:
        """Which flow gives the token."""
        return self.grant.flow

    @property
    def agent(self) -> AgentIdentity | None:
        """The agent identity that acts; None where an application does, or nobody."""
        match self.grant:
            case Own(asker=AgentIdentity() as agent) | Delegated(asker=AgentIdentity() as agent):
                return agent
            case _:
                return None

    @property
    def credential_holder(self) -> Client | None:
        """The application whose credential is used: of an agent, its blueprint; None where none is."""
        match self.grant:
            case NoToken():
                return None
            case Own() | Delegated():
                asker = self.grant.asker
                return asker.blueprint if isinstance(asker, AgentIdentity) else asker
            case _ as unreachable:
                assert_never(unreachable)

    @property
    def pushed(self) -> Own | None:
        """The token that Envoy may be given ahead; None where it may not."""
        if self.rules is not None:
            # It would be used without a Check.
            return None
        return self.grant if isinstance(self.grant, Own) and self.grant.push else None

    @property
    def stands_in(self) -> bool:
        """Whether the token is given in place of a user's who was not found."""
        return isinstance(self.grant, Own) and self.grant.stands_in

    @property
    def allows_tunnels(self) -> bool:
        """Whether the app may have connections to the hosts whose content nobody sees."""
        if self.rules is not None:
            return False
        return isinstance(self.grant, NoToken) and self.grant.tunnel

    @property
    def reads_authorization(self) -> bool:
        """Whether the request's `Authorization` has a part in the decision."""
        # That there was no user in it, too.
        return isinstance(self.grant, Delegated) or self.stands_in

    @property
    def reads_baggage(self) -> bool:
        """Whether foreign members of `baggage` have a part in the answer."""
        return False

    @property
    def may_repeat_at_edge(self) -> bool:
        """Whether Envoy's cache knows all that the decision depends on: not who its client is."""
        if self.stands_in or self.reads_messages:
            # To Envoy an answer that is the same without a user is one for everybody.
            return False
        return not self.workloads or self.peer_source is PeerSource.CONNECTION


Route = InboundRoute | EgressRoute


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
    has_public_paths: bool = field(init=False, compare=False)
    binds_sessions: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        hosts: dict[str, EgressRoute] = {}
        for route in self.egress.values():
            for host in route.hosts:
                if hosts.setdefault(host.lower(), route) is not route:
                    raise ValueError(f"host {host!r} belongs to two egress routes")
        object.__setattr__(self, "hosts", hosts)
        handles = any(Forward.HANDLE in route.forward for route in self.inbound.values())
        object.__setattr__(self, "gives_handles", handles)
        ruled = any(route.rules for route in self.inbound.values()) or any(
            route.rules for route in self.egress.values()
        )
        object.__setattr__(self, "has_rules", ruled)
        public = any(route.public for route in self.inbound.values())
        object.__setattr__(self, "has_public_paths", public)
        binding = any(route.bound_at for route in self.inbound.values())
        object.__setattr__(self, "binds_sessions", binding)

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
        if not self.has_rules:
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
        """Return the egress route that a host selects: the most specific one.

        Args:
            authority: The host, maybe with a port.
            any_port: Whether a host without a port means every port, and not only those of HTTP and HTTPS.
        """
        whole, bare = normalize_host(authority)
        found = self.hosts.get(whole)
        if found is None and (any_port or whole in (bare, f"{bare}:80", f"{bare}:443")):
            found = self.hosts.get(bare)
            suffix = bare
            while found is None and "." in suffix:
                suffix = suffix.partition(".")[2]
                found = self.hosts.get(f"*.{suffix}")
        return found or self.hosts.get("*")


Ruled = TypeVar("Ruled", InboundRoute, EgressRoute)


def ruled(route: Ruled, request: CheckRequest) -> Ruled:
    """Return what a route is for a request, by its rules.

    Raises:
        RuleDenied: They do not allow it.
        AmbiguousRequest: They cannot tell.
    """
    if route.rules is None:
        return route
    found: Ruled = route.rules.allow(request)
    return found


def authorize_workload(route: EgressRoute, request: CheckRequest) -> None:
    """Check that the verified peer may act as the route's agent. No header can widen this.

    Raises:
        WorkloadNotAllowed: The route names workloads and the peer is none of them.
    """
    if not route.workloads:
        return
    by_connection = route.peer_source is PeerSource.CONNECTION
    peer = request.peer if by_connection else request.source_principal
    if peer not in route.workloads:
        raise WorkloadNotAllowed(f"peer {peer}")
