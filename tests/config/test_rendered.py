"""The mark covers all that Envoy's configuration is rendered from, and nothing else."""

import json
from functools import cache
from typing import Any

import pytest
import yaml

from authz.config import Config, ConfigError, ConfigSource
from authz.config.placeholders import shown_in, stand_ins
from authz.config.reading.document import parse
from authz.config.rendered import Rendered, Selection, difference, mark_of
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import SidecarSettings

ONE = "11111111-0000-4000-8000-000000000001"
TENANT = "33333333-0000-4000-8000-000000000003"
AGENT = "44444444-0000-4000-8000-000000000004"
OTHER = "22222222-0000-4000-8000-000000000002"


def document() -> dict[str, Any]:
    """A configuration with a route that is checked, one that is pushed, and one without a token."""
    return {
        "listen": {"grpc": "unix:/run/authz/authz.sock"},
        "blueprints": {
            "desk": {
                "tenant_id": TENANT,
                "client_id": ONE,
                "credentials": [{"client_secret": {"file": "/run/secret"}}],
            }
        },
        "agents": {"desk": {"blueprint": "desk", "agent_identity": AGENT}},
        "inbound": {"desk": {"agent": "desk", "scopes": ["access_agent"]}},
        "egress": {
            "graph": {
                "hosts": ["graph.microsoft.com"],
                "flow": "on_behalf_of",
                "agent": "desk",
                "scopes": ["https://graph.microsoft.com/.default"],
            },
            "nightly": {
                "hosts": ["nightly.example"],
                "flow": "autonomous",
                "agent": "desk",
                "scopes": ["api://nightly/.default"],
            },
            "tools": {"hosts": ["http://tools.example"], "flow": "none"},
        },
    }


def config(changes: dict[str, Any] | None = None) -> Config:
    """The configuration with values at dotted paths changed."""
    data = document()
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        place = data
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
    return parse(json.dumps(data), {})


def text_without_mark(found: Config) -> str:
    """What Envoy is given, but for the mark itself."""
    return render(found, SidecarSettings()).replace(mark_of(found), "")


@cache
def text_of_all() -> str:
    """That of the configuration with nothing changed."""
    return text_without_mark(config())


CHANGES: dict[str, dict[str, Any]] = {
    "a host more": {"egress.graph.hosts": ["graph.microsoft.com", "api.example"]},
    "another port": {"egress.nightly.hosts": ["nightly.example:8443"]},
    "another scheme": {"egress.tools.hosts": ["tools.example"]},
    "another route": {"egress.more": {"hosts": ["more.example"], "flow": "none"}},
    "no longer pushed": {"egress.nightly.push": False},
    "headers removed": {"egress.nightly.remove_headers": ["x-key"]},
    "a tunnel": {"inbound.desk.forward": "placeholder", "egress.tools.hosts": ["tools.example"]},
    "metadata that Envoy repeats nothing for": {"inbound.desk.resource": "https://a.example/mcp"},
    "no edge cache": {"cache.edge": {"max_ttl": 0}},
    "handles": {
        "inbound.desk.forward": "handle",
        "egress.graph.subject": ["handle"],
    },
    "https": {"https": {"ca_file": "/run/ca.crt", "key_file": "/run/ca.key"}},
    "another name of the inbound route": {
        "inbound": {"front": {"agent": "desk", "scopes": ["access_agent"]}}
    },
    "another flow, without a token": {
        "egress.nightly": {"hosts": ["nightly.example"], "flow": "none"}
    },
    "no socket": {"listen.grpc": "127.0.0.1:9901"},
    "a socket for Checks": {"listen.checks": "unix:/run/authz/checks.sock"},
}
"""What changes Envoy's configuration."""
NO_CHANGES: dict[str, dict[str, Any]] = {
    "another credential": {
        "blueprints.desk.credentials": [{"client_secret": {"file": "/run/other"}}]
    },
    "another client": {"blueprints.desk.client_id": OTHER},
    "another agent": {"agents.desk.agent_identity": OTHER},
    "other scopes": {"egress.graph.scopes": ["https://graph.microsoft.com/Mail.Read"]},
    "other scopes of callers": {"inbound.desk.scopes": ["access_as_user"]},
    "other limits": {"limits.exchanges": 8},
    "hosts as they are written": {"egress.graph.hosts": ["https://Graph.Microsoft.com:443"]},
    "what the default is": {"egress.nightly.push": True, "cache.edge": {"max_ttl": "10s"}},
}
"""What does not."""


@pytest.mark.thorough
@pytest.mark.parametrize("name", CHANGES)
def test_whatever_envoys_configuration_is_rendered_from_changes_the_mark(name: str) -> None:
    """Rendered text and mark change together, and a reload has something to say."""
    before, after = config(), config(CHANGES[name])

    assert text_of_all() != text_without_mark(after)
    assert mark_of(before) != mark_of(after)
    assert difference(Rendered.of(before), Rendered.of(after))


@pytest.mark.thorough
@pytest.mark.parametrize("name", NO_CHANGES)
def test_what_only_the_service_uses_changes_no_mark(name: str) -> None:
    """Nobody renders again for a credential, a client or a scope."""
    before, after = config(), config(NO_CHANGES[name])

    assert text_of_all() == text_without_mark(after)
    assert mark_of(before) == mark_of(after)
    assert not difference(Rendered.of(before), Rendered.of(after))


def test_a_difference_names_hosts_and_the_keys_beside_them() -> None:
    """The log of a reload can say which."""
    changes = {"egress.graph.hosts": ["api.example"], "egress.nightly.push": False}

    found = difference(Rendered.of(config()), Rendered.of(config(changes)))

    assert ("api.example",) == found.new_hosts
    assert ("graph.microsoft.com",) == found.gone_hosts
    assert ("egress.nightly.pushed",) == found.keys
    assert ("egress.tools.hosts",) == difference(
        Rendered.of(config()), Rendered.of(config(CHANGES["another scheme"]))
    ).keys


def test_a_mark_of_some_routes_ignores_the_others() -> None:
    """Where a service has several agents, a new one does not make the other agents' Envoys outdated."""
    selection = Selection("desk", ("graph",))
    more = {
        "egress.more": {"hosts": ["more.example"], "flow": "none"},
        "egress.nightly.push": False,
    }

    assert mark_of(config(), selection) == mark_of(config(more), selection)
    assert mark_of(config(), selection) != mark_of(
        config({"cache.edge": {"max_ttl": 0}}), selection
    )
    assert selection == Selection.of_mark(mark_of(config(), selection))


def test_placeholders_need_no_values_where_they_are_not_in_the_result(tmp_path: Any) -> None:
    """Identifiers and credentials; the mark is that of the pod, where they have values."""
    data = document()
    data["blueprints"]["desk"]["tenant_id"] = "${TENANT_ID}"
    data["inbound"]["desk"]["scopes"] = ["${SCOPE}"]
    data["agents"]["desk"]["agent_user"] = "${AGENT_USER}"
    del data["blueprints"]["desk"]["credentials"]
    file = tmp_path / "authz.yaml"
    file.write_text(yaml.safe_dump(data))
    values = stand_ins(ConfigSource(file, {"TENANT_ID": TENANT}))
    real = {
        "TENANT_ID": TENANT,
        "SCOPE": "read",
        "AGENT_USER": "desk@contoso.example",
        "AZURE_FEDERATED_TOKEN_FILE": "/run/token",
    }

    found = parse(file.read_text(), {"TENANT_ID": TENANT, **values})

    assert {"SCOPE", "AGENT_USER", "AZURE_FEDERATED_TOKEN_FILE"} == values.keys()
    assert mark_of(parse(file.read_text(), real)) == mark_of(found)
    assert [] == shown_in(render(found, SidecarSettings()), values)


def test_a_placeholder_that_is_in_the_result_is_found_there(tmp_path: Any) -> None:
    """A host that only the environment knows cannot be rendered without it."""
    data = document()
    data["egress"]["tools"]["hosts"] = ["${TOOLS}"]
    file = tmp_path / "authz.yaml"
    file.write_text(yaml.safe_dump(data))
    values = stand_ins(ConfigSource(file, {}))

    text = render(parse(file.read_text(), values), SidecarSettings())

    assert ["TOOLS"] == shown_in(text, values)


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Any) -> None:
    """As without stand-ins."""
    with pytest.raises(ConfigError):
        stand_ins(ConfigSource(tmp_path / "authz.yaml", {}))
