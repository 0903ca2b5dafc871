"""Where the configuration comes from, and when it is worth loading again."""

from pathlib import Path

import pytest

from authz.config import ConfigSource, Fault, Notice, load, missing_credentials
from config.samples import APP, BASE, CLIENT, TENANT, changed, faults_of, load_data

ENVIRON = {
    "AzureAd__TenantId": TENANT,
    "AzureAd__ClientId": CLIENT,
    "AZURE_FEDERATED_TOKEN_FILE": "/federated",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a valid configuration."""
    path = tmp_path / "authz.yaml"
    path.write_text("egress: {a: {flow: none}}\n", encoding="utf-8")
    return path


def test_a_file_goes_before_everything(file: Path, tmp_path: Path) -> None:
    """Before `AUTHZ_CONFIG`, and before the environment keys."""
    environ = {**ENVIRON, "AUTHZ_CONFIG": str(tmp_path / "absent")}
    assert ["a"] == list(load(file, environ).config.egress)


def test_the_environment_can_name_the_file(file: Path) -> None:
    """`AUTHZ_CONFIG`, for images whose command cannot change."""
    assert ["a"] == list(load(None, {**ENVIRON, "AUTHZ_CONFIG": str(file)}).config.egress)


def test_without_a_file_the_environment_configures() -> None:
    """The drop-in form; inbound only, when there is no API."""
    loaded = load(None, ENVIRON)
    assert (["default"], []) == (list(loaded.config.inbound), list(loaded.config.egress))


def test_without_either_both_ways_are_named() -> None:
    """Nobody has to look for the manual."""
    faults = faults_of(lambda: load(None, {"PATH": "/bin"}))
    text = (
        "there is none: expected a YAML file (--config FILE or AUTHZ_CONFIG=FILE), or the "
        "environment keys of the Entra SDK sidecar (AzureAd__TenantId, AzureAd__ClientId, …)"
    )
    assert [Fault("", text)] == faults


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    """With the path and what the system says of it."""
    path = tmp_path / "absent.yaml"
    expected = [Fault(str(path), "cannot be read: No such file or directory")]
    assert expected == faults_of(lambda: load(path, {}))
    assert expected == faults_of(lambda: ConfigSource(path, {}).digest())


def test_a_directory_is_a_fault(tmp_path: Path) -> None:
    """A ConfigMap mounted one level too high."""
    expected = [Fault(str(tmp_path), "cannot be read: Is a directory")]
    assert expected == faults_of(lambda: load(tmp_path, {}))


def test_a_name_that_no_file_can_have_is_a_fault() -> None:
    """NUL cannot be in a path."""
    expected = [Fault("a\0b", "cannot be read: its name cannot be used")]
    assert expected == faults_of(lambda: load(Path("a\0b"), {}))


def test_a_file_that_is_not_text_is_a_fault(file: Path) -> None:
    """UTF-8 only."""
    file.write_bytes(b"a: \xff")
    expected = [Fault("", "not valid YAML: byte 3 is not UTF-8")]
    assert expected == faults_of(lambda: load(file, {}))


def test_a_byte_order_mark_is_no_fault(file: Path) -> None:
    """Some editors write one."""
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert ["a"] == list(load(file, {}).config.egress)


def test_a_huge_file_is_a_fault(file: Path) -> None:
    """It is not read as a whole to find that out."""
    file.write_bytes(b"#" * (16 * 1024**2 + 1))
    expected = [Fault(str(file), "cannot be read: exceeds 16777216 bytes")]
    assert expected == faults_of(lambda: load(file, {}))


def test_the_digest_tells_whether_loading_again_is_worthwhile(file: Path) -> None:
    """It changes with the content and with nothing else."""
    source = ConfigSource.find(file, {})
    loaded = source.load()
    assert loaded.digest == source.digest()
    file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    assert loaded.digest == source.digest()
    file.write_text("egress: {b: {flow: none}}\n", encoding="utf-8")
    assert loaded.digest != source.digest()
    assert source.load().digest == source.digest()


def test_the_digest_of_the_environment_never_changes() -> None:
    """Nor does the environment of a process."""
    source = ConfigSource.find(None, ENVIRON)
    assert source.load().digest == source.digest()


TLS = {"certificate_file": "/a", "key_file": "/b", "client_ca_file": "/c"}
GRAPH = "https://graph.microsoft.com/.default"


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({}, []),
        ({"listen.grpc": "127.0.0.1:9901"}, []),
        ({"listen.grpc": "[::1]:9901"}, []),
        ({"listen.grpc": "localhost:9901"}, []),
        ({"listen.grpc": "0.0.0.0:9901"}, ["listen.grpc"]),
        ({"listen.grpc": "authz.internal:9901"}, ["listen.grpc"]),
        ({"listen": {"grpc": "0.0.0.0:9901", "tls": TLS}}, ["egress.graph"]),
        (
            {
                "listen": {"grpc": "0.0.0.0:9901", "tls": TLS},
                "agents.assistant.workloads": ["spiffe://a/b"],
            },
            [],
        ),
        ({"listen.api": "127.0.0.1:5000"}, []),
        ({"blueprints.support.any_agent": True}, []),
        (
            {"listen.api": "127.0.0.1:5000", "blueprints.support.any_agent": True},
            ["blueprints.support.any_agent"],
        ),
        ({"listen.api": "0.0.0.0:5000", "api.peers": ["10.0.0.0/8"]}, ["api.peers"]),
        (
            {"egress.b": {"flow": "blueprint", "blueprint": "support", "scopes": [GRAPH]}},
            [],
        ),
        (
            {"egress.b": {"flow": "app", "blueprint": "support", "scopes": ["api://x/.default"]}},
            ["egress.b.scopes"],
        ),
        (
            {"egress.b": {"flow": "app_on_behalf_of", "blueprint": "support", "scopes": [GRAPH]}},
            ["egress.b.blueprint"],
        ),
        (
            {"egress.graph.hosts": ["http://orders"], "egress.graph.token_over_plain_http": True},
            ["egress.graph.token_over_plain_http"],
        ),
        ({"egress.b": {"flow": "none", "hosts": ["http://tools"]}}, []),
        ({"inbound.chat": {"agent": "assistant"}}, ["inbound.chat.scopes"]),
        ({"inbound.chat.forward": "placeholder"}, ["egress.graph.subject"]),
        ({"inbound.chat.forward": "strip"}, ["egress.graph.subject"]),
        ({"inbound.chat.forward": ["handle", "bearer"]}, []),
        (
            {
                "inbound.chat.forward": "placeholder",
                "egress.graph.subject": ["placeholder"],
            },
            [],
        ),
        ({"inbound.chat": {"agent": "assistant", "roles": ["Call"]}}, []),
        ({"inbound.chat": {"agent": "assistant", "actors": [APP]}}, []),
        ({"inbound.chat": {"agent": "assistant", "actor_blueprints": [APP]}}, []),
        ({"inbound.chat": {"agent": "assistant", "user_roles": ["Approver"]}}, []),
        ({"inbound.chat": {"agent": "assistant", "auth_context": "c1"}}, ["inbound.chat.scopes"]),
    ],
)
def test_what_is_valid_but_doubtful_is_reported(
    tmp_path: Path, changes: dict[str, object], paths: list[str]
) -> None:
    """Listeners, routes and agents open to all; tokens that Entra does not give."""
    path = tmp_path / "authz.yaml"
    path.write_text(
        load_data(changed(changes)).model_dump_json(exclude_unset=True), encoding="utf-8"
    )
    assert paths == [notice.path for notice in load(path, {}).warnings]


def test_a_credential_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    """With the file and the cause; one that may arrive later is no fault."""
    there = tmp_path / "there"
    there.write_text("secret")
    (blank := tmp_path / "blank").write_text(" \n")
    credentials = [
        {"client_secret": {"file": str(there)}},
        {"certificate": {"file": str(there), "password_file": f"{there}.password"}},
        {"federated_token": {"file": str(tmp_path)}},
        {"client_secret": {"env": "SECRET"}},
        {"client_secret": {"file": str(blank)}},
        {"certificate": {"file": str(there), "password_file": str(blank)}},
    ]
    config = load_data(changed({"blueprints.support.credentials": credentials}))

    place, later = (
        "blueprints.support.credentials",
        "authz is not ready until this file can be read",
    )
    assert [
        Notice(
            f"{place}.1.certificate.password_file",
            f"{there}.password: No such file or directory: {later}",
        ),
        Notice(f"{place}.2.federated_token.file", f"{tmp_path}: Is a directory: {later}"),
        Notice(f"{place}.3.client_secret.env", "SECRET is not set: authz is not ready until it is"),
        Notice(
            f"{place}.4.client_secret.file",
            f"{blank}: is empty: authz is not ready until this file holds something",
        ),
    ] == list(missing_credentials(config, {}))


def test_a_notice_shows_path_and_message() -> None:
    """One line of the log."""
    assert "listen.grpc: is open" == str(Notice("listen.grpc", "is open"))


def test_what_a_configuration_dumps_loads_to_the_same(tmp_path: Path) -> None:
    """The canonical form is a configuration file."""
    config = load_data(BASE)
    path = tmp_path / "authz.yaml"
    path.write_text(config.model_dump_json(exclude_unset=True), encoding="utf-8")
    assert config == load(path, {}).config
