"""Which exchange a route plans: the one of its flow, or none at all."""

from dataclasses import replace
from typing import Any, Final

import pytest

from authz.core.exchange import (
    AppOnBehalfOf,
    AppToken,
    AsAgentUser,
    Autonomous,
    BlueprintToken,
    Flow,
    OnBehalfOf,
    SubjectToken,
    TokenExchange,
)
from authz.core.policy import (
    EgressRoute,
    plan,
)
from authz.core.principal import Principal
from authz.core.request import BearerToken
from authz.core.secret import Secret
from support.clock import START
from support.exchanges import AGENT_IDENTITY, BLUEPRINT_CLIENT, GRAPH
from support.principals import principal
from support.tenant import LIFETIME

BEARER: Final = BearerToken(Secret("the user's token"))
SUBJECT: Final = SubjectToken(BEARER.secret, START + LIFETIME)
AS_AGENT: Final[dict[str, Any]] = {"target": GRAPH, "agent": AGENT_IDENTITY}
AS_CLIENT: Final[dict[str, Any]] = {"target": GRAPH, "client": BLUEPRINT_CLIENT}
PLANS: Final[dict[Flow, tuple[EgressRoute, TokenExchange | None]]] = {
    Flow.ON_BEHALF_OF: (
        EgressRoute("r", (), Flow.ON_BEHALF_OF, **AS_AGENT),
        OnBehalfOf(AGENT_IDENTITY, GRAPH, SUBJECT),
    ),
    Flow.AUTONOMOUS: (
        EgressRoute("r", (), Flow.AUTONOMOUS, **AS_AGENT),
        Autonomous(AGENT_IDENTITY, GRAPH),
    ),
    Flow.AGENT_USER: (
        EgressRoute("r", (), Flow.AGENT_USER, **AS_AGENT),
        AsAgentUser(AGENT_IDENTITY, GRAPH),
    ),
    Flow.BLUEPRINT: (
        EgressRoute("r", (), Flow.BLUEPRINT, **AS_CLIENT),
        BlueprintToken(BLUEPRINT_CLIENT, GRAPH),
    ),
    Flow.APP_ON_BEHALF_OF: (
        EgressRoute("r", (), Flow.APP_ON_BEHALF_OF, **AS_CLIENT),
        AppOnBehalfOf(BLUEPRINT_CLIENT, GRAPH, SUBJECT),
    ),
    Flow.APP: (
        EgressRoute("r", (), Flow.APP, **AS_CLIENT),
        AppToken(BLUEPRINT_CLIENT, GRAPH),
    ),
    Flow.NONE: (EgressRoute("r", (), Flow.NONE), None),
}


@pytest.mark.parametrize(("route", "expected"), PLANS.values(), ids=PLANS)
def test_a_route_plans_the_exchange_of_its_flow(
    route: EgressRoute, expected: TokenExchange | None
) -> None:
    """The flow is the route's, never the request's."""
    assert expected == plan(route, principal(), BEARER)


@pytest.mark.parametrize("flow", [flow for flow in PLANS if not flow.is_delegated])
def test_a_flow_without_user_carries_no_subject_token(flow: Flow) -> None:
    """The user's token changes nothing where nobody acts for the user."""
    route, expected = PLANS[flow]

    assert expected == plan(route, None, None)


@pytest.mark.parametrize("flow", [flow for flow in PLANS if flow.is_delegated])
@pytest.mark.parametrize(
    ("user", "bearer"),
    [(None, None), (None, BEARER), (principal(), None)],
    ids=["nothing", "an unverified token", "a principal without token"],
)
def test_a_delegated_flow_without_a_verified_user_cannot_be_planned(
    flow: Flow, user: Principal | None, bearer: BearerToken | None
) -> None:
    """There is no other flow to fall to."""
    with pytest.raises(ValueError, match="does not have"):
        plan(PLANS[flow][0], user, bearer)


@pytest.mark.parametrize("flow", [flow for flow in PLANS if flow is not Flow.NONE])
@pytest.mark.parametrize("missing", ["target", "agent or client"])
def test_a_route_without_a_part_its_flow_needs_plans_nothing(flow: Flow, missing: str) -> None:
    """Half a route is a defect of ours and raises; it never plans another exchange."""
    route = PLANS[flow][0]
    incomplete = (
        replace(route, target=None)
        if missing == "target"
        else replace(route, agent=None, client=None)
    )

    with pytest.raises(ValueError, match="does not have"):
        plan(incomplete, principal(), BEARER)


@pytest.mark.parametrize("leg", [Flow.BLUEPRINT_ASSERTION, Flow.AGENT_ASSERTION])
def test_a_leg_is_no_flow_of_a_route(leg: Flow) -> None:
    """T1 and T2 are credentials: no API ever receives one."""
    with pytest.raises(ValueError, match="is a leg"):
        plan(EgressRoute("leg", (), leg, target=GRAPH, agent=AGENT_IDENTITY), None, None)


def test_every_flow_of_a_route_is_planned_here() -> None:
    """A flow added to the configuration needs a line above."""
    assert set(Flow) - {Flow.BLUEPRINT_ASSERTION, Flow.AGENT_ASSERTION} == set(PLANS)
