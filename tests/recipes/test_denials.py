"""What an agent's own SDK shows of a denial: the reason, whether the service refuses or Envoy does."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from authz.config.reading.document import parse
from authz.core.errors import Reason
from authz.doors.problem import FACES, detail_of
from authz_dev.emulator import Emulator
from recipes.agents import APPS, ENVIRONMENT, require_environment
from support.programs.stack import Process, World
from support.proxy.envoy import free_port
from support.proxy.sidecar import Authority, Sidecar

pytestmark = pytest.mark.recipes

MODELS = "models.example"


@dataclass
class Agent:
    """A program with the SDK, behind Envoy."""

    world: World
    egress_port: int

    def refused(self, host: str, key: str) -> dict[str, Any]:
        """Call a host, and return what the SDK shows."""
        program = [str(ENVIRONMENT / "bin/python"), str(APPS / "openai_refused.py")]
        environ = {
            "API": f"http://{host}/v1",
            "API_KEY": key,
            "HTTP_PROXY": f"http://127.0.0.1:{self.egress_port}",
        }
        done = subprocess.run(program, env=environ, capture_output=True, text=True, check=True)
        shown: dict[str, Any] = json.loads(done.stdout)
        return shown


@pytest.fixture(scope="module")
def agent(authority: Authority) -> Iterator[Agent]:
    """An agent whose destination is not there."""
    require_environment()
    with Emulator() as emulator:
        world = World(emulator, authority.file.parent)
        document = world.config()
        document["egress"]["graph"]["hosts"] = [MODELS]
        file = world.folder / "authz.yaml"
        file.write_text(json.dumps(document))
        with (
            Process("serve", "--config", str(file)) as process,
            Sidecar(
                parse(file.read_text(), {}),
                authz_address=document["listen"]["grpc"],
                authority=authority,
                certificates={},
                servers={MODELS: f"127.0.0.1:{free_port()}", "plain.example": "127.0.0.1:1"},
            ) as sidecar,
        ):
            process.wait_ready()
            yield Agent(world, sidecar.egress_port)


@pytest.mark.parametrize(
    ("host", "user", "reason"),
    [
        (MODELS, "bob", Reason.CONSENT_REQUIRED),
        ("unknown.example", "alice", Reason.UNKNOWN_ROUTE),
        (MODELS, "alice", Reason.DOWNSTREAM_UNAVAILABLE),
    ],
    ids=["by the service", "by Envoy", "in place of the API"],
)
def test_the_openai_sdk_shows_why(agent: Agent, host: str, user: str, reason: Reason) -> None:
    """`code` and `message` of its exception are those of the problem body, and no token is in them."""
    token = agent.world.token(user)

    shown = agent.refused(host, token)

    assert reason.value == shown["code"]
    assert f"urn:authz:reason:{reason.value}" == shown["type"]
    assert (
        f"{FACES[reason].title} ({reason.value}, authz): {detail_of(reason, host)}" == shown["said"]
    )
    assert token not in shown["printed"]
