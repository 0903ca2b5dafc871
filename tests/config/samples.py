"""A small valid configuration as data, and ways to change and load it."""

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from authz.config.faults import ConfigError, Fault
from authz.config.model import Config
from authz.config.reading.document import parse

TENANT = "11111111-0000-4000-8000-000000000001"
CLIENT = "22222222-0000-4000-8000-000000000001"
AGENT = "33333333-0000-4000-8000-000000000001"
APP = "44444444-0000-4000-8000-000000000001"

BASE: dict[str, Any] = {
    "blueprints": {
        "support": {
            "tenant_id": TENANT,
            "client_id": CLIENT,
            "credentials": [{"client_secret": {"file": "/etc/authz/secret"}}],
        }
    },
    "applications": {
        "portal": {
            "tenant_id": TENANT,
            "client_id": APP,
            "credentials": [{"managed_identity": {}}],
        }
    },
    "agents": {"assistant": {"blueprint": "support", "agent_identity": AGENT}},
    "inbound": {"chat": {"agent": "assistant", "scopes": ["access_agent"]}},
    "egress": {
        "graph": {
            "hosts": ["graph.microsoft.com"],
            "flow": "on_behalf_of",
            "agent": "assistant",
            "scopes": ["https://graph.microsoft.com/.default"],
        }
    },
}

Changes = Mapping[str, Any]
DELETED = object()


def changed(changes: Changes) -> dict[str, Any]:
    """Return the base with values set at dotted paths; numbers are list positions."""
    data = copy.deepcopy(BASE)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = data
        for part in parents:
            place = place[int(part)] if part.isdecimal() else place.setdefault(part, {})
        if value is DELETED:
            del place[last]
        else:
            place[int(last) if last.isdecimal() else last] = value
    return data


def load_data(data: object, environ: Mapping[str, str] | None = None) -> Config:
    """Write the data as JSON, which is YAML as well, and load that."""
    return parse(json.dumps(data), environ or {})


def faults_of(load: Callable[[], object]) -> list[Fault]:
    """Return the faults that loading ends with."""
    with pytest.raises(ConfigError) as raised:
        load()
    return list(raised.value.faults)
