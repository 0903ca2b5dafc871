"""The environment keys of the Entra SDK sidecar: what they configure, what they warn of, what is refused."""

from pathlib import Path
from typing import Any

import pytest

from authz.config.clouds import NO_TENANT
from authz.config.compile import compile_policy, issuers
from authz.config.consistency.advice import advice
from authz.config.entra_sdk.environment import read_environment
from authz.config.entra_sdk.keys import KEYS, Use, split
from authz.config.faults import ConfigError, Notice
from authz.config.model import Config
from authz.config.sections.api import Downstream, Endpoint
from authz.config.sections.clients import (
    Certificate,
    ClientSecret,
    FederatedToken,
    KeyVault,
    ManagedIdentity,
)
from authz.config.source import load
from authz.core.exchange import AgentUser, Flow
from config.samples import AGENT, CLIENT, TENANT, faults_of

OTHER = "99999999-0000-4000-8000-000000000009"
GRAPH = "https://graph.microsoft.com/.default"
CREDENTIAL = "AzureAd__ClientCredentials__0__"
API = "DownstreamApis__graph__"

SEED = {
    "AzureAd__Instance": "https://login.microsoftonline.com/",
    "AzureAd__TenantId": TENANT,
    "AzureAd__ClientId": CLIENT,
    f"{CREDENTIAL}SourceType": "ClientSecret",
    f"{CREDENTIAL}ClientSecret": "hunter2",
    "DownstreamApis__graph__BaseUrl": "https://graph.microsoft.com/v1.0",
    "DownstreamApis__graph__Scopes__0": GRAPH,
    "DownstreamApis__graph__RequestAppToken": "true",
    "ASPNETCORE_ENVIRONMENT": "Development",
    "ASPNETCORE_URLS": "http://+:5000",
    "PATH": "/usr/bin",
}
"""What the ConfigMap and the Secret of the public walk-through set."""


def environ(**changes: str | None) -> dict[str, str]:
    """Return the seed with variables set, or left out where they are None."""
    merged = {**SEED, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def read(**changes: str | None) -> Config:
    """Return the configuration of the seed with these changes."""
    return read_environment(environ(**changes))[0]


def faults(**changes: str | None) -> list[tuple[str, str]]:
    """Return path and message of each fault of the seed with these changes."""
    found = faults_of(lambda: read_environment(environ(**changes)))
    return [(fault.path, fault.message) for fault in found]


def notices(**changes: str | None) -> list[Notice]:
    """Return the notices of the seed with these changes."""
    return list(read_environment(environ(**changes))[1])


def test_the_walk_through_starts_as_it_is() -> None:
    """Its keys give an app route for Graph and one inbound route."""
    config = read()
    client = config.applications["default"]
    assert (TENANT, CLIENT) == (client.tenant_id, client.client_id)
    assert (ClientSecret(env=f"{CREDENTIAL}ClientSecret"),) == client.credentials
    graph = config.egress["graph"]
    assert (("graph.microsoft.com",), Flow.APP, (GRAPH,), "default") == (
        graph.hosts,
        graph.flow,
        graph.scopes,
        graph.application,
    )
    assert {"default"} == set(config.inbound)
    # The client as a blueprint is there for callers of the HTTP API, who name the agent themselves.
    assert config.blueprints["default"].any_agent
    assert ("[::]:5000", True) == (config.listen.api, config.api.any_resource)
    assert tuple(Endpoint) == config.api.overrides
    downstream = config.egress["graph"].downstream
    assert downstream is not None
    assert "https://graph.microsoft.com/v1.0" == downstream.base_url


def test_the_walk_through_learns_what_has_no_effect() -> None:
    """Among it that nothing names an agent, so the token is the client's own."""
    assert ["ASPNETCORE_ENVIRONMENT", "DownstreamApis__graph"] == [
        notice.path for notice in notices()
    ]


def test_keys_are_read_in_any_case_and_with_colons() -> None:
    """As .NET does."""
    keys = {
        "azuread:tenantid": TENANT,
        "AZUREAD__CLIENTID": CLIENT,
        "AzureAd:ClientCredentials:0:SourceType": "clientsecret",
        "AzureAd:ClientCredentials:0:ClientSecret": "hunter2",
        "downstreamapis__Graph__SCOPES": GRAPH,
        "DownstreamApis__graph__requestapptoken": "True",
    }
    config, _ = read_environment(keys)
    assert [("Graph", Flow.APP)] == [(name, route.flow) for name, route in config.egress.items()]
    expected = (ClientSecret(env="AzureAd:ClientCredentials:0:ClientSecret"),)
    assert expected == config.applications["default"].credentials


@pytest.mark.parametrize(
    ("keys", "flow"),
    [
        ({}, Flow.APP_ON_BEHALF_OF),
        ({"RequestAppToken": "true"}, Flow.APP),
        ({"AgentIdentity": AGENT}, Flow.ON_BEHALF_OF),
        ({"AgentIdentity": AGENT, "RequestAppToken": "False"}, Flow.ON_BEHALF_OF),
        ({"AgentIdentity": AGENT, "RequestAppToken": "true"}, Flow.AUTONOMOUS),
        ({"AgentIdentity": AGENT, "AgentUsername": "a@b"}, Flow.AGENT_USER),
        ({"AgentIdentity": AGENT, "AgentUserId": OTHER}, Flow.AGENT_USER),
    ],
)
def test_agent_and_app_token_give_the_flow(keys: dict[str, str], flow: Flow) -> None:
    """The table of flows in the reference."""
    changes = {f"DownstreamApis__graph__{key}": value for key, value in keys.items()}
    config = read(**{"DownstreamApis__graph__RequestAppToken": None, **changes})
    route = compile_policy(config).egress["graph"]
    assert flow is route.flow
    client = route.credential_holder
    assert client is not None
    assert CLIENT == client.client_id


def test_an_agent_for_all_is_the_default_and_an_api_can_have_its_own() -> None:
    """A user account goes with the agent identity it was given for, never with another."""
    config = read(
        AzureAd__AgentIdentity=AGENT,
        AzureAd__AgentUsername="a@b",
        DownstreamApis__graph__RequestAppToken=None,
        DownstreamApis__own__AgentIdentity=OTHER,
        DownstreamApis__own__Scopes="api://own/.default",
        DownstreamApis__user__AgentUserId=OTHER,
        DownstreamApis__user__Scopes="api://user/.default",
    )
    agents = {name: config.agents[str(route.agent)] for name, route in config.egress.items()}
    assert {
        "graph": (AGENT, AgentUser(username="a@b")),
        "own": (OTHER, None),
        "user": (AGENT, AgentUser(object_id=OTHER)),
    } == {name: (agent.agent_identity, agent.agent_user) for name, agent in agents.items()}
    assert ("default", {"default"}) == (config.inbound["default"].agent, set(config.blueprints))


def test_an_api_called_like_the_agent_for_all_keeps_its_own_agent() -> None:
    """`default` is a common API name; two agents never share one name."""
    config = read(
        AzureAd__AgentIdentity=AGENT,
        DownstreamApis__default__AgentIdentity=OTHER,
        DownstreamApis__default__Scopes="api://own/.default",
    )
    identities = {
        name: config.agents[str(route.agent)].agent_identity
        for name, route in config.egress.items()
    }
    assert {"graph": AGENT, "default": OTHER} == identities
    assert AGENT == config.agents[str(config.inbound["default"].agent)].agent_identity


def test_with_and_without_agent_the_client_is_blueprint_and_application() -> None:
    """One client id, one list of credentials."""
    config = read(
        DownstreamApis__own__AgentIdentity=AGENT, DownstreamApis__own__Scopes="api://own/.default"
    )
    assert config.blueprints["default"].credentials == config.applications["default"].credentials
    assert [Flow.APP, Flow.ON_BEHALF_OF] == [route.flow for route in config.egress.values()]


@pytest.mark.parametrize(
    "keys",
    [
        {"AzureAd__Audience": "api://one", "AzureAd__Scopes": "a b,c"},
        {"AzureAd__Audiences": "api://one", "AzureAd__Scopes": " a, b ,c "},
        {
            "AzureAd__Audiences__0": "api://one",
            "AzureAd__Scopes__10": "c",
            "AzureAd__Scopes__0": "a",
            "AzureAd__Scopes__2": "b",
        },
    ],
)
def test_audiences_and_scopes_are_the_inbound_routes(keys: dict[str, str]) -> None:
    """As text or as a list, the list in order of its numbers."""
    route = compile_policy(read(**keys)).inbound["default"]
    assert frozenset({"api://one"}) == route.expectation.audiences
    assert (("a", "b", "c"),) == route.requirement.scopes


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {
                "SourceType": "Path",
                "CertificateDiskPath": "/c.pfx",
                "CertificatePassword": "hunter2",
            },
            Certificate(file=Path("/c.pfx"), password_env=f"{CREDENTIAL}CertificatePassword"),
        ),
        (
            {"SourceType": "Base64Encoded", "Base64EncodedValue": "aHVudGVyMg=="},
            Certificate(env=f"{CREDENTIAL}Base64EncodedValue"),
        ),
        (
            {
                "SourceType": "KeyVault",
                "KeyVaultUrl": "https://V.vault.azure.net/",
                "KeyVaultCertificateName": "desk",
            },
            KeyVault(url="https://v.vault.azure.net", certificate="desk"),
        ),
        (
            {
                "SourceType": "keyvault",
                "KeyVaultUrl": "https://v.vault.azure.net",
                "KeyVaultCertificateName": "desk",
                "ManagedIdentityClientId": OTHER,
            },
            KeyVault(url="https://v.vault.azure.net", certificate="desk", client_id=OTHER),
        ),
        (
            {"SourceType": "SignedAssertionFilePath", "SignedAssertionFileDiskPath": "/token"},
            FederatedToken(file=Path("/token")),
        ),
        (
            {"SourceType": "SignedAssertionFilePath", "SignedAssertionFilePath": "/token"},
            FederatedToken(file=Path("/token")),
        ),
        ({"SourceType": "SignedAssertionFilePath"}, FederatedToken(file=Path("/federated"))),
        (
            {"SourceType": "SignedAssertionFilePath", "UseBoundCredential": "False"},
            FederatedToken(file=Path("/federated")),
        ),
        (
            {"SourceType": "SignedAssertionFromManagedIdentity", "ManagedIdentityClientId": OTHER},
            ManagedIdentity(client_id=OTHER),
        ),
        (
            {
                "SourceType": "SignedAssertionFromManagedIdentity",
                "ManagedIdentityClientId": "",
                "TokenExchangeUrl": "api://AzureAdTokenExchange/.default",
            },
            ManagedIdentity(),
        ),
    ],
)
def test_credential_types_are_those_of_the_sidecar(keys: dict[str, str], expected: Any) -> None:
    """What holds a secret stays in its variable."""
    changes: dict[str, str | None] = {f"{CREDENTIAL}ClientSecret": None}
    changes |= {f"{CREDENTIAL}{key}": value for key, value in keys.items()}
    config = read(**changes, AZURE_FEDERATED_TOKEN_FILE="/federated")
    assert (expected,) == config.applications["default"].credentials


def test_credentials_are_tried_in_the_order_of_their_numbers() -> None:
    """10 comes after 2."""
    changes = {
        "AzureAd__ClientCredentials__10__SourceType": "SignedAssertionFromManagedIdentity",
        "AzureAd__ClientCredentials__2__SourceType": "Path",
        "AzureAd__ClientCredentials__2__CertificateDiskPath": "/c.pem",
        "AzureAd__SendX5C": "true",
    }
    credentials = read(**changes).applications["default"].credentials
    expected = (
        ClientSecret(env=f"{CREDENTIAL}ClientSecret"),
        Certificate(file=Path("/c.pem"), send_x5c=True),
        ManagedIdentity(),
    )
    assert expected == credentials


def test_without_credentials_the_federated_token_of_the_environment_is_used() -> None:
    """The azure-workload-identity webhook sets it."""
    config = read(
        AZURE_FEDERATED_TOKEN_FILE="/federated",
        **{f"{CREDENTIAL}SourceType": None, f"{CREDENTIAL}ClientSecret": None},
    )
    expected = (FederatedToken(file=Path("/federated")),)
    assert expected == config.applications["default"].credentials


def test_a_credential_that_cannot_be_used_is_skipped_beside_another() -> None:
    """As the sidecar does when one of the list fails."""
    changes = {
        "AzureAd__ClientCredentials__1__SourceType": "StoreWithThumbprint",
        "AzureAd__ClientCredentials__1__CertificateThumbprint": "962D129A",
    }
    assert 1 == len(read(**changes).applications["default"].credentials)
    found = {notice.path: notice.message for notice in notices(**changes)}
    assert found["AzureAd__ClientCredentials__1__SourceType"].startswith(
        "is skipped: StoreWithThumbprint is not"
    )


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://graph.microsoft.com/v1.0", ("graph.microsoft.com",)),
        ("https://Api.Internal:443/", ("api.internal",)),
        ("http://localhost:80", ("http://localhost",)),
        ("http://127.0.0.1:8080/x", ("http://127.0.0.1:8080",)),
        ("https://[::1]:8443/x", ("[::1]:8443",)),
        ("", ()),
        (None, ()),
    ],
)
def test_the_host_of_the_base_url_selects_the_route(
    url: str | None, hosts: tuple[str, ...]
) -> None:
    """With its port where the scheme does not imply it; without a URL the route has its name only."""
    assert hosts == read(DownstreamApis__graph__BaseUrl=url).egress["graph"].hosts


def test_an_api_without_tls_gets_no_token_unless_that_is_said() -> None:
    """Callers of the HTTP API may have it, as from the sidecar; Envoy and `/DownstreamApi` do not send it."""
    url = {"DownstreamApis__graph__BaseUrl": "http://orders.svc:8080/v1"}
    route = read(**url).egress["graph"]
    assert ((), None) == (route.hosts, route.downstream)
    expected = (
        "is http://, where anybody on the network could read the token: neither Envoy nor /DownstreamApi "
        "sends it there without DownstreamApis__graph__TokenOverPlainHttp=true"
    )
    assert Notice("DownstreamApis__graph__BaseUrl", expected) in notices(**url)

    route = read(**url, DownstreamApis__graph__TokenOverPlainHttp="true").egress["graph"]
    assert (("http://orders.svc:8080",), True) == (route.hosts, route.token_over_plain_http)
    assert route.downstream is not None
    assert "http://orders.svc:8080/v1" == route.downstream.base_url


@pytest.mark.parametrize("url", ["http://localhost:8080/v1", "https://127.0.0.1"])
def test_an_api_on_loopback_gets_its_token_with_a_notice(url: str) -> None:
    """As from the sidecar: the app can ask the HTTP API for the same token."""
    config = read(DownstreamApis__graph__BaseUrl=url)
    route = config.egress["graph"]

    assert (1, True) == (len(route.hosts), route.token_to_loopback)
    assert ["egress.graph.token_to_loopback"] == [
        notice.path for notice in advice(config) if "can listen on" in notice.message
    ]


def test_loopback_is_not_allowed_where_nothing_is_sent_there() -> None:
    """Two APIs of one host are found by name only."""
    changes = {
        "DownstreamApis__graph__BaseUrl": "http://localhost:8080/v1",
        "DownstreamApis__user__BaseUrl": "http://localhost:8080/beta",
        "DownstreamApis__user__Scopes": "User.Read",
    }
    routes = read(**changes).egress.values()
    assert [((), False)] * 2 == [(route.hosts, route.token_to_loopback) for route in routes]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("https://api.example/v1", "http://api.example/v2"),
        ("https://api.example/v1", "http://api.example:443/v2"),
        ("https://api.example/v1", "https://API.example:80/v2"),
    ],
)
def test_hosts_that_requests_do_not_tell_apart_select_neither(first: str, second: str) -> None:
    """A request names host and port, and no scheme."""
    changes = {
        "DownstreamApis__graph__BaseUrl": first,
        "DownstreamApis__user__BaseUrl": second,
        "DownstreamApis__user__Scopes": "User.Read",
        "DownstreamApis__user__TokenOverPlainHttp": "true",
    }
    assert [(), ()] == [route.hosts for route in read(**changes).egress.values()]


def test_a_host_that_two_apis_share_selects_neither() -> None:
    """Guessing would give one API's token for the other."""
    changes = {
        "DownstreamApis__user__BaseUrl": "https://graph.microsoft.com/beta",
        "DownstreamApis__user__Scopes": "User.Read",
    }
    config = read(**changes)
    assert [(), ()] == [route.hosts for route in config.egress.values()]
    paths = [notice.path for notice in notices(**changes)]
    assert {"DownstreamApis__graph__BaseUrl", "DownstreamApis__user__BaseUrl"} <= set(paths)


def test_other_settings_find_their_place() -> None:
    """Claims, log level, authority, own variables."""
    config = read(
        AzureAd__Instance="https://login.microsoftonline.us",
        Logging__LogLevel__Default="Information",
        DownstreamApis__graph__AcquireTokenOptions__Claims='{"a": 1}',
        DownstreamApis__graph__AcquireTokenOptions__Tenant=TENANT.upper(),
        DownstreamApis__graph__ProtocolScheme="bearer",
        AUTHZ_LISTEN_GRPC="unix:/x",
        AUTHZ_LISTEN_CHECKS="unix:/y",
    )
    assert "https://login.microsoftonline.us" == config.entra.authority
    assert "info" == config.log.level.value
    assert ("unix:/x", "unix:/y") == (config.listen.grpc, config.listen.checks)
    assert '{"a":1}' == config.egress["graph"].claims


def test_the_apis_keys_say_how_it_is_called() -> None:
    """Everything that shapes the sidecar's own calls."""
    keys = {
        "RelativePath": "me",
        "HttpMethod": "Post",
        "AcceptHeader": "text/plain",
        "ContentType": "application/xml",
        "ExtraHeaderParameters__OData-Version": "4.0",
        "ExtraQueryParameters__api-version": "1",
    }
    config = read(**{f"DownstreamApis__graph__{key}": value for key, value in keys.items()})
    expected = Downstream(
        base_url="https://graph.microsoft.com/v1.0",
        path="me",
        method="POST",
        accept="text/plain",
        content_type="application/xml",
        headers={"OData-Version": "4.0"},
        query={"api-version": "1"},
    )
    assert expected == config.egress["graph"].downstream


@pytest.mark.parametrize(
    ("keys", "address"),
    [
        ({"ASPNETCORE_URLS": None}, "127.0.0.1:5000"),
        ({"ASPNETCORE_URLS": "http://localhost:5001/"}, "localhost:5001"),
        ({"ASPNETCORE_URLS": "http://*:8080"}, "[::]:8080"),
        ({"ASPNETCORE_URLS": "http://[::1]:8080"}, "[::1]:8080"),
        ({"ASPNETCORE_URLS": "http://127.0.0.1"}, "127.0.0.1:80"),
        ({"Kestrel__Endpoints__Http__Url": "http://127.0.0.1:7000"}, "127.0.0.1:7000"),
        ({"ASPNETCORE_URLS": None, "ASPNETCORE_HTTP_PORTS": "8080"}, "[::]:8080"),
        (
            {
                "ASPNETCORE_URLS": None,
                "ASPNETCORE_HTTP_PORTS": "8080;8081",
                "ASPNETCORE_HTTPS_PORTS": "1",
            },
            "[::]:8080",
        ),
        ({"ASPNETCORE_HTTP_PORTS": "8080"}, "[::]:5000"),
        ({"ASPNETCORE_HTTPS_PORTS": "8443"}, "[::]:5000"),
        (
            {
                "Kestrel__Endpoints__Http__Url": "http://127.0.0.1:7000",
                "ASPNETCORE_HTTP_PORTS": "8080",
            },
            "127.0.0.1:7000",
        ),
        ({"ASPNETCORE_URLS": "https://+:5001;http://+:5002;http://+:5003"}, "[::]:5002"),
        ({"AUTHZ_LISTEN_API": "127.0.0.1:0"}, "127.0.0.1:0"),
        ({"AUTHZ_LISTEN_API": "off"}, None),
    ],
)
def test_the_address_is_that_of_the_sidecar(
    keys: dict[str, str | None], address: str | None
) -> None:
    """Its default, its variables in its order of precedence, and ours before them."""
    assert address == read(**keys).listen.api


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"ASPNETCORE_URLS": None, "ASPNETCORE_HTTP_PORTS": "8080;8081"},
            [
                ("ASPNETCORE_HTTP_PORTS", "http://*:8081 is not served: only http://*:8080 is"),
                (
                    "ASPNETCORE_HTTP_PORTS",
                    (
                        "listens on port 8080 of every address, and serves callers of this machine only, "
                        "but for /healthz"
                    ),
                ),
            ],
        ),
        (
            {"ASPNETCORE_HTTP_PORTS": "8080", "ASPNETCORE_HTTPS_PORTS": "8443"},
            [
                ("ASPNETCORE_HTTP_PORTS", "has no effect: ASPNETCORE_URLS goes before it"),
                ("ASPNETCORE_HTTPS_PORTS", "has no effect: ASPNETCORE_URLS goes before it"),
            ],
        ),
        (
            {"ASPNETCORE_URLS": "https://+:5001;http://+:5000"},
            [("ASPNETCORE_URLS", "https://+:5001 is not served: only http://+:5000 is")],
        ),
    ],
)
def test_an_address_that_is_not_served_is_told(
    keys: dict[str, str | None], expected: list[tuple[str, str]]
) -> None:
    """The service starts, and its log says which one it serves."""
    found = [(each.path, each.message) for each in notices(**keys)]
    assert expected == [
        each
        for each in found
        if each[0].startswith("ASPNETCORE_") and each[0] != "ASPNETCORE_ENVIRONMENT"
    ]


def test_the_readmes_name_of_the_token_file_is_told() -> None:
    """It is read, though Microsoft's own program does not."""
    changes = {
        f"{CREDENTIAL}SourceType": "SignedAssertionFilePath",
        f"{CREDENTIAL}SignedAssertionFilePath": "/token",
    }
    text = "is read as SignedAssertionFileDiskPath, the name that Microsoft's sidecar itself reads"
    assert Notice(f"{CREDENTIAL}SignedAssertionFilePath", text) in notices(**changes)


def test_a_header_that_the_service_sets_itself_is_passed_over() -> None:
    """As the sidecar's library does, with a notice; others are sent."""
    headers = f"{API}ExtraHeaderParameters__"
    changes: dict[str, str | None] = {f"{headers}Authorization": "Basic x", f"{headers}X-One": "1"}
    downstream = read(**changes).egress["graph"].downstream
    assert downstream is not None
    assert {"x-one": "1"} == downstream.headers
    text = "has no effect: the service sets this header itself, or never sends it"
    assert Notice(f"{headers}Authorization", text) in notices(**changes)


VERIFYING: dict[str, str | None] = {
    f"{CREDENTIAL}SourceType": None,
    f"{CREDENTIAL}ClientSecret": None,
    f"{API}BaseUrl": None,
    f"{API}Scopes__0": None,
    f"{API}RequestAppToken": None,
    "AzureAd__Scopes": "access_as_user",
}


def test_without_credentials_and_apis_tokens_are_verified() -> None:
    """Microsoft's README calls the credentials optional; none are needed for `/Validate`."""
    route = compile_policy(read(**VERIFYING)).inbound["default"]
    own = frozenset({CLIENT, f"api://{CLIENT}"})
    assert (own, {TENANT}) == (route.expectation.audiences, set(route.expectation.issuers.values()))
    assert (("access_as_user",),) == route.requirement.scopes
    named = compile_policy(read(**VERIFYING, AzureAd__Audience="api://one")).inbound["default"]
    assert frozenset({"api://one"}) == named.expectation.audiences
    text = "is missing: tokens are verified (/Validate), and none are given out"
    assert Notice("AzureAd__ClientCredentials", text) in notices(**VERIFYING)
    by_file = read(**VERIFYING, AZURE_FEDERATED_TOKEN_FILE="/federated")
    assert "default" in by_file.applications


def test_a_client_that_only_verifies_is_checked_like_any_other() -> None:
    """By the names of its variables."""
    assert {"AzureAd__TenantId"} == {
        path for path, _ in faults(**{**VERIFYING, "AzureAd__TenantId": "x"})
    }
    assert "AzureAd__TenantId" in {
        path for path, _ in faults(**{**VERIFYING, "AzureAd__TenantId": None})
    }


def test_gates_and_redirects_are_honoured_when_they_are_set() -> None:
    """They are open, unlike the sidecar's, unless something says otherwise."""
    config = read(
        Sidecar__AllowOverrides__GetAuthorizationHeaderUnauthenticated="false",
        Sidecar__AllowOverrides__CallDownstreamApi="False",
        Sidecar__AllowOverrides__GetAuthorizationHeader="true",
        Sidecar__AllowOutboundRedirects="true",
    )
    assert (Endpoint.AUTHORIZATION_HEADER, Endpoint.DOWNSTREAM_API_UNAUTHENTICATED) == (
        config.api.overrides
    )
    assert config.api.follow_redirects


def test_an_api_without_scopes_serves_callers_that_name_some() -> None:
    """The service starts; no host leads Envoy to it, and a notice says so."""
    changes: dict[str, str | None] = {f"{API}Scopes__0": None}
    config = read(**changes)
    policy = compile_policy(config)
    assert (set(), {"graph"}) == (set(policy.egress), set(policy.unscoped))
    assert () == config.egress["graph"].hosts
    assert config.egress["graph"].downstream is not None
    text = (
        "has no scopes: only callers of the HTTP API get a token, which send optionsOverride.Scopes, and "
        "Envoy's requests are denied"
    )
    assert Notice("DownstreamApis__graph", text) in notices(**changes)


def test_apis_that_are_not_configured_go_by_the_client() -> None:
    """Callers name scopes; without an agent the token is the client's, on behalf of the caller."""
    plain = compile_policy(read()).unconfigured
    by_agent = compile_policy(read(AzureAd__AgentIdentity=AGENT)).unconfigured
    assert plain is not None
    assert by_agent is not None
    assert (Flow.APP_ON_BEHALF_OF, Flow.ON_BEHALF_OF) == (plain.flow, by_agent.flow)


def test_allowed_hosts_are_names_of_this_machine() -> None:
    """What every machine has needs no entry; a wildcard would admit any web page."""
    changes: dict[str, str | None] = {"AllowedHosts": "localhost;Sidecar;*;127.0.0.1;*.example"}
    assert ("sidecar",) == read(**changes).api.hosts
    told = [notice.message for notice in notices(**changes) if notice.path == "AllowedHosts"]
    why = "a name with a wildcard has no effect: a web page can make any name lead to loopback"
    assert [why, why] == told


REFUSED: dict[str, tuple[dict[str, str | None], str, str]] = {
    "no tenant": ({"AzureAd__TenantId": None}, "AzureAd__TenantId", "is missing"),
    "no client": ({"AzureAd__ClientId": ""}, "AzureAd__ClientId", "is missing"),
    "any tenant": (
        {"AzureAd__TenantId": "organizations"},
        "AzureAd__TenantId",
        (
            "found 'organizations', which would admit users of any tenant, and in which no application gets a "
            "token of its own: expected one tenant, by its GUID or a domain name"
        ),
    ),
    "everybody's personal accounts": (
        {"AzureAd__TenantId": "9188040D-6c67-4c5b-b112-36a304b66dad"},
        "AzureAd__TenantId",
        (
            "found '9188040D-6c67-4c5b-b112-36a304b66dad', which would admit users of any tenant, and in which no "
            "application gets a token of its own: expected one tenant, by its GUID or a domain name"
        ),
    ),
    "an address with TLS": (
        {"ASPNETCORE_URLS": "https://+:5001"},
        "ASPNETCORE_URLS",
        "expected one address of plain HTTP, such as http://+:5000 or http://127.0.0.1:5000",
    ),
    "a port with TLS alone": (
        {"ASPNETCORE_URLS": None, "ASPNETCORE_HTTPS_PORTS": "5001"},
        "ASPNETCORE_HTTPS_PORTS",
        "expected one address of plain HTTP, such as http://+:5000 or http://127.0.0.1:5000",
    ),
    "a port that is none": (
        {"ASPNETCORE_URLS": None, "ASPNETCORE_HTTP_PORTS": "eighty"},
        "ASPNETCORE_HTTP_PORTS",
        "expected numbers of ports, separated by semicolons",
    ),
    "a token that is bound": (
        {f"{CREDENTIAL}UseBoundCredential": "true"},
        f"{CREDENTIAL}UseBoundCredential",
        (
            "expected false: tokens are bearer tokens, which are not bound to a key, and would be taken "
            "for bound ones"
        ),
    ),
    "a method that is none": (
        {"DownstreamApis__graph__HttpMethod": "FETCH"},
        "DownstreamApis__graph__HttpMethod",
        "found 'FETCH': expected one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
    ),
    "a gate ajar": (
        {"Sidecar__AllowOverrides__CallDownstreamApi": "yes"},
        "Sidecar__AllowOverrides__CallDownstreamApi",
        "found 'yes': expected true or false",
    ),
    "instance with tenant": (
        {"AzureAd__Instance": "https://login.microsoftonline.com/x"},
        "AzureAd__Instance",
        (
            "found 'https://login.microsoftonline.com/x': expected an https URL without tenant or "
            "path, such as https://login.microsoftonline.com"
        ),
    ),
    "no credentials": (
        {f"{CREDENTIAL}SourceType": None, f"{CREDENTIAL}ClientSecret": None},
        f"{CREDENTIAL}SourceType",
        "is missing",
    ),
    "credential without type": (
        {f"{CREDENTIAL}SourceType": None},
        f"{CREDENTIAL}SourceType",
        (
            "is missing: expected one of ClientSecret, Path, Base64Encoded, KeyVault, "
            "SignedAssertionFilePath, SignedAssertionFromManagedIdentity"
        ),
    ),
    "unknown credential type": (
        {f"{CREDENTIAL}SourceType": "hunter2"},
        f"{CREDENTIAL}SourceType",
        (
            "is not known: expected one of ClientSecret, Path, Base64Encoded, KeyVault, "
            "SignedAssertionFilePath, SignedAssertionFromManagedIdentity"
        ),
    ),
    "credential without its field": (
        {f"{CREDENTIAL}ClientSecret": None},
        f"{CREDENTIAL}ClientSecret",
        "is missing: its SourceType needs it",
    ),
    "key vault without its url": (
        {
            f"{CREDENTIAL}SourceType": "KeyVault",
            f"{CREDENTIAL}KeyVaultCertificateName": "desk",
            f"{CREDENTIAL}ClientSecret": None,
        },
        f"{CREDENTIAL}KeyVaultUrl",
        "is missing: its SourceType needs it",
    ),
    "key vault without a certificate": (
        {
            f"{CREDENTIAL}SourceType": "KeyVault",
            f"{CREDENTIAL}KeyVaultUrl": "https://v.vault.azure.net",
            f"{CREDENTIAL}ClientSecret": None,
        },
        f"{CREDENTIAL}KeyVaultCertificateName",
        "is missing: its SourceType needs it",
    ),
    "certificate store alone": (
        {f"{CREDENTIAL}SourceType": "StoreWithThumbprint"},
        f"{CREDENTIAL}SourceType",
        (
            "StoreWithThumbprint is not supported: mount the certificate as a file and use "
            "SourceType=Path"
        ),
    ),
    "instance that is no URL": (
        {
            "AzureAd__Instance": "https://x:y",
            f"{CREDENTIAL}SourceType": "SignedAssertionFromManagedIdentity",
            f"{CREDENTIAL}TokenExchangeUrl": "api://AzureADTokenExchange",
        },
        "AzureAd__Instance",
        (
            "found 'https://x:y': expected an https URL without tenant or path, such as "
            "https://login.microsoftonline.com"
        ),
    ),
    "agent user for all without agent": (
        {"AzureAd__AgentUsername": "a@b"},
        "AzureAd__AgentUsername",
        "names the user account of an agent, and no AgentIdentity names the agent",
    ),
    "another exchange resource": (
        {
            f"{CREDENTIAL}SourceType": "SignedAssertionFromManagedIdentity",
            f"{CREDENTIAL}TokenExchangeUrl": "api://AzureADTokenExchangeChina",
        },
        f"{CREDENTIAL}TokenExchangeUrl",
        "found 'api://AzureADTokenExchangeChina': expected api://AzureADTokenExchange, or nothing",
    ),
    "one token file by two names": (
        {
            f"{CREDENTIAL}SourceType": "SignedAssertionFilePath",
            f"{CREDENTIAL}SignedAssertionFilePath": "/token",
            f"{CREDENTIAL}SignedAssertionFileDiskPath": "/other",
        },
        f"{CREDENTIAL}SignedAssertionFilePath",
        (
            f"is not {CREDENTIAL}SignedAssertionFileDiskPath, which is the same setting: "
            "expected one of the two"
        ),
    ),
    "misspelt key": (
        {"AzureAd__Scops": "a"},
        "AzureAd__Scops",
        "is not known; did you mean AzureAd__Scopes?",
    ),
    "misspelt part in the middle": (
        {"AzureAd__ClientCredential__0__ClientSecret": "a"},
        "AzureAd__ClientCredential__0__ClientSecret",
        "is not known; did you mean AzureAd__ClientCredentials__N__ClientSecret?",
    ),
    "misspelt section": (
        {"DownstreamApi__graph__Scopes": "a"},
        "DownstreamApi__graph__Scopes",
        "is not known; did you mean DownstreamApis__…?",
    ),
    "one key twice": (
        {"AZUREAD__TENANTID": OTHER},
        "AZUREAD__TENANTID",
        "is the same key as AzureAd__TenantId",
    ),
    "empty agent": (
        {"AzureAd__AgentIdentity": ""},
        "AzureAd__AgentIdentity",
        "is empty: expected a value, or no such variable",
    ),
    "empty scopes": (
        {"AzureAd__Scopes": ""},
        "AzureAd__Scopes",
        "is empty: expected a value, or no such variable",
    ),
    "agent that is no GUID": (
        {f"{API}AgentIdentity": "x"},
        f"{API}AgentIdentity",
        "found 'x': expected a GUID such as 11111111-2222-3333-4444-555555555555",
    ),
    "agent user that is no GUID": (
        {f"{API}AgentIdentity": AGENT, f"{API}AgentUserId": "a@b", f"{API}RequestAppToken": None},
        f"{API}AgentUserId",
        "found a mapping: expected a GUID such as 11111111-2222-3333-4444-555555555555",
    ),
    "agent user without agent": (
        {f"{API}AgentUsername": "a@b"},
        f"{API}AgentUsername",
        "names the user account of an agent, and no AgentIdentity names the agent",
    ),
    "agent user by two names": (
        {
            f"{API}AgentIdentity": AGENT,
            f"{API}AgentUsername": "a@b",
            f"{API}AgentUserId": OTHER,
            f"{API}RequestAppToken": None,
        },
        f"{API}AgentUserId",
        f"{API}AgentUsername is given as well: expected one of the two",
    ),
    "app token of an agent user": (
        {f"{API}AgentIdentity": AGENT, f"{API}AgentUsername": "a@b"},
        f"{API}RequestAppToken",
        "found true: an agent's user account has no app tokens",
    ),
    "app token that is neither": (
        {f"{API}RequestAppToken": "1"},
        f"{API}RequestAppToken",
        "found '1': expected true or false",
    ),
    "base URL without scheme": (
        {f"{API}BaseUrl": "graph.microsoft.com"},
        f"{API}BaseUrl",
        "expected a URL with scheme and host, such as https://graph.microsoft.com/v1.0",
    ),
    "base URL with a wildcard": (
        {f"{API}BaseUrl": "https://*.contoso.com/"},
        f"{API}BaseUrl",
        "expected a URL with scheme and host, such as https://graph.microsoft.com/v1.0",
    ),
    "base URL with a bad port": (
        {f"{API}BaseUrl": "https://graph.microsoft.com:x"},
        f"{API}BaseUrl",
        "expected a URL with scheme and host, such as https://graph.microsoft.com/v1.0",
    ),
    "another tenant": (
        {f"{API}AcquireTokenOptions__Tenant": OTHER},
        f"{API}AcquireTokenOptions__Tenant",
        "is not AzureAd__TenantId: for a client in another tenant use a configuration file",
    ),
    "another scheme": (
        {f"{API}ProtocolScheme": "MTLS_POP"},
        f"{API}ProtocolScheme",
        "found 'MTLS_POP': expected Bearer",
    ),
    "claims that are no object": (
        {f"{API}AcquireTokenOptions__Claims": "x"},
        f"{API}AcquireTokenOptions__Claims",
        "found 'x': expected a JSON object, as text or as a mapping",
    ),
    "log level": (
        {"Logging__LogLevel__Default": "Loud"},
        "Logging__LogLevel__Default",
        "found 'Loud': expected 'debug', 'info', 'warning' or 'error'",
    ),
    "own variable": (
        {"AUTHZ_LISTEN_GRPC": "x"},
        "AUTHZ_LISTEN_GRPC",
        (
            "found 'x': expected an address: host:port or unix:/PATH, with the port after the host, such as "
            "127.0.0.1:9901"
        ),
    ),
}


@pytest.mark.parametrize(("changes", "path", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_fault_names_the_variable_that_should_change(
    changes: dict[str, str | None], path: str, message: str
) -> None:
    """Never the path inside of a file that is not there."""
    assert [(path, message)] == faults(**changes)


@pytest.mark.parametrize(
    "key", [key for key in KEYS if key.use is Use.REFUSED], ids=lambda key: key.name
)
def test_keys_that_would_change_the_answer_are_refused(key: Any) -> None:
    """Whatever they say, as long as they say something."""
    name = key.name.replace("NAME", "graph").replace("*", "0__X")
    assert [(name, key.meaning)] == faults(**{name: "x"})
    assert read() == read(**{name: ""})


@pytest.mark.parametrize(
    "key", [key for key in KEYS if key.use is Use.IGNORED], ids=lambda key: key.name
)
def test_keys_without_effect_are_reported_and_change_nothing(key: Any) -> None:
    """The configuration is the same as without them."""
    name = key.name.replace("NAME", "graph").replace("__N__", "__0__").replace("*", "X__Y")
    assert Notice(name, f"has no effect: {key.meaning}") in notices(**{name: "x"})
    assert read() == read(**{name: "x"})


def test_a_key_that_nobody_knows_is_reported() -> None:
    """It is like nothing we read, so it is no misspelling."""
    notice = Notice("AzureAd__CallbackPath", "is not known and has no effect")
    assert notice in notices(AzureAd__CallbackPath="/x")


def test_variables_of_others_are_left_alone() -> None:
    """Only sections of the sidecar count, and what Kubernetes adds for a Service called authz does not."""
    others = {
        "Serilog__MinimumLevel": "x",
        "AUTHZ_PORT": "tcp://10.0.0.1:9901",
        "AUTHZ_SERVICE_HOST": "10.0.0.1",
        "Azure__Something": "y",
    }
    assert load(None, SEED).warnings == load(None, {**SEED, **others}).warnings


@pytest.mark.parametrize("variable", ["AUTHZ_CA_FILE", "AUTHZ_API_CA_FILE"])
def test_a_file_that_cannot_be_used_is_named_by_its_variable(variable: str, tmp_path: Path) -> None:
    """Who configures by the environment has no keys of YAML to look at."""
    (tmp_path / "ca.pem").write_text("garbage")
    environ = {**SEED, variable: str(tmp_path / "ca.pem")}
    found = faults_of(lambda: load(None, environ, to_serve=True))
    assert [variable] == [fault.path for fault in found]


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("AUTHZ_LISTEN_WORKERS", "listen.workers"),
        ("AUTHZ_LISTEN_DRAIN_DELAY", "listen.drain_delay"),
        ("AUTHZ_LOG_FORMAT", "log.format"),
        ("AUTHZ_RELOAD_INTERVAL", "reload_interval"),
        ("AUTHZ_HTTPS_LIFETIME", "https.lifetime"),
        ("AUTHZ_LISTEN_TLS_KEY_FILE", "listen.tls.key_file"),
        ("AUTHZ_CACHE_TOKENS_MAX_ENTRIES", "cache.tokens.max_entries"),
    ],
)
def test_a_variable_that_is_called_as_a_key_is_reported(variable: str, key: str) -> None:
    """Who sets it believes that it counts; few keys have a variable."""
    expected = Notice(variable, f"has no effect: expected {key} in a configuration file")
    assert expected in load(None, {**SEED, variable: "4"}).warnings


def test_no_key_is_named_that_stands_below_a_name() -> None:
    """There is no `agents.blueprint`: it is that of some agent."""
    assert load(None, SEED).warnings == load(None, {**SEED, "AUTHZ_AGENTS_BLUEPRINT": "x"}).warnings


def test_a_misspelt_variable_of_our_own_is_reported() -> None:
    """It would be lost silently otherwise."""
    expected = Notice(
        "AUTHZ_LISTEN_GPRC", "is not known and has no effect; did you mean 'AUTHZ_LISTEN_GRPC'?"
    )
    assert expected in load(None, {**SEED, "AUTHZ_LISTEN_GPRC": "x"}).warnings


def test_all_faults_are_reported_at_once() -> None:
    """Those of keys, of values and of rules between keys."""
    found = faults(
        AzureAd__TenantId="x",
        AzureAd__Authority="y",
        DownstreamApis__graph__RequestAppToken="z",
        DownstreamApis__other__BaseUrl="https://other:x",
    )
    assert {
        "AzureAd__TenantId",
        "AzureAd__Authority",
        "DownstreamApis__graph__RequestAppToken",
        "DownstreamApis__other__BaseUrl",
    } == {path for path, _ in found}


def test_keys_of_the_table_are_told_apart() -> None:
    """No key of the table hides a later one that means something else."""
    for key in KEYS:
        path = split(key.name.replace("*", "x"))
        first = next(known for known in KEYS if known.matches(path))
        assert key.use is first.use


def test_secrets_stay_in_the_environment() -> None:
    """Neither the configuration nor its faults, notices or policy hold one."""
    secrets = {
        f"{CREDENTIAL}ClientSecret": "hunter2",
        "AzureAd__ClientCredentials__1__SourceType": "Path",
        "AzureAd__ClientCredentials__1__CertificateDiskPath": "/c",
        "AzureAd__ClientCredentials__1__CertificatePassword": "hunter2",
        "AzureAd__ClientCredentials__2__SourceType": "Base64Encoded",
        "AzureAd__ClientCredentials__2__Base64EncodedValue": "hunter2",
    }
    loaded = load(None, environ(**secrets))
    assert "hunter2" not in repr(loaded) + str(loaded.config) + loaded.config.model_dump_json()
    assert "hunter2" not in repr(compile_policy(loaded.config))
    with pytest.raises(ConfigError) as raised:
        load(None, environ(**secrets, AzureAd__ClientSecret="hunter2", AzureAd__TenantId="x"))
    assert "hunter2" not in str(raised.value) + repr(raised.value)


DOMAIN = "contoso.onmicrosoft.com"


def test_a_tenant_by_domain_name_serves_nobody_until_its_id_is_known() -> None:
    """In place of the id is one that no tenant has, in every route; a notice says what happens."""
    config, found = read_environment(environ(AzureAd__TenantId=DOMAIN))

    assert NO_TENANT == config.blueprints["default"].tenant_id
    assert [] == issuers(config)
    assert OTHER in {one.tenant_id for one in issuers(read(AzureAd__TenantId=OTHER))}
    assert DOMAIN not in str(config)
    said = [notice.message for notice in found if notice.path == "AzureAd__TenantId"]
    assert 1 == len(said)
    assert said[0].startswith(
        f"is the domain {DOMAIN!r}: the tenant's id is looked up at the start"
    )


def test_a_tenant_whose_name_is_known_is_configured_by_its_id() -> None:
    """As if the id had been written; names are taken in any case."""
    by_name, _ = read_environment(environ(AzureAd__TenantId=DOMAIN.upper()), {DOMAIN: OTHER})

    assert read(AzureAd__TenantId=OTHER) == by_name


@pytest.mark.parametrize("tenant", [DOMAIN, OTHER.upper()])
def test_an_api_may_name_the_same_tenant_either_way(tenant: str) -> None:
    """By the name that is configured, or by the id that was found."""
    given = environ(AzureAd__TenantId=DOMAIN, **{f"{API}AcquireTokenOptions__Tenant": tenant})

    config, _ = read_environment(given, {DOMAIN: OTHER})

    assert OTHER == config.blueprints["default"].tenant_id


def test_an_api_of_another_tenant_is_a_fault_once_the_id_is_known() -> None:
    """As where the id is configured."""
    given = environ(AzureAd__TenantId=DOMAIN, **{f"{API}AcquireTokenOptions__Tenant": TENANT})

    found = faults_of(lambda: read_environment(given, {DOMAIN: OTHER}))

    assert [f"{API}AcquireTokenOptions__Tenant"] == [fault.path for fault in found]


def test_an_apis_tenant_is_compared_when_the_id_is_known() -> None:
    """Whether it is the same one cannot be told before, and nobody is served."""
    config = read(AzureAd__TenantId=DOMAIN, **{f"{API}AcquireTokenOptions__Tenant": OTHER})

    assert NO_TENANT == config.blueprints["default"].tenant_id


@pytest.mark.parametrize(
    ("changes", "name", "text"),
    [
        (
            {"AzureAd__AgentIdentity": None, "DownstreamApis__graph__RequestAppToken": None},
            "DownstreamApis__graph",
            "Envoy's calls for users will be refused where that client is a blueprint",
        ),
        (
            {
                "AzureAd__AgentIdentity": "33333333-0000-4000-8000-000000000033",
                "DownstreamApis__graph__RequestAppToken": "true",
            },
            "DownstreamApis__graph__RequestAppToken",
            "for Envoy, graph is called as the agent itself, for every caller",
        ),
    ],
)
def test_what_the_variables_mean_for_envoy_is_said(
    changes: dict[str, str | None], name: str, text: str
) -> None:
    """Callers of the HTTP API decide that with each call; Envoy's requests have no such parameters."""
    assert [True] == [text in each.message for each in notices(**changes) if each.path == name]
