"""The service behind a real Envoy, with load: right tokens, nothing lost, nothing leaked."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from authz.config.document import parse
from authz.emulator import Fault
from support.sidecar import Authority, Sidecar
from support.stack import Process, World, claims, until

USERS = ("alice", "alice2", "alice3")
GRAPH = "http://graph.microsoft.com/v1.0/me"


class Pod:
    """Envoy, the agent's place and an API, in front of `authz serve`."""

    def __init__(self, world: World, sidecar: Sidecar, config_file: Path) -> None:
        self.world = world
        self.sidecar = sidecar
        self._config_file = config_file
        self.authz = self.start()

    def start(self) -> Process:
        """Start the service and wait until it is ready."""
        self.authz = Process("serve", "--config", str(self._config_file)).wait_ready()
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


@pytest.fixture
def pod(world: World, tmp_path: Path) -> Iterator[Pod]:
    """A pod whose only destination is Graph."""
    document = world.config()
    document["egress"] = {"graph": document["egress"]["graph"]}
    file = tmp_path / "authz.yaml"
    file.write_text(json.dumps(document))
    with Sidecar(
        parse(file.read_text(), {}),
        authz_address=document["listen"]["grpc"],
        authority=Authority.create(tmp_path),
        certificates={"graph.microsoft.com": ("graph.microsoft.com",)},
    ) as sidecar:
        running = Pod(world, sidecar, file)
        yield running
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
async def calling(pod: Pod) -> AsyncIterator[Callers]:
    """Keep each user calling through the block."""
    proxy = f"http://127.0.0.1:{pod.sidecar.egress_port}"
    async with httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=10) as client:
        callers = Callers(pod)
        tasks = [asyncio.create_task(callers.call(client, user)) for user in USERS]
        await callers.reach(20)
        yield callers
        callers.stop = True
        await asyncio.gather(*tasks)


async def test_each_user_gets_his_own_token_and_no_users_token_leaves(pod: Pod) -> None:
    """Concurrent users through one Envoy: right subject every time, only agent tokens at the API."""
    async with calling(pod) as callers:
        await callers.reach(200)

    assert {"right"} == set(callers.outcomes)
    assert [] == pod.leaked


async def test_sigterm_under_load_loses_nothing_until_the_load_ends(pod: Pod) -> None:
    """The service goes on answering while Envoy asks, and ends when nobody asks any more."""
    async with calling(pod) as callers:
        pod.authz.signal(signal.SIGTERM)
        await asyncio.to_thread(pod.authz.event, "draining")
        await callers.reach(100)

    assert {"right"} == set(callers.outcomes)
    assert 0 == await asyncio.to_thread(pod.authz.wait)


async def test_a_killed_service_fails_closed_and_heals_without_touching_envoy(pod: Pod) -> None:
    """While it is gone every call is refused and nothing reaches the API; then it goes on."""
    async with calling(pod) as callers:
        pod.authz.signal(signal.SIGKILL)
        await asyncio.to_thread(pod.authz.wait)
        before = len(pod.sidecar.destinations["graph.microsoft.com"].received)
        refused = "status 503"
        await callers.reach(30, refused)
        during = len(pod.sidecar.destinations["graph.microsoft.com"].received)
        old = pod.authz
        await asyncio.to_thread(pod.start)
        old.close()
        await callers.reach(50)

    assert before == during
    assert {"right", refused} == set(callers.outcomes)
    assert [] == pod.leaked


async def test_entra_down_is_503_with_retry_after_and_nothing_leaves(pod: Pod) -> None:
    """A cold user while Entra is down: our own status and body, and the API is not called."""
    pod.world.emulator.faults.add(Fault("down"))
    async with httpx.AsyncClient(
        proxy=f"http://127.0.0.1:{pod.sidecar.egress_port}", trust_env=False
    ) as client:
        answer = await client.get(GRAPH, headers={"authorization": f"Bearer {pod.world.token()}"})

    assert (503, "exchange_unavailable") == (answer.status_code, answer.json()["reason"])
    assert int(answer.headers["retry-after"]) >= 1
    assert [] == pod.sidecar.destinations["graph.microsoft.com"].received
