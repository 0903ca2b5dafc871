"""Which exchange a grant leads to: the one of its flow, or none at all."""

from typing import Final

import pytest

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
)
from authz.core.grant import Delegated, Own, OwnExchange, own_exchange
from authz.core.secret import Secret
from support.fakes.clock import START
from support.fakes.exchanges import AGENT_IDENTITY, BLUEPRINT_CLIENT, GRAPH
from support.fakes.routes import SOME_TOKEN, grant_of, route_of
from support.fakes.tenant import LIFETIME

SUBJECT: Final = SubjectToken(Secret("the user's token"), START + LIFETIME)
OWN: Final[dict[Flow, OwnExchange]] = {
    Flow.AUTONOMOUS: Autonomous(AGENT_IDENTITY, GRAPH),
    Flow.AGENT_USER: AsAgentUser(AGENT_IDENTITY, GRAPH),
    Flow.BLUEPRINT: BlueprintToken(BLUEPRINT_CLIENT, GRAPH),
    Flow.APP: AppToken(BLUEPRINT_CLIENT, GRAPH),
}
LEGS: Final = {Flow.BLUEPRINT_ASSERTION, Flow.AGENT_ASSERTION}


@pytest.mark.parametrize(("flow", "expected"), OWN.items())
def test_a_flow_without_user_has_its_exchange(flow: Flow, expected: OwnExchange) -> None:
    """It is known before there is any request."""
    assert expected == own_exchange(flow, expected_asker(flow), GRAPH)
    assert (flow, expected_asker(flow), GRAPH) == (
        Own(expected).flow, Own(expected).asker, Own(expected).target,
    )  # fmt: skip


def expected_asker(flow: Flow) -> AgentIdentity | Client:
    """Who asks in a flow."""
    return AGENT_IDENTITY if flow in (Flow.AUTONOMOUS, Flow.AGENT_USER) else BLUEPRINT_CLIENT


@pytest.mark.parametrize(
    ("asker", "expected"),
    [
        (AGENT_IDENTITY, OnBehalfOf(AGENT_IDENTITY, GRAPH, SUBJECT)),
        (BLUEPRINT_CLIENT, AppOnBehalfOf(BLUEPRINT_CLIENT, GRAPH, SUBJECT)),
    ],
)
def test_a_users_token_is_exchanged_by_whoever_the_route_names(
    asker: AgentIdentity | Client, expected: OnBehalfOf | AppOnBehalfOf
) -> None:
    """The flow is the route's, never the request's."""
    grant = Delegated(asker, GRAPH, SOME_TOKEN)

    assert expected == grant.exchange(SUBJECT)
    assert expected.flow is grant.flow


@pytest.mark.parametrize("flow", [Flow.ON_BEHALF_OF, Flow.APP_ON_BEHALF_OF])
def test_there_is_nothing_to_fall_to_where_a_user_is_needed(flow: Flow) -> None:
    """Law 1. What stands in is named by the configuration, or there is none."""
    grant = grant_of(flow)
    assert isinstance(grant, Delegated)

    with pytest.raises(MissingToken):
        grant.stand_in()


@pytest.mark.parametrize("flow", [flow for flow in Flow if flow not in OWN])
@pytest.mark.parametrize("asker", [AGENT_IDENTITY, BLUEPRINT_CLIENT], ids=["agent", "client"])
def test_no_other_flow_gives_a_token_without_a_user(
    flow: Flow, asker: AgentIdentity | Client
) -> None:
    """Not those that need a user, and not the legs: T1 and T2 are credentials, which no API receives."""
    with pytest.raises(ValueError, match="gives no token of its own"):
        own_exchange(flow, asker, GRAPH)


@pytest.mark.parametrize("flow", OWN)
def test_a_flow_is_not_for_every_asker(flow: Flow) -> None:
    """An agent has no flow of applications, nor an application one of agents."""
    other = BLUEPRINT_CLIENT if expected_asker(flow) is AGENT_IDENTITY else AGENT_IDENTITY

    with pytest.raises(ValueError, match="gives no token of its own"):
        own_exchange(flow, other, GRAPH)


def test_every_flow_of_a_route_has_a_grant() -> None:
    """A flow added to the configuration needs a line above."""
    assert set(Flow) - LEGS == {grant_of(flow).flow for flow in set(Flow) - LEGS}


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        (Flow.NONE, None),
        (Flow.APP, BLUEPRINT_CLIENT),
        (Flow.AUTONOMOUS, BLUEPRINT_CLIENT),
        (Flow.ON_BEHALF_OF, BLUEPRINT_CLIENT),
        (Flow.APP_ON_BEHALF_OF, BLUEPRINT_CLIENT),
    ],
)
def test_the_credential_is_the_clients_and_of_an_agent_its_blueprints(
    flow: Flow, expected: Client | None
) -> None:
    """Its share of threads and flights is what the exchange takes from."""
    assert expected == route_of("r", flow).credential_holder
