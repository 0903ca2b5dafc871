"""CORS in Envoy as we render it: beside an agent that has CORS of its own, and where it stands."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from authz.config.reading.document import parse
from authz.envoy_config.bootstrap import render
from authz.envoy_config.cors import CORS
from authz.envoy_config.settings import SidecarSettings
from support.peers.quiet_server import QuietHandler, QuietServer
from support.proxy.envoy import validate
from support.proxy.ext_authz_server import ExtAuthzServer, allow
from support.proxy.sidecar import Authority, Sidecar

APP: Final = "https://app.example.com"
OTHER: Final = "https://other.example"
CONFIGURATION: Final = f"""
inbound:
  chat:
    tenants: [11111111-0000-4000-8000-000000000001]
    audiences: [api://chat]
    cors: {{origins: [{APP}], credentials: true}}
egress: {{models: {{hosts: [models.example], flow: none}}}}
"""


class OpenAgent(QuietHandler):
    """An agent that lets every page read its answers."""

    def end_headers(self) -> None:
        """Add what it says so by."""
        self.send_header("access-control-allow-origin", "*")
        super().end_headers()

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        """Answer."""
        self.answer(b"hello")


@pytest.fixture(scope="module")
def running(authority: Authority, service: ExtAuthzServer) -> Iterator[Sidecar]:
    """Envoy before that agent."""
    agent: type[BaseHTTPRequestHandler] = OpenAgent
    with QuietServer(("127.0.0.1", 0), agent).started() as server:
        with Sidecar(
            parse(CONFIGURATION, {}),
            authz_address=service.address,
            authority=authority,
            certificates={},
            changes={"app_address": f"127.0.0.1:{server.server_address[1]}"},
        ) as sidecar:
            yield sidecar
        server.shutdown()


@pytest.mark.parametrize(("origin", "told"), [(APP, APP), (OTHER, "*")])
def test_a_named_page_gets_one_value_in_place_of_the_agents(
    running: Sidecar, service: ExtAuthzServer, origin: str, told: str
) -> None:
    """For another page the agent's own passes."""
    service.answer = lambda _: allow()

    answer = running.caller.get("/", headers={"origin": origin})

    assert (200, [told]) == (
        answer.status_code,
        answer.headers.get_list("access-control-allow-origin"),
    )
    credentials = ["true"] if origin == APP else []
    assert credentials == answer.headers.get_list("access-control-allow-credentials")


def _filters(text: str) -> list[str]:
    document: dict[str, Any] = yaml.safe_load(text)
    (inbound,) = (
        each for each in document["static_resources"]["listeners"] if each["name"] == "inbound"
    )
    manager = inbound["filter_chains"][0]["filters"][0]["typed_config"]
    return [each["name"] for each in manager["http_filters"]]


def test_the_filter_stands_first_and_only_where_it_is_configured() -> None:
    """So refusals pass it, and an Envoy without the section is as it was."""
    with_cors = _filters(render(parse(CONFIGURATION, {}), SidecarSettings()))
    configuration = "\n".join(line for line in CONFIGURATION.splitlines() if "cors" not in line)
    without = _filters(render(parse(configuration, {}), SidecarSettings()))

    assert [CORS, *without] == with_cors


@pytest.mark.parametrize("edge", ["30s", "0s"])
def test_envoy_accepts_it(authority: Authority, tmp_path: Path, edge: str) -> None:
    """With metadata beside it and every key set: `envoy --mode validate` has no error and no warning."""
    keys = "methods: [GET], headers: [x-a], expose: [], max_age: 1h, origins: ['*']"
    text = CONFIGURATION.replace(f"origins: [{APP}], credentials: true", keys)
    text = text.replace("    cors:", "    resource: https://agent.example.com/mcp\n    cors:")
    text += f"cache: {{edge: {{max_ttl: {edge}}}}}\n"
    settings = SidecarSettings(upstream_ca_file=authority.file)

    outcome = validate(render(parse(text, {}), settings), tmp_path)

    assert (0, "") == (outcome.returncode, outcome.stderr)
