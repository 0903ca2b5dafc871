"""An agent that calls tools of an MCP server for its users, with the official SDK at both ends."""

import json
import ssl
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from recipes.agents import APPS, Program, require_environment
from recipes.deployment import Deployment, deployed, references
from support.proxy.envoy import free_port
from support.proxy.sidecar import Authority

pytestmark = pytest.mark.recipes

TOOLS = "tools.example"
USERS = 20
ROUNDS = 5
STYLES = ["own-session", "shared-session"]


@dataclass
class McpServer:
    """The MCP server: a destination like any other, without instrumentation.

    Args:
        port: Where it listens.
        context: Verifies its certificate.
    """

    port: int
    context: ssl.SSLContext
    _seen: int = field(default=0)

    def new_arrivals(self) -> list[dict[str, Any]]:
        """Return the requests that arrived since the last look: header lines and body."""
        url = f"https://127.0.0.1:{self.port}/received"
        arrived: list[dict[str, Any]] = httpx.get(url, verify=self.context, trust_env=False).json()
        new = arrived[self._seen :]
        self._seen = len(arrived)
        return new


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[McpServer]:
    """A running MCP server."""
    require_environment()
    folder = authority.file.parent
    certificate = folder / "tools.pem"
    issued = authority.ca.issue_cert(TOOLS, "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
    found = McpServer(free_port(), ssl.create_default_context(cafile=str(authority.file)))
    command = ["uvicorn", "mcp_server:app", "--port", str(found.port)]
    command += ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(certificate)]
    with Program(
        command,
        environ={},
        folder=APPS,
        ready_url=f"https://127.0.0.1:{found.port}/received",
        log=folder / "tools.log",
        verify=found.context,
    ):
        yield found


@pytest.fixture(scope="module")
def deployment(authority: Authority, server: McpServer) -> Iterator[Deployment]:
    """The agent."""
    others = {TOOLS: f"127.0.0.1:{server.port}"}
    with deployed("MCP", authority, users=USERS, others=others) as running:
        yield running


@pytest.mark.parametrize("style", STYLES)
async def test_every_tool_call_is_made_for_the_user_who_asked(
    deployment: Deployment, server: McpServer, style: str
) -> None:
    """With a session for each request, and with one that all users' requests share."""
    server.new_arrivals()

    statuses = await deployment.ask(style, rounds=ROUNDS)

    arrived = server.new_arrivals()
    assert {200: USERS * ROUNDS} == statuses
    assert {"right user": USERS * ROUNDS} == judged(deployment, arrived)
    assert [] == [found for seen in arrived for found in references(lines(seen))]


@pytest.mark.parametrize("style", STYLES)
async def test_the_sdk_copies_the_reference_into_the_body(
    deployment: Deployment, server: McpServer, style: str
) -> None:
    """It writes baggage into `params._meta` as well, which no header rule reaches (docs/recipes.md)."""
    server.new_arrivals()

    await deployment.ask(style, rounds=1)

    calls = tool_calls(server.new_arrivals())
    metas = [("_meta", call["body"]["params"]["_meta"]["baggage"]) for call in calls]
    assert USERS == len(references(metas))


async def test_server_of_an_agent_that_forwards_a_placeholder_sees_no_reference_at_all(
    authority: Authority, server: McpServer
) -> None:
    """Where no reference is in baggage, the SDK has none to copy."""
    others = {TOOLS: f"127.0.0.1:{server.port}"}
    with deployed(
        "MCP", authority, users=USERS, others=others, reference="placeholder"
    ) as deployment:
        server.new_arrivals()

        statuses = await deployment.ask("forwarding", rounds=ROUNDS)

        arrived = server.new_arrivals()
        assert {200: USERS * ROUNDS} == statuses
        assert {"right user": USERS * ROUNDS} == judged(deployment, arrived)
        assert [] == [found for seen in arrived for found in references(lines(seen))]
        assert [] == references(("body", json.dumps(seen["body"])) for seen in arrived)


def judged(deployment: Deployment, arrived: list[dict[str, Any]]) -> Counter[str]:
    """Return how many tool calls came with the token of the right user, and otherwise."""
    return Counter(
        deployment.whose(call["body"]["params"]["arguments"]["item"], tokens(call))
        for call in tool_calls(arrived)
    )


def tool_calls(arrived: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of the requests that call a tool."""
    return [seen for seen in arrived if (seen["body"] or {}).get("method") == "tools/call"]


def lines(seen: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the header lines of a request."""
    return [(name, value) for name, value in seen["headers"]]


def tokens(seen: dict[str, Any]) -> list[str]:
    """Return the `Authorization` values of a request."""
    return [value for name, value in lines(seen) if name == "authorization"]
