"""The MCP SDK as a client that signs in, and as client and server without TLS: what works today."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from recipes.agents import APPS, ENVIRONMENT, Program, require_environment
from recipes.served import TOOLS, Place, behind_envoy
from support.proxy.envoy import free_port
from support.proxy.sidecar import Authority

pytestmark = pytest.mark.recipes


@pytest.fixture(scope="module")
def tools(authority: Authority) -> Iterator[str]:
    """Run an MCP server of the cluster, by plain HTTP; return its address."""
    require_environment()
    port = free_port()
    with Program(
        ["uvicorn", "mcp_server:app", "--port", str(port)],
        environ={},
        folder=APPS,
        ready_url=f"http://127.0.0.1:{port}/received",
        log=authority.file.parent / "plain-tools.log",
    ):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def described(authority: Authority) -> Iterator[Place]:
    """Run an MCP server without a sign-in of its own, which authz describes to clients."""
    with behind_envoy("bound_mcp", authority, bound=False, resource="/mcp") as running:
        yield running


@pytest.fixture(scope="module")
def place(authority: Authority, tools: str) -> Iterator[Place]:
    """Run an MCP server behind Envoy and the service."""
    with behind_envoy("bound_mcp", authority, bound=True, tools=tools) as running:
        yield running


def run(*arguments: str, **environ: str) -> dict[str, Any]:
    """Run the client."""
    done = subprocess.run(
        [ENVIRONMENT / "bin/python", APPS / "mcp_client.py", *arguments],
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 0 == done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_client_that_knows_the_url_and_its_client_id_signs_in(described: Place) -> None:
    """By what authz says at the URL: authority, scope, and the `resource` that the SDK sends to Entra."""
    world = described.world
    (terminal,) = world.tenant["public_clients"]
    told = run(
        *("url", "note", "text"),
        MCP_URL=f"{described.inbound}/mcp",
        TRUSTED=str(world.emulator.ca_file),
        CLIENT_ID=terminal["client_id"],
        USER_NAME=world.users["alice"]["username"],
    )

    assert "noted: x" == told.get("said"), told
    tenant = world.tenant_id
    assert [
        "POST /mcp",
        "GET /.well-known/oauth-protected-resource/mcp",
        f"GET /.well-known/oauth-authorization-server/{tenant}/v2.0",
        f"GET /.well-known/openid-configuration/{tenant}/v2.0",
        f"GET /{tenant}/v2.0/.well-known/openid-configuration",
        f"POST /{tenant}/oauth2/v2.0/token",
        "POST /mcp",
    ] == told["asked"][:7]


def test_client_whose_user_entra_does_not_know_is_refused(described: Place) -> None:
    """What authz says at the URL lets nobody in: Entra decides who signs in."""
    (terminal,) = described.world.tenant["public_clients"]
    told = run(
        *("url", "note", "text"),
        MCP_URL=f"{described.inbound}/mcp",
        TRUSTED=str(described.world.emulator.ca_file),
        CLIENT_ID=terminal["client_id"],
        USER_NAME="nobody@contoso.example",
    )

    (failure,) = told["failed"]
    assert "AADSTS50034" in failure


def test_client_that_knows_the_url_alone_cannot_sign_in(place: Place) -> None:
    """It looks for metadata of the server, finds a 401, and would register itself there: 401 again."""
    told = run("url", "note", "text", MCP_URL=f"{place.inbound}/mcp", USER_NAME="nobody")

    assert ["OAuthRegistrationError: Registration failed: 401"] == [
        failure.partition(" {")[0] for failure in told["failed"]
    ]
    assert [
        "POST /mcp",
        "GET /.well-known/oauth-protected-resource/mcp",
        "GET /.well-known/oauth-protected-resource",
        "GET /.well-known/oauth-authorization-server",
        "POST /register",
    ] == told["asked"]


def test_client_that_was_given_the_authority_signs_in(place: Place) -> None:
    """By the SDK's own code flow with PKCE, with a scope of the blueprint and without `resource`."""
    world = place.world
    (terminal,) = world.tenant["public_clients"]
    told = run(
        *("entra", "note", "text"),
        MCP_URL=f"{place.inbound}/mcp",
        TRUSTED=str(world.emulator.ca_file),
        ISSUER=f"{world.emulator.authority}/{world.tenant_id}/v2.0",
        SCOPE=f"{world.blueprint['identifier_uri']}/access_agent",
        CLIENT_ID=terminal["client_id"],
        USER_NAME=world.users["alice"]["username"],
    )

    assert "noted: x" == told.get("said"), told


def test_client_may_send_a_token_that_it_has(place: Place) -> None:
    """However it signed in, with MSAL for instance."""
    told = run(
        "token", "note", "text", MCP_URL=f"{place.inbound}/mcp", TOKEN=place.world.token("alice")
    )

    assert "noted: x" == told.get("said"), told


def test_server_of_the_cluster_is_called_without_a_token(place: Place, tools: str) -> None:
    """The SDK at both ends, by streamable HTTP without TLS: the agent's `Authorization` does not arrive."""
    told = run(
        *("token", "look_up", "item"),
        MCP_URL=f"http://{TOOLS}/mcp",
        TOKEN="held-by-the-agent",
        HTTP_PROXY=place.egress,
    )

    assert "x: in stock" == told.get("said"), told
    arrived = httpx.get(f"http://{tools}/received", trust_env=False).json()
    names = [name for seen in arrived for name, _ in seen["headers"]]
    assert "mcp-protocol-version" in names
    assert "authorization" not in names
