"""Routes: what one demands of the caller, and which token it grants.

Which route a request has is in `authz.core.policy`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar, assert_never

from authz.core.errors import WorkloadNotAllowed
from authz.core.exchange import AgentIdentity, Client, Flow
from authz.core.grant import Delegated, Grant, NoToken, Own
from authz.core.request import CheckRequest
from authz.core.requirement import Requirement
from authz.core.resource import ProtectedResource
from authz.core.rules.public import PublicPaths
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
