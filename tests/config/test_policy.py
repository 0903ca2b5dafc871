"""What a configuration compiles to: routes, clients, agents, issuers, version."""

from typing import Any

import pytest

from authz.config.compile import (
    agent_identities,
    compile_policy,
    credentials,
    exchange_resource,
    issuers,
    policy_version,
    tokens_version,
)
from authz.config.sections.clients import ClientSecret, ManagedIdentity
from authz.core.errors import UnknownRoute
from authz.core.exchange import AgentIdentity, AgentUser, Client, Flow, Target
from authz.core.grant import Delegated, NoToken, Own, own_exchange
from authz.core.principal import APPLICATIONS, USERS, SubjectType
from authz.core.request import CheckRequest, Direction
from authz.core.requirement import Clauses, Requirement
from authz.core.route import EgressRoute, Forward, InboundRoute, PeerSource
from authz.core.token import Expectation
from config.samples import AGENT, APP, BASE, CLIENT, TENANT, changed, faults_of, load_data
from support.fakes.routes import delegated, own, target_of

OTHER = "99999999-0000-4000-8000-000000000009"
BLUEPRINT = Client("support", TENANT, CLIENT)
PORTAL = Client("portal", TENANT, APP)
ASSISTANT = AgentIdentity("assistant", AGENT, BLUEPRINT)
V1 = f"https://sts.windows.net/{TENANT}/"
V2 = f"https://login.microsoftonline.com/{TENANT}/v2.0"
TRUSTED = {V1: TENANT, V2: TENANT}
OWN = frozenset({CLIENT, f"api://{CLIENT}"})
GRAPH = "https://graph.microsoft.com/.default"


def egress(**route: Any) -> tuple[EgressRoute, str]:
    """Return the compiled route `graph` with these keys, and the version of its tokens."""
    config = load_data(changed({"egress.graph": route}))
    return compile_policy(config).egress["graph"], tokens_version(config)


def test_an_inbound_route_takes_audiences_and_tenant_from_its_agents_blueprint() -> None:
    """v1 and v2 tokens of that tenant, for the client id or its URI."""
    expected = InboundRoute(
        name="chat",
        expectation=Expectation(OWN, TRUSTED, 60.0),
        requirement=Requirement(USERS, scopes=(("access_agent",),), resource=f"api://{CLIENT}"),
        forward=frozenset({Forward.BEARER}),
        called=AGENT,
    )
    assert expected == compile_policy(load_data(BASE)).inbound["chat"]


def test_an_inbound_route_says_everything_itself_where_it_wants_to() -> None:
    """Own audiences, several tenants, roles, actors, a sign-in, another forwarding."""
    route = {
        "application": "portal",
        "audiences": ["api://portal"],
        "tenants": [TENANT, OTHER],
        "scopes": ["read"],
        "roles": ["Run"],
        "user_roles": ["Approver"],
        "actors": [APP],
        "actor_blueprints": [CLIENT.upper()],
        "auth_context": "c7",
        "forward": "strip",
        "leeway": "5s",
    }
    trusted = {
        **TRUSTED,
        f"https://sts.windows.net/{OTHER}/": OTHER,
        f"https://login.microsoftonline.com/{OTHER}/v2.0": OTHER,
    }
    expected = InboundRoute(
        name="chat",
        expectation=Expectation(frozenset({"api://portal"}), trusted, 5.0),
        requirement=Requirement(
            frozenset(SubjectType),
            scopes=(("read",),),
            roles=(("Run",),),
            user_roles=(("Approver",),),
            actors=frozenset({APP}),
            blueprints=frozenset({CLIENT}),
            auth_contexts=("c7",),
            resource="api://portal",
        ),
        forward=frozenset({Forward.STRIP}),
        called=APP,
    )
    assert expected == compile_policy(load_data(changed({"inbound.chat": route}))).inbound["chat"]


EVERYBODY = frozenset(SubjectType)
ROLES = {"roles": ["R"], "scopes": ["s"]}


@pytest.mark.parametrize(
    ("route", "served"),
    [
        ({}, USERS),
        ({"scopes": ["s"]}, USERS),
        ({"actors": [APP]}, USERS),
        ({"actor_blueprints": [CLIENT]}, USERS),
        ({"user_roles": ["R"], "auth_context": "c1"}, USERS),
        ({"roles": ["R"]}, APPLICATIONS),
        (ROLES, EVERYBODY),
        ({"roles": ["R"], "user_roles": ["S"]}, EVERYBODY),
        ({"roles": ["R"], "auth_context": "c1"}, EVERYBODY),
        ({"actors": [APP], "subjects": ["application"]}, {SubjectType.APPLICATION}),
        (
            {"actor_blueprints": [CLIENT], "subjects": ["agent_identity"]},
            {SubjectType.AGENT_IDENTITY},
        ),
        ({"subjects": ["user"]}, {SubjectType.USER}),
        ({"subjects": ["agent_user"]}, {SubjectType.AGENT_USER}),
        (
            {**ROLES, "subjects": ["user", "application"]},
            {SubjectType.USER, SubjectType.APPLICATION},
        ),
    ],
)
def test_subjects_follow_from_what_is_demanded(
    route: dict[str, Any], served: frozenset[SubjectType]
) -> None:
    """Applications are served only where something says which."""
    config = load_data(changed({"inbound.chat": {"agent": "assistant", **route}}))

    assert served == compile_policy(config).inbound["chat"].requirement.subjects


@pytest.mark.parametrize(
    ("route", "roles", "user_roles"),
    [
        ({"roles": ["R"]}, (("R",),), ()),
        ({"roles": ["R"], "subjects": ["user"]}, (), (("R",),)),
        ({"roles": ["R"], "subjects": ["user", "agent_user"]}, (), (("R",),)),
        ({"roles": ["R"], "subjects": [*SubjectType]}, (("R",),), ()),
        ({"roles": ["R"], "user_roles": ["S"]}, (("R",),), (("S",),)),
        ({"user_roles": ["S"]}, (), (("S",),)),
        ({"user_roles": ["S"], "subjects": ["user"]}, (), (("S",),)),
    ],
)
def test_roles_count_for_users_where_no_application_is_served(
    route: dict[str, Any], roles: Clauses, user_roles: Clauses
) -> None:
    """Where both are served, `user_roles` says what users need."""
    config = load_data(changed({"inbound.chat": {"agent": "assistant", **route}}))
    requirement = compile_policy(config).inbound["chat"].requirement

    assert (roles, user_roles) == (requirement.roles, requirement.user_roles)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([], ()),
        (["a"], (("a",),)),
        (["a", "b"], (("a", "b"),)),
        ({"any": ["a", "b"]}, (("a", "b"),)),
        ({"all": ["a", "b"]}, (("a",), ("b",))),
        ({"any": ["a", "b"], "all": ["c", "d"]}, (("a", "b"), ("c",), ("d",))),
    ],
)
@pytest.mark.parametrize("key", ["scopes", "roles", "user_roles"])
def test_of_a_list_one_name_is_needed_and_of_a_mapping_what_it_says(
    key: str, written: object, expected: Clauses
) -> None:
    """On inbound routes, and where egress requires them."""
    route = {"agent": "assistant", "actors": [APP], "subjects": [*SubjectType], key: written}
    policy = compile_policy(load_data(changed({"inbound.chat": route})))
    found = [getattr(policy.inbound["chat"].requirement, key)]
    if key != "roles":
        policy = compile_policy(load_data(changed({"egress.graph.requires": {key: written}})))
        found.append(getattr(delegated(policy.egress["graph"]).requirement, key))

    assert [expected] * len(found) == found


def test_on_behalf_of_demands_a_token_for_the_blueprint() -> None:
    """The user's token is the assertion, and Entra takes it only if it is meant for the blueprint."""
    route, version = egress(
        hosts=["graph.microsoft.com"],
        flow="on_behalf_of",
        agent="assistant",
        scopes=[GRAPH],
        claims={"a": 1},
        requires={
            "scopes": ["access_agent"],
            "user_roles": ["Approver"],
            "actors": [APP],
            "actor_blueprints": [CLIENT],
            "auth_context": "c99",
        },
        leeway=1,
    )
    expected = EgressRoute(
        name="graph",
        hosts=("graph.microsoft.com", "graph.microsoft.com:443", "graph.microsoft.com:80"),
        grant=Delegated(
            ASSISTANT,
            Target((GRAPH,), '{"a":1}', version),
            Expectation(OWN, TRUSTED, 1.0),
            Requirement(
                scopes=(("access_agent",),),
                user_roles=(("Approver",),),
                actors=frozenset({APP}),
                blueprints=frozenset({CLIENT}),
                auth_contexts=("c99",),
                resource=f"api://{CLIENT}",
            ),
        ),
    )
    assert expected == route


@pytest.mark.parametrize(
    ("audiences", "resource"),
    [
        ([CLIENT], f"api://{CLIENT}"),
        ([CLIENT, "api://contoso.example/agent"], "api://contoso.example/agent"),
        (["https://agent.contoso.example"], "https://agent.contoso.example"),
    ],
)
def test_a_missing_scope_is_named_with_a_resource_that_entra_knows(
    audiences: list[str], resource: str
) -> None:
    """An audience that is a URI as it is; a client id as the URI that Entra proposes for it."""
    config = load_data(changed({"blueprints.support.audiences": audiences}))
    assert resource == compile_policy(config).inbound["chat"].requirement.resource


def test_own_audiences_of_a_client_replace_the_default_ones() -> None:
    """On inbound routes and on delegated egress routes alike."""
    policy = compile_policy(load_data(changed({"blueprints.support.audiences": ["api://support"]})))
    expected = [frozenset({"api://support"})] * 2
    graph = delegated(policy.egress["graph"]).expectation
    assert expected == [policy.inbound["chat"].expectation.audiences, graph.audiences]


@pytest.mark.parametrize(
    ("flow", "client", "expected"),
    [
        ("autonomous", {"agent": "assistant"}, ASSISTANT),
        ("blueprint", {"blueprint": "support"}, BLUEPRINT),
        ("app", {"application": "portal"}, PORTAL),
        ("app", {"blueprint": "support"}, BLUEPRINT),
    ],
)
def test_app_only_flows_look_at_no_users_token(
    flow: str, client: dict[str, str], expected: AgentIdentity | Client
) -> None:
    """They have no expectation, so there is nothing to downgrade from."""
    route, version = egress(flow=flow, scopes=[GRAPH], **client)
    target = Target((GRAPH,), None, version)
    wanted = EgressRoute("graph", (), Own(own_exchange(Flow(flow), expected, target), push=True))
    assert wanted == route


def test_app_on_behalf_of_demands_a_token_for_the_application() -> None:
    """The same as for agents, with the application in the blueprint's place."""
    route, _ = egress(flow="app_on_behalf_of", application="portal", scopes=["api://x/Read"])
    audiences = frozenset({APP, f"api://{APP}"})
    assert (PORTAL, Expectation(audiences, TRUSTED)) == (
        delegated(route).asker, delegated(route).expectation,
    )  # fmt: skip


def test_an_agent_user_goes_along_with_its_agent() -> None:
    """By the name it was given."""
    changes = {"agents.assistant.agent_user": "a@b", "egress.graph.flow": "agent_user"}
    route = compile_policy(load_data(changed(changes))).egress["graph"]
    expected = AgentIdentity("assistant", AGENT, BLUEPRINT, AgentUser(username="a@b"))
    assert (expected, Flow.AGENT_USER) == (own(route).asker, route.flow)


def test_flow_none_has_nothing_but_its_hosts() -> None:
    """No client, no target, no expectation."""
    route, _ = egress(flow="none", hosts=["*"])
    assert EgressRoute("graph", ("*",), NoToken()) == route


@pytest.mark.parametrize(
    ("host", "route"),
    [("MCP", "plain"), ("mcp:80", "plain"), ("mcp:8000", "tools"), ("mcp.svc", None)],
)
def test_a_request_finds_a_route_of_plain_http_by_its_host(host: str, route: str | None) -> None:
    """It names no scheme, and no port where that is the scheme's own."""
    hosts = {"plain": ["http://mcp:80"], "tools": ["http://mcp:8000"]}
    routes = {f"egress.{name}": {"flow": "none", "hosts": each} for name, each in hosts.items()}
    policy = compile_policy(load_data(changed(routes)))
    request = CheckRequest(host=host, direction="egress")

    try:
        found: str | None = policy.find(request).name
    except UnknownRoute:
        found = None

    assert route == found


def test_workloads_bind_the_routes_of_their_agent_and_routes_without_agent() -> None:
    """Whose word counts is the listener's to say."""
    workload, other = "spiffe://a/b", "spiffe://a/c"
    changes = {
        "listen.workload_identity": "source_principal",
        "agents.assistant.workloads": [workload],
        "egress.app": {
            "flow": "app",
            "application": "portal",
            "scopes": [GRAPH],
            "workloads": [other],
        },
    }
    routes = compile_policy(load_data(changed(changes))).egress
    expected = [
        (frozenset({workload}), PeerSource.SOURCE_PRINCIPAL),
        (frozenset({other}), PeerSource.SOURCE_PRINCIPAL),
    ]
    assert expected == [(routes[n].workloads, routes[n].peer_source) for n in ("graph", "app")]


@pytest.mark.parametrize("given", [None, True, False])
@pytest.mark.parametrize("flow", ["autonomous", "agent_user", "blueprint", "app"])
def test_token_that_no_request_changes_is_pushed_unless_told_otherwise(
    flow: str, given: bool | None
) -> None:
    """`push` is there to say no."""
    client = {"blueprint": {"blueprint": "support"}, "app": {"application": "portal"}}
    changes = {
        "agents.assistant.agent_user": "assistant@contoso.example",
        "egress.graph": {
            "flow": flow,
            "scopes": [GRAPH],
            **client.get(flow, {"agent": "assistant"}),
            **({} if given is None else {"push": given}),
        },
    }

    route = compile_policy(load_data(changed(changes))).egress["graph"]

    assert (given is not False) == own(route).push


@pytest.mark.parametrize(
    "route",
    [
        {"flow": "on_behalf_of", "agent": "assistant", "scopes": [GRAPH]},
        {"flow": "app_on_behalf_of", "application": "portal", "scopes": [GRAPH]},
        {"flow": "none"},
    ],
    ids=lambda route: route["flow"],
)
def test_token_of_a_user_is_never_pushed(route: dict[str, Any]) -> None:
    """Law 1: there is no user ahead of a request. And no token is none to push."""
    policy = compile_policy(load_data(changed({"egress.graph": route})))

    assert policy.egress["graph"].pushed is None


def test_the_only_inbound_route_is_the_default_one() -> None:
    """With several, one of them must be named."""
    second = {"inbound.second": BASE["inbound"]["chat"]}
    named = {**second, "listen.inbound_route": "second", "listen.direction": "inbound"}
    policies = [compile_policy(load_data(changed(changes))) for changes in ({}, second, named)]
    assert ["chat", None, "second"] == [policy.default_inbound for policy in policies]
    assert [None, None, Direction.INBOUND] == [policy.default_direction for policy in policies]


def test_a_compiled_policy_finds_routes_by_host() -> None:
    """The most specific host wins."""
    hosts = {
        "egress.wild": {"flow": "none", "hosts": ["*.microsoft.com"]},
        "egress.rest": {"flow": "none", "hosts": ["*"]},
    }
    policy = compile_policy(load_data(changed(hosts)))
    found = [
        policy.find(CheckRequest(host=host, direction=Direction.EGRESS)).name
        for host in ("Graph.microsoft.com:443", "x.microsoft.com", "example.com")
    ]
    assert ["graph", "wild", "rest"] == found


@pytest.mark.parametrize(
    "changes",
    [
        {"egress.graph.scopes": ["User.Read"]},
        {"egress.graph.claims": {}},
        {"inbound.chat.leeway": 1},
        {"blueprints.support.tenant_id": OTHER},
        {"blueprints.support.credentials": [{"federated_token": {"file": "/etc/authz/secret"}}]},
        {"entra.authority": "https://login.microsoftonline.us"},
        {"listen.direction": "egress"},
        {"listen.inbound_route": "chat"},
    ],
)
def test_the_version_changes_with_what_decides(changes: dict[str, Any]) -> None:
    """So that no token of the old configuration is used under the new one."""
    versions = {compile_policy(load_data(changed(c))).version for c in ({}, changes)}
    assert 2 == len(versions)


@pytest.mark.parametrize(
    "changes",
    [{"log.level": "debug"}, {"listen.grpc": "unix:/x"}, {"reload_interval": 0}],
)
def test_the_version_stays_when_nothing_is_decided_differently(changes: dict[str, Any]) -> None:
    """A louder log does not throw the cached tokens away."""
    versions = {compile_policy(load_data(changed(c))).version for c in ({}, changes)}
    assert 1 == len(versions)
    assert 64 == len(versions.pop())


def test_the_version_does_not_depend_on_the_order_or_spelling_of_the_file() -> None:
    """It is the digest of what was read, not of the text."""
    reordered = dict(reversed(changed({"inbound.chat.leeway": "1m"}).items()))
    assert compile_policy(load_data(BASE)).version == compile_policy(load_data(reordered)).version


def test_issuers_are_both_versions_of_every_trusted_tenant_once() -> None:
    """Of inbound routes and of delegated egress routes; app-only routes trust nobody."""
    tenants = [f"{n}0000000-0000-4000-8000-000000000000" for n in (1, 2, 3)]
    app = {"client_id": OTHER, "credentials": [{"managed_identity": {}}]}
    route = {"application": "two", "scopes": ["api://x/.default"]}
    changes = {
        "inbound.three": {"application": "three", "tenants": [tenants[0], TENANT]},
        "applications.two": {**app, "tenant_id": tenants[1]},
        "applications.three": {**app, "tenant_id": tenants[2]},
        "egress.two": {**route, "flow": "app_on_behalf_of"},
        "egress.three": {**route, "flow": "app", "application": "three"},
    }
    found = issuers(load_data(changed(changes)))
    expected = [
        (tenant, version) for tenant in (TENANT, tenants[0], tenants[1]) for version in (1, 2)
    ]
    assert expected == [(issuer.tenant_id, issuer.version) for issuer in found]


def test_each_issuer_knows_its_metadata_and_its_other_name() -> None:
    """v1 and v2 have their own discovery documents (Entra page "v2-protocols-oidc")."""
    base = f"https://login.microsoftonline.com/{TENANT}"
    expected = [
        (V1, f"{base}/.well-known/openid-configuration", (V2,)),
        (V2, f"{base}/v2.0/.well-known/openid-configuration", (V1,)),
    ]
    found = issuers(load_data(BASE))
    assert expected == [(issuer.issuer, issuer.metadata_url, issuer.aliases) for issuer in found]


@pytest.mark.parametrize(
    ("authority", "v1", "v2", "resource"),
    [
        (
            "https://login.windows.net",
            "https://sts.windows.net",
            "https://login.microsoftonline.com",
            "api://AzureADTokenExchange",
        ),
        (
            "https://sts.windows.net:443",
            "https://sts.windows.net",
            "https://login.microsoftonline.com",
            "api://AzureADTokenExchange",
        ),
        (
            "https://login.microsoftonline.us",
            "https://sts.windows.net",
            "https://login.microsoftonline.us",
            "api://AzureADTokenExchangeUSGov",
        ),
        (
            "https://login.chinacloudapi.cn",
            "https://sts.chinacloudapi.cn",
            "https://login.partner.microsoftonline.cn",
            "api://AzureADTokenExchangeChina",
        ),
        (
            "https://login.sovcloud-identity.fr",
            "https://sts.windows.net",
            "https://login.sovcloud-identity.fr",
            "api://AzureADTokenExchangeFrance",
        ),
        (
            "https://127.0.0.1:8443",
            "https://sts.windows.net",
            "https://127.0.0.1:8443",
            "api://AzureADTokenExchange",
        ),
    ],
)
def test_each_cloud_has_its_issuers_and_exchange_resource(
    authority: str, v1: str, v2: str, resource: str
) -> None:
    """Aliases speak for their cloud; an unknown host speaks for itself; metadata is where we were told."""
    config = load_data(changed({"entra.authority": authority}))
    found = issuers(config)
    assert [f"{v1}/{TENANT}/", f"{v2}/{TENANT}/v2.0"] == [issuer.issuer for issuer in found]
    assert all(issuer.metadata_url.startswith(f"{authority}/{TENANT}/") for issuer in found)
    assert resource == exchange_resource(config)


def test_clients_come_with_their_credentials_and_agents_by_name() -> None:
    """What the exchange needs beside the policy."""
    config = load_data(BASE)
    secret = ClientSecret.model_validate({"file": "/etc/authz/secret"})
    assert {BLUEPRINT: (secret,), PORTAL: (ManagedIdentity(),)} == credentials(config)
    assert {"assistant": ASSISTANT} == agent_identities(config)


REFERRING = {
    "inbound.chat.forward": ["placeholder", "handle"],
    "egress.graph.subject": ["bearer", "placeholder", "handle", "none"],
    "egress.graph.scopes": [
        "https://graph.microsoft.com/User.Read",
        "https://graph.microsoft.com/Mail.Read",
    ],
}


def test_references_count_where_the_same_agent_was_called() -> None:
    """Also where a route calls its blueprint, or does not say whom it calls; never another's."""
    anyone = {"audiences": [CLIENT], "tenants": [TENANT]}
    others = {
        "agents.other": {"blueprint": "support", "agent_identity": OTHER},
        "inbound.other": {"agent": "other"},
        "inbound.blueprint": {"blueprint": "support"},
        "inbound.portal": {"application": "portal"},
        "inbound.anyone": anyone,
    }
    routes = compile_policy(load_data(changed({**REFERRING, **others}))).egress
    assert {"chat": AGENT, "blueprint": CLIENT, "anyone": None} == dict(
        delegated(routes["graph"]).origins
    )


def test_references_to_callers_of_a_blueprint_count_for_the_blueprint() -> None:
    """A route of the blueprint itself serves all of its agents' callers, and an application its own."""
    flows = {
        "egress.graph": {
            "flow": "app_on_behalf_of", "blueprint": "support", "scopes": ["api://x/Read"],
            "subject": ["handle"],
        },
        "egress.portal": {
            "flow": "app_on_behalf_of", "application": "portal", "scopes": ["api://x/Read"],
            "subject": ["handle"],
        },
        "inbound.chat.forward": "handle",
        "inbound.portal": {"application": "portal", "forward": "handle"},
    }  # fmt: skip
    routes = compile_policy(load_data(changed(flows))).egress
    assert [{"chat": AGENT}, {"portal": APP}] == [
        dict(delegated(routes[name]).origins) for name in ("graph", "portal")
    ]


def test_a_route_without_user_asks_for_what_the_agent_was_granted() -> None:
    """The same agent and resource, and nothing of the user's permissions."""
    routes = compile_policy(load_data(changed(REFERRING))).egress
    instead = delegated(routes["graph"]).stand_in()
    assert (Flow.AUTONOMOUS, ASSISTANT, True) == (
        instead.flow, instead.asker, instead.stands_in,
    )  # fmt: skip
    assert (GRAPH,) == instead.target.scopes


def test_a_route_that_wants_a_user_has_no_way_round() -> None:
    """Law 1."""
    changes = {**REFERRING, "egress.graph.subject": ["placeholder", "handle"]}
    grant = delegated(compile_policy(load_data(changed(changes))).egress["graph"])
    assert grant.without_user is None


def test_tokens_outlive_a_change_that_does_not_concern_them() -> None:
    """Routes, requirements and caches may change; another address of Entra issues other tokens."""
    unrelated = {
        "egress.more": {"hosts": ["more.example"], "flow": "none"},
        "inbound.chat.scopes": ["another"],
        "cache": {"tokens": {"margin": "90s"}},
    }
    elsewhere = {"entra": {"authority": "https://login.microsoftonline.us"}}
    before, after, other = (
        load_data(data) for data in (BASE, changed(unrelated), {**BASE, **elsewhere})
    )

    assert tokens_version(before) == tokens_version(after) != tokens_version(other)
    assert policy_version(before) != policy_version(after)


@pytest.mark.parametrize(
    ("inbound", "flow", "asker"),
    [
        ({"agent": "assistant"}, Flow.ON_BEHALF_OF, ASSISTANT),
        ({"blueprint": "support"}, Flow.APP_ON_BEHALF_OF, BLUEPRINT),
        ({"application": "portal"}, Flow.APP_ON_BEHALF_OF, PORTAL),
    ],
)
def test_apis_that_are_not_configured_go_by_what_callers_call(
    inbound: dict[str, str], flow: Flow, asker: AgentIdentity | Client
) -> None:
    """Where any resource is granted; an agent's workloads stay bound."""
    workload = "spiffe://c/w"
    changes = {
        "inbound.chat": inbound,
        "api.any_resource": True,
        "listen": {"workload_identity": "source_principal", "grpc": "127.0.0.1:0"},
        "agents.assistant.workloads": [workload],
    }
    found = compile_policy(load_data(changed(changes))).unconfigured
    assert found is not None
    assert (flow, asker) == (found.flow, delegated(found).asker)
    assert frozenset({workload} if asker is ASSISTANT else ()) == found.workloads
    assert Target((), None, tokens_version(load_data(changed(changes)))) == target_of(found)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"api.any_resource": True, "inbound.chat": {"audiences": [CLIENT], "tenants": [TENANT]}},
        {"api.any_resource": True, "inbound.second": {"agent": "assistant"}},
    ],
    ids=["not granted", "no client", "no default route"],
)
def test_apis_that_are_not_configured_are_unknown_otherwise(changes: dict[str, Any]) -> None:
    """Nothing says whose token it would be."""
    assert compile_policy(load_data(changed(changes))).unconfigured is None


def test_a_route_without_scopes_is_for_callers_that_name_some() -> None:
    """No Check finds it, and nothing is pushed."""
    bare = {"flow": "autonomous", "agent": "assistant"}
    changes = {"egress.bare": bare, "api.any_resource": True}
    policy = compile_policy(load_data(changed(changes)))
    assert ({"graph"}, {"bare"}) == (set(policy.egress), set(policy.unscoped))
    assert not own(policy.unscoped["bare"]).push


@pytest.mark.parametrize(
    ("more", "granted"),
    [({}, False), ({"hosts": ["api"]}, True), ({"push": True}, True)],
    ids=["not granted", "for a host", "pushed"],
)
def test_a_route_without_scopes_is_a_fault_otherwise(more: dict[str, Any], granted: bool) -> None:
    """Envoy's requests name no scopes."""
    bare = {"flow": "autonomous", "agent": "assistant", **more}
    changes = {"egress.bare": bare, "api.any_resource": granted}
    found = faults_of(lambda: load_data(changed(changes)))
    text = "is missing: flow autonomous needs at least one scope"
    assert [("egress.bare.scopes", text)] == [(fault.path, fault.message) for fault in found]


def test_a_route_without_scopes_cannot_be_prefetched() -> None:
    """There is no token that its next caller would need."""
    bare = {"flow": "autonomous", "agent": "assistant"}
    changes = {"egress.bare": bare, "api.any_resource": True, "inbound.chat.prefetch": ["bare"]}
    found = faults_of(lambda: load_data(changed(changes)))
    text = "found 'bare', which has no scopes and so no token of its own"
    assert [("inbound.chat.prefetch.0", text)] == [(fault.path, fault.message) for fault in found]
