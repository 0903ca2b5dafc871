"""Which route overrides make of an API's: the token that was named, or none."""

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.errors import AgentNotAllowed, AuthzError, BadOverride
from authz.core.exchange import AgentIdentity, AgentUser, Client, Flow, Target
from authz.core.grant import Delegated
from authz.core.policy import KnownAgent
from authz.core.route import EgressRoute
from authz.core.token import Expectation
from authz.doors.sidecar_api.overrides import Overrides, Permitted, granted, overridden
from support.fakes.exchanges import AGENT_IDENTITY, BLUEPRINT_CLIENT, GRAPH
from support.fakes.properties import thorough
from support.fakes.routes import delegated, route_of, target_of
from support.fakes.tenant import AGENT, TENANT

SUBJECT: Final = Expectation(frozenset({"aud"}), {"iss": TENANT}, 60.0)
OWN: Final = Expectation(frozenset({"own"}), {"iss": TENANT}, 60.0)
STRANGER: Final = "99999999-0000-4000-8000-000000000009"
USER: Final = AgentUser(username="desk@contoso.example")
OTHER_CLIENT: Final = Client("other", TENANT, STRANGER)
SIBLING: Final = AgentIdentity("sibling", "88888888-0000-4000-8000-000000000008", BLUEPRINT_CLIENT)
FOREIGN: Final = AgentIdentity("foreign", "77777777-0000-4000-8000-000000000007", OTHER_CLIENT)
KNOWN: Final = {
    AGENT: KnownAgent(replace(AGENT_IDENTITY, user=None), frozenset({USER})),
    SIBLING.client_id: KnownAgent(SIBLING, workloads=frozenset({"spiffe://c/w"})),
    FOREIGN.client_id: KnownAgent(FOREIGN),
}
CLOSED: Final = Permitted(KNOWN, frozenset(), SUBJECT)
# The same registration by another name: clients are told apart by what they are.
OPEN: Final = replace(CLOSED, open_blueprints=frozenset({replace(BLUEPRINT_CLIENT, name="x")}))


def api(flow: Flow = Flow.APP, **changes: Any) -> EgressRoute:
    """An API's route, as configured."""
    by_agent = flow in (Flow.ON_BEHALF_OF, Flow.AUTONOMOUS, Flow.AGENT_USER)
    asker = replace(AGENT_IDENTITY, user=USER) if by_agent else BLUEPRINT_CLIENT
    mine = {key: changes.pop(key) for key in ("workloads",) if key in changes}
    parts = {"expectation": OWN} if flow.is_delegated else {}
    if flow is Flow.NONE:
        return route_of("graph", flow, ("graph.example",))
    return route_of("graph", flow, ("graph.example",), own=mine, asker=asker, **parts, **changes)


@pytest.mark.parametrize(
    ("configured", "overrides", "flow"),
    [
        (Flow.APP, Overrides(), Flow.APP),
        (Flow.BLUEPRINT, Overrides(), Flow.BLUEPRINT),
        (Flow.APP_ON_BEHALF_OF, Overrides(), Flow.APP_ON_BEHALF_OF),
        (Flow.APP, Overrides(app_token=False), Flow.APP_ON_BEHALF_OF),
        (Flow.BLUEPRINT, Overrides(app_token=True), Flow.BLUEPRINT),
        (Flow.APP_ON_BEHALF_OF, Overrides(app_token=True), Flow.APP),
        (Flow.APP, Overrides(agent=AGENT), Flow.AUTONOMOUS),
        (Flow.APP, Overrides(agent=AGENT.upper(), app_token=False), Flow.ON_BEHALF_OF),
        (Flow.APP_ON_BEHALF_OF, Overrides(agent=AGENT), Flow.ON_BEHALF_OF),
        (Flow.APP_ON_BEHALF_OF, Overrides(agent=AGENT, app_token=True), Flow.AUTONOMOUS),
        (Flow.APP, Overrides(agent=AGENT, user=USER), Flow.AGENT_USER),
        (Flow.APP, Overrides(agent=AGENT, user=USER, app_token=False), Flow.AGENT_USER),
        (Flow.AUTONOMOUS, Overrides(), Flow.AUTONOMOUS),
        (Flow.AUTONOMOUS, Overrides(app_token=False), Flow.ON_BEHALF_OF),
        (Flow.ON_BEHALF_OF, Overrides(app_token=True), Flow.AUTONOMOUS),
        (Flow.AGENT_USER, Overrides(), Flow.AGENT_USER),
        (Flow.AGENT_USER, Overrides(app_token=True), Flow.AUTONOMOUS),
        (Flow.AGENT_USER, Overrides(agent=AGENT), Flow.ON_BEHALF_OF),
    ],
)
def test_agent_user_and_app_token_give_the_flow(
    configured: Flow, overrides: Overrides, flow: Flow
) -> None:
    """The sidecar's table (its page "configuration"); `RequestAppToken=false` counts as well."""
    route = overridden(api(configured), overrides, CLOSED)
    assert (flow, "graph") == (route.flow, route.name)
    assert flow.is_delegated == isinstance(route.grant, Delegated)


def test_who_is_named_is_who_acts() -> None:
    """With the user account that was named, and with no other one that the agent has."""
    for overrides in (Overrides(agent=AGENT), Overrides(agent=AGENT, user=USER)):
        agent = overridden(api(), overrides, CLOSED).agent
        assert agent is not None
        assert (AGENT, overrides.user) == (agent.client_id, agent.user)


def test_an_agent_keeps_its_workloads() -> None:
    """Those that may act as it, whichever way it is named."""
    assert {"spiffe://c/w"} == overridden(
        api(), Overrides(agent=SIBLING.client_id), CLOSED
    ).workloads
    guarded = api(Flow.AUTONOMOUS, workloads=frozenset({"spiffe://c/own"}))
    assert {"spiffe://c/own"} == overridden(guarded, Overrides(), CLOSED).workloads


def test_any_agent_of_a_blueprint_that_is_open() -> None:
    """Configured or not, with any user account."""
    account = AgentUser(username="stranger@contoso.example")
    agent = overridden(api(), Overrides(agent=STRANGER, user=account), OPEN).agent
    assert AgentIdentity(STRANGER, STRANGER, BLUEPRINT_CLIENT, account) == agent
    other = AgentUser(object_id=STRANGER)
    assert overridden(api(), Overrides(agent=AGENT, user=other), OPEN).agent is not None


@pytest.mark.parametrize("permitted", [CLOSED, OPEN])
def test_an_agent_of_another_blueprint_is_refused(permitted: Permitted) -> None:
    """It is configured, for another client than the API's."""
    with pytest.raises(AgentNotAllowed):
        overridden(api(), Overrides(agent=FOREIGN.client_id), permitted)


@pytest.mark.parametrize(
    "overrides",
    [
        Overrides(agent=STRANGER),
        Overrides(agent=AGENT, user=AgentUser(username="other@contoso.example")),
        Overrides(agent=SIBLING.client_id, user=USER),
    ],
)
def test_what_is_not_configured_is_refused(overrides: Overrides) -> None:
    """Another agent, another user account, the account of another agent."""
    with pytest.raises(AgentNotAllowed):
        overridden(api(), overrides, CLOSED)


@pytest.mark.parametrize(
    ("route", "overrides", "names"),
    [
        (api(), Overrides(user=USER), "AgentIdentity"),
        (api(), Overrides(agent=AGENT, user=USER, app_token=True), "RequestAppToken"),
        (api(), Overrides(tenant=STRANGER), "Tenant"),
        (api(), Overrides(scopes=("api://other/.default",)), "own resource"),
        (api(), Overrides(scopes=("api://a/.default", "api://b/.default")), "one resource"),
        (api(), Overrides(scopes=("https://graph.microsoft.com/User.Read",)), "/.default"),
        (api(Flow.NONE), Overrides(), "no token"),
    ],
)
def test_what_does_not_go_together_is_told(
    route: EgressRoute, overrides: Overrides, names: str
) -> None:
    """By the name of the parameter that should change."""
    with pytest.raises(BadOverride, match=names):
        overridden(route, overrides, CLOSED)


def test_scopes_of_another_resource_where_they_are_granted() -> None:
    """But never for a call to the API itself: its host would get another one's token."""
    permitted = replace(CLOSED, any_resource=True)
    elsewhere = Overrides(scopes=("api://other/.default",))
    target = target_of(overridden(api(), elsewhere, permitted))
    assert ("api://other/.default",) == target.scopes
    with pytest.raises(BadOverride):
        overridden(api(), replace(elsewhere, for_own_resource=True), permitted)


def test_an_api_without_scopes_takes_those_that_are_named() -> None:
    """Where any resource is granted, calls included: it has no resource that they could be held to."""
    bare, permitted = api(target=Target(())), replace(CLOSED, any_resource=True)
    overrides = Overrides(scopes=("api://other/.default",))
    for each in (overrides, replace(overrides, for_own_resource=True)):
        target = target_of(overridden(bare, each, permitted))
        assert overrides.scopes == target.scopes
    with pytest.raises(BadOverride, match="expected scopes, as none are configured"):
        overridden(bare, Overrides(), permitted)
    with pytest.raises(BadOverride, match="own resource"):
        overridden(bare, overrides, CLOSED)


@pytest.mark.parametrize(
    "scope",
    [
        "api://AzureADTokenExchange/.default",
        "api://AzureADTokenExchangeUSGov/.default",
        "fb60f99c-7a34-4190-8149-302f77469936/.default",
        "api://FB60F99C-7a34-4190-8149-302f77469936/.default",
        "spn:fb60f99c-7a34-4190-8149-302f77469936/.default",
    ],
)
def test_credentials_of_agents_are_not_given_out(scope: str) -> None:
    """Wherever any resource may be named: with such a token its holder could act as the agent elsewhere."""
    with pytest.raises(BadOverride, match="vouch"):
        overridden(api(), Overrides(agent=AGENT, scopes=(scope,)), replace(OPEN, any_resource=True))


@pytest.mark.parametrize(
    "scope", ["User.Read", "00000003-0000-0000-c000-000000000000/Mail.Read", "openid"]
)
def test_microsoft_graph_has_several_names(scope: str) -> None:
    """Scopes without a resource are Graph's."""
    target = target_of(overridden(api(Flow.ON_BEHALF_OF), Overrides(scopes=(scope,)), CLOSED))
    assert target == Target((scope,), policy_version=GRAPH.policy_version)


def test_claims_and_tenant() -> None:
    """The caller's claims go before the configured ones; its tenant can only be the client's."""
    configured = api(target=replace(GRAPH, claims='{"a":1}'))
    kept = target_of(overridden(configured, Overrides(tenant=TENANT.upper()), CLOSED))
    changed = target_of(overridden(configured, Overrides(claims='{"b":2}'), CLOSED))
    assert ('{"a":1}', '{"b":2}') == (kept.claims, changed.claims)


def test_a_delegated_flow_of_an_app_route_expects_what_the_entrance_does() -> None:
    """A route that was made for users has an expectation of its own."""
    made = overridden(api(Flow.APP), Overrides(app_token=False), CLOSED)
    own = overridden(api(Flow.ON_BEHALF_OF), Overrides(), CLOSED)
    assert (SUBJECT, OWN) == (delegated(made).expectation, delegated(own).expectation)


@pytest.mark.parametrize(
    ("configured", "own", "expected"),
    [
        (None, None, '{"access_token":{"nbf":{"essential":true}}}'),
        ('{"access_token":{"acrs":{"value":"c1"}}}', None,
         '{"access_token":{"acrs":{"value":"c1"},"nbf":{"essential":true}}}'),
        (None, '{"access_token":{"nbf":{"value":"1"}},"x":1}',
         '{"access_token":{"nbf":{"essential":true,"value":"1"}},"x":1}'),
        ('{"access_token":1}', None, '{"access_token":{"nbf":{"essential":true}}}'),
    ],
)  # fmt: skip
def test_what_the_api_demands_comes_on_top(
    configured: str | None, own: str | None, expected: str
) -> None:
    """A token without what was asked for before would be refused for that."""
    challenge = '{"access_token":{"nbf":{"essential":true}}}'
    route = api(target=replace(GRAPH, claims=configured))

    found = overridden(route, Overrides(claims=own, challenge=challenge), CLOSED)

    assert expected == target_of(found).claims


IDS: Final = st.sampled_from([AGENT, SIBLING.client_id, FOREIGN.client_id, STRANGER])
USERS: Final = st.sampled_from([USER, AgentUser(object_id=STRANGER)])


@thorough
@given(
    overrides=st.builds(
        Overrides,
        agent=st.none() | IDS,
        user=st.none() | USERS,
        scopes=st.sampled_from([(), GRAPH.scopes, ("User.Read",), ("api://x/.default",)]),
        app_token=st.none() | st.booleans(),
        tenant=st.none() | st.sampled_from([TENANT, STRANGER]),
        for_own_resource=st.booleans(),
    ),
    flow=st.sampled_from(
        [f for f in Flow if f not in (Flow.BLUEPRINT_ASSERTION, Flow.AGENT_ASSERTION, Flow.NONE)]
    ),
    permitted=st.sampled_from([CLOSED, OPEN, replace(OPEN, any_resource=True)]),
)
def test_no_wish_gives_a_token_of_another_identity(
    overrides: Overrides, flow: Flow, permitted: Permitted
) -> None:
    """Whatever comes together: the one that was named, else the configured one, else a refusal."""
    configured = api(flow)
    try:
        route = overridden(configured, overrides, permitted)
    except AuthzError:
        return
    if overrides.agent is None:
        assert (configured.agent, configured.credential_holder) == (
            route.agent, route.credential_holder,
        )  # fmt: skip
    else:
        assert route.agent is not None
        assert (overrides.agent, overrides.user) == (route.agent.client_id, route.agent.user)
        assert route.agent.blueprint.client_id == BLUEPRINT_CLIENT.client_id
        known = permitted.agents.get(overrides.agent)
        assert known is not None or permitted.open_blueprints
        assert (
            overrides.user is None
            or permitted.open_blueprints
            or overrides.user in KNOWN[overrides.agent].users
        )
    if (
        overrides.app_token is not None
        and overrides.user is None
        and route.flow is not Flow.AGENT_USER
    ):
        assert overrides.app_token != route.flow.is_delegated


def test_a_configured_account_of_another_agent_is_refused_as_that() -> None:
    """Also where callers may name any agent of the blueprint: Entra need not be asked."""
    wanted = Overrides(agent=SIBLING.client_id, user=USER)
    for permitted in (CLOSED, OPEN):
        with pytest.raises(AgentNotAllowed, match="user account of another agent") as caught:
            overridden(api(), wanted, permitted)
        assert caught.value.of_another


@pytest.mark.parametrize(
    ("overrides", "agent", "user", "target"),
    [
        (Overrides(agent=AGENT), False, None, False),
        (Overrides(agent=STRANGER), True, None, False),
        (Overrides(agent=AGENT, user=USER), False, False, False),
        (Overrides(agent=AGENT, user=AgentUser(object_id=STRANGER)), False, True, False),
        (Overrides(agent=AGENT, scopes=(GRAPH.scopes[0],)), False, None, False),
        (Overrides(agent=AGENT, app_token=False), False, None, True),
    ],
)
def test_what_only_the_request_names_is_marked(
    overrides: Overrides, agent: bool, user: bool | None, target: bool
) -> None:
    """So that a failure counts as the caller's, and not as one that an operator mends."""
    grant = granted(overridden(api(), overrides, OPEN))
    asker = grant.asker
    assert isinstance(asker, AgentIdentity)

    assert (agent, user, target) == (
        asker.by_request,
        None if asker.user is None else asker.user.by_request,
        grant.target.by_request,
    )
