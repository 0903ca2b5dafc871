"""The generated documents: up to date, true to the model, and the examples they show."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from authz.config import compile_policy, load
from authz.config.entra_sdk.keys import KEYS
from authz.config.model import Config
from authz.config.publish.schema import documents, json_schema, write
from config.samples import BASE, changed
from config.test_faults import CASES

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*.yaml"))
GUID = "11111111-0000-4000-8000-000000000001"
ENVIRON = dict.fromkeys(("TENANT_ID", "BLUEPRINT_CLIENT_ID", "AGENT_CLIENT_ID"), GUID)


def test_the_generated_documents_are_up_to_date(tmp_path: Path) -> None:
    """Otherwise: python -m authz.config.publish.schema docs/."""
    (tmp_path / "examples").mkdir()
    example = DOCS / "examples" / "sidecar.yaml"
    (tmp_path / "examples" / "sidecar.yaml").write_bytes(example.read_bytes())
    write(tmp_path)
    for name in documents(""):
        assert (tmp_path / name).read_text("utf-8") == (DOCS / name).read_text("utf-8"), name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_loads_without_a_warning(path: Path) -> None:
    """And compiles to a policy with routes."""
    loaded = load(path, ENVIRON)
    assert () == loaded.warnings
    assert compile_policy(loaded.config).egress


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_fits_the_json_schema(path: Path) -> None:
    """With its environment references in place."""
    Draft202012Validator(json_schema()).validate(yaml.safe_load(path.read_text("utf-8")))


def test_the_json_schema_is_one() -> None:
    """By its own meta-schema."""
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize(
    "changes",
    [
        {"listen": {"admin": None, "workers": "${WORKERS}", "direction": "${DIRECTION}"}},
        {"agents.assistant.agent_user": {"username": "a@b"}},
        {"agents.assistant.agent_user": GUID},
        {"egress.graph.claims": {"a": 1}},
        {"inbound.chat.scopes": {"any": ["a", "${SCOPE}"], "all": ["b"]}},
        {"inbound.chat.user_roles": {"all": ["b"]}, "inbound.chat.auth_context": "${CONTEXT}"},
        {"egress.graph.requires": {"scopes": ["a"], "user_roles": {"any": ["b"]}}},
        {"limits.max_token_bytes": 16384, "reload_interval": 0.5},
        {"blueprints.support": {"tenant_id": GUID, "client_id": GUID}},
        {"blueprints.support.credentials.0": {"federated_token": {}}},
    ],
)
def test_the_json_schema_admits_what_loads(changes: dict[str, Any]) -> None:
    """References, nulls, short forms, and what the environment supplies."""
    Draft202012Validator(json_schema()).validate(changed(changes))


BEYOND = (
    # Rules between keys, and bounds that JSON Schema cannot state for text with units.
    "authority of External ID", "authority of Azure AD B2C", "bad port", "long socket path", "a network with bits behind it",
    "https without a socket", "https for nobody", "accepted scope with its resource",
    "token over plain HTTP", "token over plain HTTP to anywhere", "token over plain HTTP by a call of our own",
    "token over plain HTTP without such a host", "token over plain HTTP of flow none",
    "host of both schemes", "host of both schemes by its port", "host of both schemes by other names",
    "host twice by the default port", "host without TLS beside TLS on its port", "host with TLS beside none on its port",
    "host with TLS on two ports that requests do not tell apart", "wildcards of both schemes",
    "port with zeros before it", "port of zeros", "IPv6 address in a long form", "no IPv6 address between brackets",
    "IPv4 address in IPv6",
    "api with workers", "api with two entrances", "an API elsewhere than at a URL", "wildcard host with port", "bad host port", "no routes",
    "TLS on a Unix socket", "workers on a Unix socket", "group mode without group",
    "group without group mode", "socket mode of a port", "connect timeout", "timeout",
    "deadline margin", "unknown inbound route", "unknown blueprint", "unknown agent",
    "same client, other credentials", "same agent, other blueprint", "workloads nobody can prove",
    "users of a tenant that no exchange is for", "an audience that no exchange takes",
    "an audience that another client's exchange takes", "a client capability that nobody acts on",
    "two clients called", "no audiences", "no tenants", "applications without roles",
    "applications bound to a blueprint", "agent identities without roles", "roles of users twice",
    "roles of users without users", "authentication context without users", "required scope with its resource",
    "scopes without users", "host twice", "client of another flow",
    "client of no flow", "flow without client", "two clients of a flow", "agent without user",
    "workloads of an agent route", "workloads of no flow", "scopes of no flow", "claims of no flow",
    "flow without scopes", "reserved scope", "two resources", "default scope beside others",
    "app-only flow with a delegated scope", "app-only flow with two scopes", "demands on nobody",
    "token ahead of its user", "token of a user kept on checks", "no token ahead",
    "leeway for nobody", "subject of nobody", "two sources of a secret",
    "no source of a certificate", "two passwords", "claims that are no object",
    "no credentials", "federated token without file", "prefetch of an unknown route",
    "prefetch of one route twice", "prefetch without a token",
    "prefetch of what the agent cannot ask for", "two forwards in one header",
    "subject that nobody gives", "subject that only another agent's callers are given",
    "a socket for Checks beside a port", "a socket in another spelling",
    "a socket that is a folder", "a socket in the spelling of URIs", "a socket with two slashes", "one socket for Checks and all else",
    "subject twice", "none before others", "none alone",
    "none, of which resource", "references among workers", "owners of sessions among workers",
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CASES if name not in BEYOND])
def test_the_json_schema_refuses_what_is_a_fault_by_itself(name: str) -> None:
    """Editors mark what the service would refuse."""
    assert not Draft202012Validator(json_schema()).is_valid(changed(CASES[name][0]))


def test_the_json_schema_admits_the_base_of_these_tests() -> None:
    """So each refusal above is due to its one change."""
    assert Draft202012Validator(json_schema()).is_valid(BASE)


def test_the_reference_has_every_key_with_a_meaning() -> None:
    """Each field of each section, and each environment key."""
    text = documents("")["configuration.md"]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert [] == [row[0] for row in rows if row[-1].strip(" |") == ""]
    names = {row[0].strip("| `") for row in rows}
    definitions = Config.model_json_schema()["$defs"].values()
    fields = {field for definition in definitions for field in definition.get("properties", {})}
    assert set() == fields - {part for name in names for part in name.split(".")}
    assert {key.name for key in KEYS} <= names


def test_the_schema_file_is_json() -> None:
    """For editors that fetch it."""
    assert json_schema() == json.loads((DOCS / "authz.schema.json").read_text("utf-8"))
