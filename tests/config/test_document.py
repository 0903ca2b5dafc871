"""YAML documents that are read: values, defaults, environment references, overrides."""

from pathlib import Path
from typing import Any

import pytest

from authz.config.consistency.checks import check
from authz.config.faults import ConfigError, Fault
from authz.config.model import Config
from authz.config.reading.document import parse
from authz.config.sections.clients import (
    Agent,
    Blueprint,
    Certificate,
    ClientSecret,
    FederatedToken,
    KeyVault,
    ManagedIdentity,
)
from authz.config.sections.listen import Listen
from authz.core.exchange import AgentUser
from authz.core.request import Direction
from authz.core.route import PeerSource
from config.samples import AGENT, APP, BASE, CLIENT, DELETED, TENANT, changed, faults_of, load_data


def test_defaults_are_those_of_a_sidecar() -> None:
    """A configuration of routes alone listens where only the pod can reach it."""
    config = load_data(BASE)
    assert Listen() == config.listen
    assert "unix:/run/authz/authz.sock" == config.listen.grpc
    assert "/run/authz/authz.sock" == config.listen.socket_path
    assert "127.0.0.1:9902" == config.listen.admin
    assert "https://login.microsoftonline.com" == config.entra.authority
    assert (3.0, 10.0, 15.0) == (
        config.entra.connect_timeout,
        config.entra.timeout,
        config.entra.exchange_timeout,
    )
    assert 64 * 1024**2 == config.cache.tokens.max_bytes
    assert 49152 == config.limits.max_token_bytes
    assert 0.05 == config.limits.deadline_margin
    assert 5.0 == config.reload_interval


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("250ms", 0.25),
        ("30s", 30.0),
        ("1.5m", 90.0),
        ("1h", 3600.0),
        (7, 7.0),
        (0.5, 0.5),
        (0, 0.0),
    ],
)
def test_durations_are_seconds_whatever_the_unit(written: Any, expected: float) -> None:
    """Text with a unit, or a plain number of seconds."""
    assert expected == load_data(changed({"listen.drain_delay": written})).listen.drain_delay


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("65536", 65536),
        ("65536B", 65536),
        ("64KiB", 65536),
        ("1MiB", 1048576),
        ("1GiB", 2**30),
        (65536, 65536),
    ],
)
def test_sizes_are_bytes_whatever_the_unit(written: Any, expected: int) -> None:
    """Text with a unit, or a plain number of bytes."""
    config = load_data(changed({"cache.tokens.max_bytes": written}))
    assert expected == config.cache.tokens.max_bytes


def test_scalars_mean_what_they_look_like() -> None:
    """No octal numbers, no `yes` for true, no sexagesimal times: only the core schema of YAML."""
    text = """
    listen: {socket_mode: 0660, socket_group: yes}
    inbound: {on: {audiences: [1.0x], tenants: [11111111-0000-4000-8000-000000000001]}}
    egress: {12: {flow: none, hosts: [10.0.0.1:80]}}
    """
    config = parse(text, {})
    assert ("0660", "yes") == (config.listen.socket_mode, config.listen.socket_group)
    assert ["on"] == list(config.inbound)
    assert ("10.0.0.1:80",) == config.egress["12"].hosts


def test_an_empty_section_is_an_absent_one() -> None:
    """`log:` above lines that are commented out."""
    text = "log:\ncache:\n  tokens:\napplications:\negress:\n  a: {flow: none}\n"
    assert Config.model_validate({"egress": {"a": {"flow": "none"}}}) == parse(text, {})


def test_admin_can_be_turned_off_with_null() -> None:
    """Nothing but Envoy talks to the service then."""
    assert load_data(changed({"listen.admin": None})).listen.admin is None


def test_identifiers_are_kept_in_lower_case() -> None:
    """GUIDs and hosts are compared with what Entra and Envoy write in lower case."""
    config = load_data(
        changed(
            {
                "blueprints.support.client_id": "ABCDEF00-0000-4000-8000-00000000000A",
                "egress.graph.hosts": ["Graph.Microsoft.COM", "*.EXAMPLE.com", "[::FFFF]:8443"],
                "entra.authority": "https://LOGIN.microsoftonline.us/",
            }
        )
    )
    assert "abcdef00-0000-4000-8000-00000000000a" == config.blueprints["support"].client_id
    assert ("graph.microsoft.com", "*.example.com", "[::ffff]:8443") == config.egress["graph"].hosts
    assert "https://login.microsoftonline.us" == config.entra.authority


def test_hosts_are_kept_as_requests_name_them() -> None:
    """TLS needs no scheme, and a client leaves out the default port of the scheme."""
    written = [
        "https://A.example:443",
        "b.example:443",
        "http://MCP:80",
        "http://mcp:443",
        "http://*",
    ]
    config = load_data(changed({"egress.tools": {"flow": "none", "hosts": written}}))

    expected = ("a.example", "b.example", "http://mcp", "http://mcp:443", "http://*")
    assert expected == config.egress["tools"].hosts


@pytest.mark.parametrize(
    "host", ["http://localhost:8080", "http://127.0.0.1", "http://[::1]:80", "http://127.9.9.9:1"]
)
def test_token_may_stay_on_the_machine_without_tls(host: str) -> None:
    """There is no network that somebody could see: only the switch for loopback is needed."""
    changes = {
        "egress.graph.hosts": [host],
        "egress.graph.downstream": {"base_url": host},
        "egress.graph.token_to_loopback": True,
    }
    assert load_data(changed(changes)).egress["graph"].hosts


def test_credentials_keep_their_order_and_say_what_they_are() -> None:
    """Each form of each kind, and null where a kind needs nothing said."""
    entries = [
        {"federated_token": {"file": "/token"}},
        {"client_secret": {"env": "SECRET"}},
        {"certificate": {"file": "/cert.pfx", "password_env": "PASSWORD", "send_x5c": True}},
        {"certificate": {"env": "CERTIFICATE", "password_file": "/password"}},
        {"key_vault": {"url": "https://v.vault.azure.net", "certificate": "desk"}},
        {"managed_identity": {"client_id": CLIENT}},
        {"managed_identity": None},
    ]
    config = load_data(changed({"blueprints.support.credentials": entries}))
    expected = (
        FederatedToken(file=Path("/token")),
        ClientSecret(env="SECRET"),
        Certificate(file=Path("/cert.pfx"), password_env="PASSWORD", send_x5c=True),
        Certificate(env="CERTIFICATE", password_file=Path("/password")),
        KeyVault(url="https://v.vault.azure.net", certificate="desk"),
        ManagedIdentity(client_id=CLIENT),
        ManagedIdentity(),
    )
    assert expected == config.blueprints["support"].credentials


def test_workload_identity_gives_the_credential_that_nobody_wrote() -> None:
    """The azure-workload-identity webhook sets the variable; the file then needs no credentials."""
    data = changed({"blueprints.support.credentials": DELETED})
    config = load_data(data, {"AZURE_FEDERATED_TOKEN_FILE": "/var/run/token"})
    expected = (FederatedToken(file=Path("/var/run/token")),)
    assert expected == config.blueprints["support"].credentials


def test_a_mounted_file_is_the_credential_that_nobody_wrote() -> None:
    """Our own variables go before the webhook's, which also stands in pods that never asked for it."""
    data = changed({"blueprints.support.credentials": DELETED})
    environ = {"AZURE_FEDERATED_TOKEN_FILE": "/var/run/token", "AUTHZ_CLIENT_SECRET_FILE": "/s"}
    both = {**environ, "AUTHZ_CERTIFICATE_FILE": "/c.pem"}
    empty = {**environ, "AUTHZ_CLIENT_SECRET_FILE": ""}

    found = [
        load_data(data, given).blueprints["support"].credentials for given in (environ, both, empty)
    ]

    assert [
        (ClientSecret(file=Path("/s")),),
        (Certificate(file=Path("/c.pem")),),
        (FederatedToken(file=Path("/var/run/token")),),
    ] == found


def test_a_written_credential_goes_before_the_environments() -> None:
    """The variables are for clients without credentials, and do not add to those of others."""
    environ = {"AUTHZ_CLIENT_SECRET_FILE": "/s", "AUTHZ_CERTIFICATE_FILE": "/c.pem"}

    written = load_data(changed({}), environ).blueprints["support"].credentials

    assert load_data(changed({}), {}).blueprints["support"].credentials == written


def test_workload_identity_gives_the_authority_and_the_file_goes_before_it() -> None:
    """`AZURE_AUTHORITY_HOST` is a default, for a file with and without section `entra`."""
    environ = {"AZURE_AUTHORITY_HOST": "https://login.microsoftonline.us/"}
    for changes, expected in (
        ({}, "https://login.microsoftonline.us"),
        ({"entra.timeout": 5}, "https://login.microsoftonline.us"),
        ({"entra.authority": "https://localhost:8443"}, "https://localhost:8443"),
    ):
        assert expected == load_data(changed(changes), environ).entra.authority


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("mailbot@contoso.example", AgentUser(username="mailbot@contoso.example")),
        (APP.upper(), AgentUser(object_id=APP)),
        ({"username": "m@c"}, AgentUser(username="m@c")),
        ({"object_id": APP}, AgentUser(object_id=APP)),
    ],
)
def test_an_agent_user_is_named_by_what_the_text_looks_like(
    written: Any, expected: AgentUser
) -> None:
    """A user principal name has an @, an object id is a GUID."""
    config = load_data(changed({"agents.assistant.agent_user": written}))
    assert expected == config.agents["assistant"].agent_user


@pytest.mark.parametrize("written", [{"b": [1], "a": {}}, '{ "a": {}, "b": [1] }'])
def test_claims_have_one_spelling_for_each_meaning(written: Any) -> None:
    """The text is part of the cache key."""
    config = load_data(changed({"egress.graph.claims": written}))
    assert '{"a":{},"b":[1]}' == config.egress["graph"].claims


def test_references_stand_for_variables_anywhere_in_the_values() -> None:
    """Every kind of value can come from a ConfigMap."""
    environ = {"TENANT": TENANT, "N": "7", "SPAN": "2m", "SCOPE": "read", "SIZE": "2KiB"}
    changes = {
        "blueprints.support.tenant_id": "${TENANT}",
        "limits.exchanges": "${N}",
        "limits.max_token_bytes": "${SIZE}",
        "reload_interval": "${SPAN}",
        "inbound.chat.scopes": ["${SCOPE}", "$scope"],
    }
    config = load_data(changed(changes), environ)
    assert TENANT == config.blueprints["support"].tenant_id
    assert (7, 2048, 120.0) == (
        config.limits.exchanges,
        config.limits.max_token_bytes,
        config.reload_interval,
    )
    assert (("read", "$scope"),) == config.inbound["chat"].scopes


@pytest.mark.parametrize(
    ("value", "expected"),
    [("access_agent", ("access_agent",)), ("read  write", ("read", "write"))],
)
def test_one_variable_may_give_several_scopes(value: str, expected: tuple[str, ...]) -> None:
    """Separated by blanks, as a token request has them: a deployment need not change the file."""
    config = load_data(changed({"inbound.chat.scopes": ["${SCOPE}"]}), {"SCOPE": value})

    assert (expected,) == config.inbound["chat"].scopes


def test_one_variable_may_give_several_scopes_of_a_mapping() -> None:
    """Of `any` one of them is enough, and of `all` each is needed."""
    scopes = {"any": ["${SCOPE}"], "all": ["${SCOPE}", "delete"]}
    config = load_data(changed({"inbound.chat.scopes": scopes}), {"SCOPE": "read write"})

    assert (("read", "write"), ("read",), ("write",), ("delete",)) == config.inbound["chat"].scopes


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize(
    ("scopes", "path"),
    [
        (["${SCOPE}"], "inbound.chat.scopes.0"),
        ({"any": ["${SCOPE}"]}, "inbound.chat.scopes.any.0"),
        ({"any": ["read"], "all": ["${SCOPE}"]}, "inbound.chat.scopes.all.0"),
    ],
)
def test_a_variable_without_a_scope_is_a_fault(scopes: object, path: str, value: str) -> None:
    """It must not become an empty list, which would demand nothing."""
    with pytest.raises(ConfigError) as refusal:
        load_data(changed({"inbound.chat.scopes": scopes}), {"SCOPE": value})

    assert [path] == [fault.path for fault in refusal.value.faults]


def test_own_variables_go_before_the_file() -> None:
    """An image or a pod can move the listener without another file."""
    environ = {
        "AUTHZ_LISTEN_GRPC": "127.0.0.1:9901",
        "AUTHZ_LISTEN_ADMIN": "off",
        "AUTHZ_LISTEN_CHECKS": "off",
        "AUTHZ_LISTEN_DIRECTION": "egress",
        "AUTHZ_CA_FILE": "/ca.pem",
        "AUTHZ_API_CA_FILE": "/apis.pem",
        "AUTHZ_LOG_LEVEL": "",
    }
    file = {"listen.grpc": "unix:/x", "listen.checks": "unix:/y", "log.level": "debug"}
    config = load_data(changed(file), environ)
    assert "127.0.0.1:9901" == config.listen.grpc
    assert (None, None) == (config.listen.admin, config.listen.checks)
    assert Direction.EGRESS is config.listen.direction
    assert (Path("/ca.pem"), Path("/apis.pem")) == (config.entra.ca_file, config.api.ca_file)
    assert "debug" == config.log.level.value


def test_own_variables_stand_for_the_whole_of_https() -> None:
    """So a pod can have it with a file that says nothing of it."""
    environ = {
        "AUTHZ_HTTPS_CA_FILE": "/trust/ca.pem",
        "AUTHZ_HTTPS_BUNDLE_FILE": "/trust/bundle.pem",
        "AUTHZ_HTTPS_TRUSTSTORE_FILE": "/trust/store.p12",
        "AUTHZ_HTTPS_KEY_FILE": "/key/ca.key",
    }
    socket = changed({"listen.grpc": "unix:/x"})
    https = load_data(socket, environ).https
    assert https is not None
    assert list(environ.values()) == [
        str(file)
        for file in (https.ca_file, https.bundle_file, https.truststore_file, https.key_file)
    ]
    assert load_data(socket).https is None
    with pytest.raises(ConfigError, match=r"https\.key_file"):
        load_data(socket, {"AUTHZ_HTTPS_CA_FILE": "/trust/ca.pem"})


def test_a_configuration_cannot_be_changed() -> None:
    """A new version is a new object."""
    config = load_data(BASE)
    with pytest.raises(ValueError, match="frozen"):
        config.reload_interval = 1.0


def test_workloads_are_fine_where_they_can_prove_themselves() -> None:
    """By client certificate, or by Envoy's word."""
    workloads = {"agents.assistant.workloads": ["spiffe://cluster.local/ns/a/sa/b"]}
    tls = {"certificate_file": "/a", "key_file": "/b", "client_ca_file": "/c"}
    by_connection = load_data(
        changed({**workloads, "listen": {"grpc": "0.0.0.0:9901", "tls": tls, "workers": 4}})
    )
    by_envoy = load_data(changed({**workloads, "listen.workload_identity": "source_principal"}))
    assert PeerSource.CONNECTION is by_connection.listen.workload_identity
    assert PeerSource.SOURCE_PRINCIPAL is by_envoy.listen.workload_identity


def test_a_document_that_would_do_is_refused_for_how_it_is_written() -> None:
    """Which of two values was meant, nobody knows."""
    faults = faults_of(lambda: parse("egress:\n  a: {flow: none}\nlog: {}\nlog: {}\n", {}))
    assert [Fault("log", "is a duplicate key: line 3 has it already", 4)] == faults


def test_a_configuration_can_be_built_from_its_parts() -> None:
    """For programs that have no document: the same values. The rules of several keys are asked by reading."""
    config = load_data(changed({"agents.assistant.agent_user": "a@b"}))
    parts = {name: getattr(config, name) for name in type(config).model_fields}
    assert config == Config(**parts)
    support = config.blueprints["support"]
    assert support == Blueprint(tenant_id=TENANT, client_id=CLIENT, credentials=support.credentials)
    assert config.agents["assistant"] == Agent(
        blueprint="support", agent_identity=AGENT, agent_user=AgentUser(username="a@b")
    )
    assert check(config, {}) == []
    assert check(Config(), {}) != []
