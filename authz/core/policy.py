"""Routes: what each demands of the caller, and which token exchange follows.

A `Policy` is one immutable version of the configuration. What is not configured is denied.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar, assert_never

from authz.core.errors import (
    ActorNotAllowed,
    InsufficientScope,
    MalformedRequest,
    SubjectNotAllowed,
    UnknownRoute,
    WorkloadNotAllowed,
    difference,
)
from authz.core.exchange import (
    AgentIdentity,
    AgentUser,
    AppOnBehalfOf,
    AppToken,
    AsAgentUser,
    Autonomous,
    BlueprintToken,
    Client,
    Flow,
    OnBehalfOf,
    SubjectToken,
    Target,
    TokenExchange,
)
from authz.core.principal import Principal
from authz.core.request import BearerToken, CheckRequest, Direction, normalize_host
from authz.core.subject import SubjectSource
from authz.core.token import Expectation

Part = TypeVar("Part")


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
class Requirement:
    """What a verified principal must be and hold.

    Attributes:
        users: Whether delegated tokens are served.
        applications: Whether app-only tokens are served.
        scopes: A delegated token needs one of these; empty asks for none in particular.
        roles: An app-only token needs one of these; empty asks for none in particular.
        actors: Client ids that may call; empty admits every one.
        resource: What Entra knows the API by whose permissions these are, such as `api://CLIENT_ID`; empty
            where a client is to be shown the names alone.
    """

    users: bool = True
    applications: bool = False
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    actors: frozenset[str] = frozenset()
    resource: str = ""

    def to_ask_for(self, *, delegated: bool) -> tuple[str, ...]:
        """Return the scopes by which a client asks Entra for what is needed.

        Roles are not asked for by name: an application gets those that it has by `/.default`.
        """
        if not self.resource:
            return self.scopes if delegated else ()
        names = self.scopes if delegated else (".default",)
        return tuple(f"{self.resource}/{name}" for name in names)


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
    """

    name: str
    expectation: Expectation
    requirement: Requirement = field(default_factory=Requirement)
    forward: frozenset[Forward] = frozenset({Forward.BEARER})
    called: str | None = None
    prefetch: tuple[str, ...] = ()

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
        return True


@dataclass(frozen=True, slots=True)
class EgressRoute:
    """Agent to API: replace whatever the app sent by the token that the route names.

    Attributes:
        name: Route name.
        hosts: Authorities that select the route when Envoy names none. `*.suffix` and `*` match.
        flow: Which exchange.
        target: What the token is for; None for flow `none`.
        agent: The agent identity of an agent flow.
        client: The application of a flow without agent.
        expectation: What the user's token must be, for delegated flows.
        requirement: What the user must be and hold, for delegated flows.
        workloads: SPIFFE ids that may use the route; empty where the socket itself is the proof.
        peer_source: Whose word says which workload is asking.
        push: Whether Envoy may be given the token ahead, to be used without a Check.
        sources: Where the user's token is found, for delegated flows.
        origins: The inbound routes whose references count, with the client id that each calls.
        fallback: The route that stands in where `sources` found no user and end in `none`.
        stands_in: Whether this is such a route.
        remove: Names of headers that Envoy removes from each request.
        tunnel: Whether the app may have connections to the hosts whose content nobody sees.
    """

    name: str
    hosts: tuple[str, ...]
    flow: Flow
    target: Target | None = None
    agent: AgentIdentity | None = None
    client: Client | None = None
    expectation: Expectation | None = None
    requirement: Requirement = field(default_factory=Requirement)
    workloads: frozenset[str] = frozenset()
    peer_source: PeerSource = PeerSource.CONNECTION
    push: bool = False
    sources: tuple[SubjectSource, ...] = (SubjectSource.BEARER,)
    origins: Mapping[str, str | None] = field(default_factory=dict)
    fallback: "EgressRoute | None" = None
    stands_in: bool = False
    remove: tuple[str, ...] = ()
    tunnel: bool = False

    @property
    def credential_holder(self) -> Client | None:
        """The application whose credential the exchange uses: of an agent, its blueprint."""
        return self.client if self.agent is None else self.agent.blueprint

    @property
    def reads_authorization(self) -> bool:
        """Whether the request's `Authorization` has a part in the decision."""
        # That there was no user in it, too.
        return self.flow.is_delegated or self.stands_in

    @property
    def reads_baggage(self) -> bool:
        """Whether foreign members of `baggage` have a part in the answer."""
        return False

    @property
    def may_repeat_at_edge(self) -> bool:
        """Whether Envoy's cache knows all that the decision depends on: not who its client is."""
        if self.stands_in:
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

    def __post_init__(self) -> None:
        hosts: dict[str, EgressRoute] = {}
        for route in self.egress.values():
            for host in route.hosts:
                if hosts.setdefault(host.lower(), route) is not route:
                    raise ValueError(f"host {host!r} belongs to two egress routes")
        object.__setattr__(self, "hosts", hosts)
        handles = any(Forward.HANDLE in route.forward for route in self.inbound.values())
        object.__setattr__(self, "gives_handles", handles)

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
                found = (
                    self.egress.get(request.route) if request.route else self.by_host(request.host)
                )
            case None:
                raise UnknownRoute("no direction: neither Envoy nor the configuration gives one")
            case _ as unreachable:
                assert_never(unreachable)
        if found is None:
            raise UnknownRoute(self._why_none(request))
        return found

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


def authorize(requirement: Requirement, principal: Principal) -> None:
    """Check what a verified principal may do.

    Raises:
        SubjectNotAllowed: A user where applications are served, or the other way round.
        ActorNotAllowed: The calling application is not named.
        InsufficientScope: None of the accepted scopes or roles is there.
    """
    delegated = principal.subject.type.is_user
    if not (requirement.users if delegated else requirement.applications):
        raise SubjectNotAllowed(f"the subject is of type {principal.subject.type.value}")
    if requirement.actors and principal.actor.client_id not in requirement.actors:
        raise ActorNotAllowed(f"actor {principal.actor.client_id}")
    accepted = requirement.scopes if delegated else requirement.roles
    held = principal.scopes if delegated else principal.roles
    if accepted and held.isdisjoint(accepted):
        raise InsufficientScope(
            accepted, requirement.to_ask_for(delegated=delegated), difference(held, accepted)
        )


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


def plan(
    route: EgressRoute, principal: Principal | None, bearer: BearerToken | None
) -> TokenExchange | None:
    """Return the exchange that the route names, or None for flow `none`.

    A delegated flow without a verified user cannot be planned: there is no other flow to fall to.
    """
    if route.flow is Flow.NONE:
        return None
    target = _given(route.target)
    match route.flow:
        case Flow.ON_BEHALF_OF:
            return OnBehalfOf(_given(route.agent), target, _subject_token(principal, bearer))
        case Flow.AUTONOMOUS:
            return Autonomous(_given(route.agent), target)
        case Flow.AGENT_USER:
            return AsAgentUser(_given(route.agent), target)
        case Flow.BLUEPRINT:
            return BlueprintToken(_given(route.client), target)
        case Flow.APP_ON_BEHALF_OF:
            return AppOnBehalfOf(_given(route.client), target, _subject_token(principal, bearer))
        case Flow.APP:
            return AppToken(_given(route.client), target)
        case Flow.BLUEPRINT_ASSERTION | Flow.AGENT_ASSERTION:
            raise ValueError(f"{route.flow.value} is a leg, not a flow of a route")
        case _ as unreachable:
            assert_never(unreachable)


def _subject_token(principal: Principal | None, bearer: BearerToken | None) -> SubjectToken:
    return SubjectToken(_given(bearer).secret, _given(principal).expires_at)


def _given(part: Part | None) -> Part:
    if part is None:
        raise ValueError("the route's flow needs a part that the route does not have")
    return part
