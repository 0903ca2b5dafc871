"""A pod: `authz serve` behind a real Envoy, an API at its other end, and agents that keep calling it."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from authz.config.reading.document import parse
from support.programs.stack import Process, World, claims, until
from support.proxy.sidecar import Authority, Sidecar

USERS: Final = ("alice", "alice2", "alice3")
GRAPH: Final = "http://graph.microsoft.com/v1.0/me"


class Pod:
    """Envoy, the agent's place and an API, in front of `authz serve`.

    Attributes:
        world: The emulated Entra.
        sidecar: Envoy, agent and API.
        config_file: The configuration of the service.
        authz: The service.
    """

    def __init__(self, world: World, sidecar: Sidecar, config_file: Path) -> None:
        self.world = world
        self.sidecar = sidecar
        self.config_file = config_file
        self.authz = self.start()

    def start(self) -> Process:
        """Start the service and wait until it is ready."""
        self.authz = Process("serve", "--config", str(self.config_file)).wait_ready()
        return self.authz

    @property
    def leaked(self) -> list[str]:
        """What arrived at the API that Entra did not issue to the agent."""
        agent = self.world.agent["client_id"]
        seen = [
            value
            for request in self.sidecar.destinations["graph.microsoft.com"].received
            for value in request.values("authorization")
        ]
        tokens = [claims(value.removeprefix("Bearer ")) for value in seen]
        return [token["uti"] for token in tokens if token.get("appid") != agent]


@contextmanager
def pod_of(world: World, folder: Path, **changes: Any) -> Iterator[Pod]:
    """Run a pod whose only destination is Graph; top-level sections of its configuration may be replaced."""
    document = world.config(**changes)
    document["egress"] = {"graph": document["egress"]["graph"]}
    file = folder / "authz.yaml"
    file.write_text(json.dumps(document))
    with Sidecar(
        parse(file.read_text(), {}),
        authz_address=document["listen"]["grpc"],
        authority=Authority.create(folder),
        certificates={"graph.microsoft.com": ("graph.microsoft.com",)},
    ) as sidecar:
        running = Pod(world, sidecar, file)
        try:
            yield running
        finally:
            running.authz.close()


class Callers:
    """Users' agents that keep calling Graph through Envoy."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self.outcomes: Counter[str] = Counter()
        self.stop = False

    async def call(self, client: httpx.AsyncClient, user: str) -> None:
        """Call as one user until told to stop."""
        world = self._pod.world
        token, wanted = world.token(user), world.users[user]["object_id"]
        while not self.stop:
            answer = await client.get(GRAPH, headers={"authorization": f"Bearer {token}"})
            if answer.status_code != 200:
                self.outcomes[f"status {answer.status_code}"] += 1
                continue
            arrived = dict(answer.json()["headers"])["authorization"].removeprefix("Bearer ")
            self.outcomes["right" if claims(arrived)["oid"] == wanted else "wrong"] += 1

    async def reach(self, number: int, outcome: str = "right") -> None:
        """Wait for that many further outcomes of one kind."""
        target = self.outcomes[outcome] + number
        await until(lambda: self.outcomes[outcome] >= target, seconds=30)


@asynccontextmanager
async def calling(pod: Pod, users: Sequence[str] = USERS) -> AsyncIterator[Callers]:
    """Keep each user calling through the block."""
    proxy = f"http://127.0.0.1:{pod.sidecar.egress_port}"
    async with httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=10) as client:
        callers = Callers(pod)
        tasks = [asyncio.create_task(callers.call(client, user)) for user in users]
        await callers.reach(20)
        yield callers
        callers.stop = True
        await asyncio.gather(*tasks)
