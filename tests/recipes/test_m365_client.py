"""The sidecar client of the Microsoft 365 Agents SDK, unmodified, against the HTTP API."""

import json
import os
import subprocess

import pytest

from recipes.agents import APPS, ENVIRONMENT, require_environment
from support.programs.stack import Process, World, claims
from support.programs.token_api import Sidecar, environment

pytestmark = pytest.mark.recipes


def test_the_client_gets_the_tokens_that_it_asks_for(world: World) -> None:
    """The connection's, the agent's, and its user account's by either name; and a refusal is one."""
    require_environment()
    names = {"DownstreamApis__default__" + key: value for key, value in _DEFAULT.items()}
    with Process("serve", environ=environment(world, **names)) as process:
        sidecar = Sidecar(process)
        agent = world.agent
        account = sidecar.token(
            "/AuthorizationHeaderUnauthenticated/default",
            AgentIdentity=agent["client_id"],
            AgentUsername=agent["agent_user"],
        )
        done = subprocess.run(
            [
                ENVIRONMENT / "bin/python", APPS / "m365_client.py",
                world.tenant_id, agent["client_id"], account["oid"], agent["agent_user"],
            ],
            env={**os.environ, "SIDECAR_URL": f"http://{sidecar.address}", "NO_PROXY": "*"},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        sidecar.http.close()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    tokens = {name: claims(text) for name, text in found.items() if "." in str(text)}
    blueprint = world.blueprint["client_id"]
    assert {
        "connection": (blueprint, "app", blueprint),
        "instance": (agent["client_id"], "app", agent["client_id"]),
        "user by id": (agent["client_id"], "user", account["oid"]),
        "user by name": (agent["client_id"], "user", account["oid"]),
    } == {
        name: (
            token["appid"],
            token["idtyp"],
            token["oid"] if token["idtyp"] == "user" else token["appid"],
        )
        for name, token in tokens.items()
    }
    assert (True, "SidecarAuthError") == (found["healthy"], found["refused"])


_DEFAULT = {
    "BaseUrl": "https://graph.microsoft.com/v1.0",
    "Scopes__0": "https://graph.microsoft.com/.default",
}
