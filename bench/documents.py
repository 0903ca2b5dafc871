"""The service's configuration in each scene: defaults, but for what a scene is about."""

import json
import uuid
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from authz_dev.demo.processes import free_ports
from bench.entra import Entra
from bench.population import APIS
from bench.upstream import GUARDED

DELEGATED_HOST: Final = "delegated.example"
RULED_HOST: Final = "ruled.example"
APP_ONLY_HOST: Final = "app-only.example"
DELEGATED: Final = "delegated"
RULED: Final = "ruled"
APP_ONLY: Final = "app-only"
INBOUND: Final = "agent"

_RULES: Final = (
    {"name": "no-settings", "paths": ["/v1.0/users/{id}/mailboxSettings"], "deny": True},
    {"name": "users", "methods": ["GET"], "paths": ["/v1.0/users/{id}/**"]},
    {"name": "send", "methods": ["POST"], "paths": ["/v1.0/me/sendMail"]},
    {"name": "read", "methods": ["GET"], "paths": ["/v1.0/me", GUARDED]},
)
"""The last one allows what is measured."""


def document(
    entra: Entra,
    folder: Path,
    *,
    grpc: str,
    agents: Iterable[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return a configuration with a delegated route, one with rules, an app-only one, and one for each API.

    Args:
        entra: Whom to ask.
        folder: Where the secret goes.
        grpc: Where to listen.
        agents: Client ids of further agents; the route of each is named like it.
        more: Top-level sections to add.
    """
    secret = folder / "secret"
    secret.write_text(entra.blueprint["client_secret"])
    graph = APIS["graph"]
    return {
        "listen": {"grpc": grpc, "admin": f"127.0.0.1:{free_ports(1)[0]}"},
        "entra": {
            "authority": entra.authority,
            "ca_file": str(entra.ca_file),
            # What a cold request costs is asked for by that request.
            "prove_credentials": False,
        },
        "blueprints": {
            "blueprint": {
                "tenant_id": entra.tenant_id,
                "client_id": entra.blueprint["client_id"],
                "credentials": [{"client_secret": {"file": str(secret)}}],
            }
        },
        "agents": {
            "agent": _agent(entra.agent),
            **{agent: _agent(agent) for agent in agents},
        },
        "inbound": {INBOUND: {"agent": "agent"}},
        "egress": {
            DELEGATED: {**_delegated("agent", graph), **_plain(DELEGATED_HOST)},
            RULED: {**_delegated("agent", graph), **_plain(RULED_HOST), "rules": _RULES},
            APP_ONLY: {**_app_only(), **_plain(APP_ONLY_HOST)},
            **{name: _delegated("agent", scope) for name, scope in APIS.items()},
            **{agent: _delegated(agent, graph) for agent in agents},
        },
        **more,
    }


def large(entra: Entra, folder: Path, *, grpc: str, number: int) -> dict[str, Any]:
    """Return a configuration with so many further blueprints, agents and routes with hosts."""
    config = document(entra, folder, grpc=grpc)
    credentials = config["blueprints"]["blueprint"]["credentials"]
    for turn in range(number):
        config["blueprints"][f"blueprint-{turn}"] = {
            "tenant_id": entra.tenant_id,
            "client_id": str(uuid.uuid4()),
            "credentials": credentials,
        }
        config["agents"][f"agent-{turn}"] = {
            "blueprint": f"blueprint-{turn}",
            "agent_identity": str(uuid.uuid4()),
        }
        config["egress"][f"route-{turn}"] = {
            **_delegated(f"agent-{turn}", f"api://api-{turn}/.default"),
            "hosts": [f"api-{turn}.example"],
        }
    return config


def pushed(entra: Entra, folder: Path, *, grpc: str, number: int) -> dict[str, Any]:
    """Return a configuration with so many routes whose tokens are pushed, each with a host of its own.

    The hosts are addresses (RFC 2544, for benchmarks), because Envoy's start waits for answers about names.
    """
    config = document(entra, folder, grpc=grpc)
    first = IPv4Address("198.18.0.0")
    routes = {
        f"route-{turn}": {**_app_only(), "hosts": [str(first + turn)]} for turn in range(number)
    }
    return {**config, "inbound": {}, "egress": routes}


def of_envoy(config: Mapping[str, Any], *, ruled: bool = False, **more: Any) -> dict[str, Any]:
    """Return what Envoy's egress listener is rendered from: routes with hosts; sections may be added.

    The delegated route is the one with rules or the one without: where one route of a listener has rules,
    Envoy looks at each request's headers.
    """
    absent = DELEGATED if ruled else RULED
    egress = {
        name: route
        for name, route in config["egress"].items()
        if "hosts" in route and name != absent
    }
    agents = {
        name: config["agents"][name] for name in {route["agent"] for route in egress.values()}
    }
    return {**config, "inbound": {}, "agents": agents, "egress": egress, **more}


def write(config: Mapping[str, Any], file: Path) -> Path:
    """Write a configuration (JSON is YAML) and return where."""
    file.write_text(json.dumps(config))
    return file


def _agent(client_id: str) -> dict[str, str]:
    return {"blueprint": "blueprint", "agent_identity": client_id}


def _delegated(agent: str, scope: str) -> dict[str, Any]:
    return {"flow": "on_behalf_of", "agent": agent, "scopes": [scope]}


def _app_only() -> dict[str, Any]:
    return {"flow": "autonomous", "agent": "agent", "scopes": [APIS["graph"]]}


def _plain(host: str) -> dict[str, Any]:
    """Return the keys of a host that is the upstream server: TLS is no part of what is measured."""
    return {"hosts": [f"http://{host}"], "token_over_plain_http": True}
