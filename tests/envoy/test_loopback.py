"""A wildcard gives no token to loopback: the agent shares it, and could listen there."""

from collections.abc import Iterator

import httpx
import pytest

from authz.config.reading.document import parse
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import SidecarSettings
from support.proxy.envoy import EnvoyProcess

GUID = "11111111-0000-4000-8000-000000000001"
CONFIGURATION = f"""
blueprints:
  support: {{tenant_id: {GUID}, client_id: {GUID}, credentials: [{{managed_identity: {{}}}}]}}
agents:
  desk: {{blueprint: support, agent_identity: {GUID}}}
egress:
  everything:
    hosts: ["*"]
    flow: autonomous
    agent: desk
    scopes: [api://x/.default]
"""


@pytest.fixture(scope="module", params=[False, True], ids=["spared", "token_to_loopback"])
def proxy(request: pytest.FixtureRequest) -> Iterator[tuple[httpx.Client, bool]]:
    """A client of the egress listener of an Envoy without a service, and whether loopback is allowed."""
    allowed = bool(request.param)
    text = CONFIGURATION + ("    token_to_loopback: true\n" if allowed else "")
    settings = SidecarSettings(
        egress_address="127.0.0.1:0", admin_address="127.0.0.1:0", authz_address="127.0.0.1:1", ipv6=False
    )  # fmt: skip
    with (
        EnvoyProcess(render(parse(text, {}), settings)) as envoy,
        httpx.Client(
            base_url=f"http://127.0.0.1:{envoy.port('egress')}", trust_env=False
        ) as client,
    ):
        yield client, allowed


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1:8000",
            "localhost",
            "LocalHost:1",
            "evil.localhost:8000",
            "127.1",
            "2130706433",
        ),
        *(
            "0x7f.1",
            "0.0.0.0:8000",
            "[::1]:8000",
            "[::ffff:127.0.0.1]",
            "ip6-loopback",
            "localhost.",
        ),
    ],
)
def test_a_request_to_loopback_leads_nowhere(proxy: tuple[httpx.Client, bool], host: str) -> None:
    """Envoy itself refuses it, before anybody is asked for a token."""
    client, allowed = proxy

    answer = client.get("/", headers={"host": host})

    assert ("authz_unavailable" if allowed else "unknown_route") == answer.json()["reason"]


@pytest.mark.parametrize("host", ["api.example", "10.0.0.1:8443", "localhost.example", "[fd00::1]"])
def test_a_request_to_anywhere_else_is_asked_about(
    proxy: tuple[httpx.Client, bool], host: str
) -> None:
    """There is no service here to ask."""
    answer = proxy[0].get("/", headers={"host": host})

    assert "authz_unavailable" == answer.json()["reason"]
