"""What users notice of a restart of the service: `authz serve`, killed and started again behind one Envoy."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import httpx
import pytest

from authz.config.reading.document import parse
from authz_dev.emulator import Emulator
from support.programs.stack import Process, World
from support.proxy.edge import until
from support.proxy.sidecar import Authority, Sidecar

GRAPH: Final = "graph.microsoft.com"
SESSIONS: Final = 2
"""Tokens of the user, with each of which the agent is called."""
TIMES: Final = 8
"""Connections of each user. Envoy's worker threads share them, each with a memory of its own."""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """The emulated Entra."""
    with Emulator() as running:
        yield running


class Agent:
    """An agent whose users call it, and which calls an API for each with what it received of that user.

    Args:
        world: Names, and tokens of users.
        found: The configuration.
        folder: For the destination's authority.
    """

    def __init__(self, world: World, found: dict[str, Any], folder: Path) -> None:
        self._tokens = [world.token() for _ in range(SESSIONS)]
        self.file = world.folder / "authz.yaml"
        self.file.write_text(json.dumps(found))
        self._sidecar = Sidecar(
            parse(json.dumps(found), {}),
            authz_address=found["listen"]["grpc"],
            authority=Authority.create(folder),
            certificates={GRAPH: (GRAPH,)},
            threads=2,
        )

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.process = self._started()
            stack.callback(self._end)
            stack.enter_context(self._sidecar)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def restart(self) -> None:
        """Kill the service, and wait until another one is there."""
        self.process.signal(signal.SIGKILL)
        self.process.wait()
        self.process.close()
        self.process = self._started()

    def _end(self) -> None:
        self.process.close()

    def _started(self) -> Process:
        return Process("serve", "--config", str(self.file)).wait_ready()

    def enter(self, session: int) -> httpx.Response:
        """Have a user call the agent, and return what the agent saw of the call."""
        # A connection of its own: any of Envoy's threads may take it.
        with httpx.Client(trust_env=False) as caller:
            return caller.get(
                f"http://127.0.0.1:{self._sidecar.inbound_port}/",
                headers={"authorization": f"Bearer {self._tokens[session]}"},
            )

    def called(self, session: int) -> tuple[int, str]:
        """Return how one call of a user ends: at the agent's door, and where that let it in, at the API's."""
        answer = self.enter(session)
        if answer.status_code != 200:
            return answer.status_code, answer.json()["reason"]
        held = {
            name: value
            for name, value in answer.json()["headers"]
            if name in ("authorization", "baggage")
        }
        proxy = f"http://127.0.0.1:{self._sidecar.egress_port}"
        with httpx.Client(proxy=proxy, trust_env=False) as agent:
            answer = agent.get(f"http://{GRAPH}/", headers=held)
        if answer.status_code != 200:
            return answer.status_code, answer.json()["reason"]
        return 200, ""


def document(world: World, forward: str, agent: str = "desk") -> dict[str, Any]:
    """An agent that receives references, and an API that it calls for its users."""
    found = world.config()
    graph = {**found["egress"]["graph"], "subject": [forward], "agent": agent}
    return {
        **found,
        "inbound": {"agent": {"agent": agent, "scopes": ["access_agent"], "forward": forward}},
        "egress": {"graph": graph},
    }


def met(agent: Agent) -> None:
    """Have each user known to each thread of Envoy. The API is not called: no answer of it is known."""
    for session in range(SESSIONS):
        for _ in range(TIMES):
            assert 200 == agent.enter(session).status_code


def later(agent: Agent) -> list[tuple[int, str]]:
    """Return how further calls of the users end, once Envoy has found the service."""
    until(lambda: agent.called(0)[0] != 503)
    return [agent.called(session) for _ in range(TIMES) for session in range(SESSIONS)]


@pytest.mark.parametrize("forward", ["placeholder", "handle"])
def test_users_of_before_are_served_after_a_restart(
    emulator: Emulator, tmp_path: Path, forward: str
) -> None:
    """Envoy repeats no reference that died with the process which gave it."""
    world = World(emulator, tmp_path)
    (tmp_path / "envoy").mkdir()
    with Agent(world, document(world, forward), tmp_path / "envoy") as agent:
        met(agent)
        agent.restart()

        assert [(200, "")] * TIMES * SESSIONS == later(agent)


def test_users_of_before_are_served_after_their_agent_has_another_identity(
    emulator: Emulator, tmp_path: Path
) -> None:
    """A reference counts for the agent that was called, so those of before are given out no more."""
    world = World(emulator, tmp_path)
    (tmp_path / "envoy").mkdir()
    with Agent(world, document(world, "placeholder"), tmp_path / "envoy") as agent:
        met(agent)
        agent.file.write_text(json.dumps(document(world, "placeholder", "clerk")))
        agent.process.signal(signal.SIGHUP)
        agent.process.event("configuration applied")
        served = [(200, "")] * TIMES * SESSIONS

        # Long before what Envoy keeps has ended.
        until(lambda: later(agent) == served)
