"""What an egress route gives: a token for the calling user, a token of its own, or none.

Each variant has exactly the parts that its flows need. A new flow is a line in `own_exchange` or in
`Delegated.exchange`, a leg in `authz.entra`, and its configuration.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from authz.core.errors import MissingToken
from authz.core.exchange import (
    AgentIdentity,
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
)
from authz.core.requirement import Requirement
from authz.core.scopes import default_beside
from authz.core.subject import SubjectSource
from authz.core.token import Expectation

Asker = AgentIdentity | Client
"""Who asks Entra for a token: an agent identity, for which its blueprint vouches, or an application."""

OwnExchange = Autonomous | AsAgentUser | BlueprintToken | AppToken


@dataclass(frozen=True, slots=True)
class NoToken:
    """No token: whatever the app sent is removed.

    Attributes:
        tunnel: Whether the app may have connections to the hosts whose content nobody sees.
    """

    tunnel: bool = False

    @property
    def flow(self) -> Flow:
        """Flow `none`."""
        return Flow.NONE


@dataclass(frozen=True, slots=True)
class Own:
    """A token that depends on nothing in a request.

    Attributes:
        exchange: How it is got.
        push: Whether Envoy may be given it ahead, to be used without a Check.
        stands_in: Whether it is given in place of a user's, where none was found and the route says so.
    """

    exchange: OwnExchange
    push: bool = False
    stands_in: bool = False

    @property
    def flow(self) -> Flow:
        """That of the exchange."""
        return self.exchange.flow

    @property
    def asker(self) -> Asker:
        """Who asks."""
        match self.exchange:
            case Autonomous() | AsAgentUser():
                return self.exchange.agent
            case BlueprintToken() | AppToken():
                return self.exchange.client
            case _ as unreachable:
                assert_never(unreachable)

    @property
    def target(self) -> Target:
        """What the token is for."""
        return self.exchange.target

    def with_scopes(self, scopes: tuple[str, ...]) -> "Own":
        """Return the same, for other scopes."""
        target = replace(self.target, scopes=scopes)
        return replace(self, exchange=replace(self.exchange, target=target))


@dataclass(frozen=True, slots=True)
class Delegated:
    """A token on behalf of the calling user.

    Attributes:
        asker: Who asks.
        target: What the token is for.
        expectation: What the user's token must be.
        requirement: What the user must be and hold.
        sources: Where the user's token is found.
        origins: The inbound routes whose references count, with the client id that each calls.
        without_user: What is given where `sources` found no user and end in `none`.
    """

    asker: Asker
    target: Target
    expectation: Expectation
    requirement: Requirement = field(default_factory=Requirement)
    sources: tuple[SubjectSource, ...] = (SubjectSource.BEARER,)
    origins: Mapping[str, str | None] = field(default_factory=dict)
    without_user: Own | None = None

    @property
    def flow(self) -> Flow:
        """On behalf of the user, as an agent identity or as an application."""
        is_agent = isinstance(self.asker, AgentIdentity)
        return Flow.ON_BEHALF_OF if is_agent else Flow.APP_ON_BEHALF_OF

    def exchange(self, subject: SubjectToken) -> OnBehalfOf | AppOnBehalfOf:
        """Return how the token is got for a verified user. There is no other flow to fall to (law 1)."""
        match self.asker:
            case AgentIdentity() as agent:
                return OnBehalfOf(agent, self.target, subject)
            case Client() as client:
                return AppOnBehalfOf(client, self.target, subject)
            case _ as unreachable:
                assert_never(unreachable)

    def with_scopes(self, scopes: tuple[str, ...]) -> "Delegated":
        """Return the same, for other scopes; without a user it is for what was granted of their resource."""
        own = self.without_user
        return replace(
            self,
            target=replace(self.target, scopes=scopes),
            without_user=own and own.with_scopes((default_beside(scopes[0]),)),
        )

    def stand_in(self) -> Own:
        """Return what is given where there is no user.

        Raises:
            MissingToken: The route needs one.
        """
        if self.without_user is None:
            raise MissingToken
        return self.without_user


Grant = Delegated | Own | NoToken


def own_exchange(flow: Flow, asker: Asker, target: Target) -> OwnExchange:
    """Return the exchange of a flow that needs no user.

    Raises:
        ValueError: The flow needs a user, is a leg of another one, or is not for such an asker.
    """
    match flow, asker:
        case Flow.AUTONOMOUS, AgentIdentity() as agent:
            return Autonomous(agent, target)
        case Flow.AGENT_USER, AgentIdentity() as agent:
            return AsAgentUser(agent, target)
        case Flow.BLUEPRINT, Client() as client:
            return BlueprintToken(client, target)
        case Flow.APP, Client() as client:
            return AppToken(client, target)
        case _:
            raise ValueError(f"flow {flow.value} gives no token of its own to {asker.name}")
