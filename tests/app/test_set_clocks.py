"""The wall clock of the machine is set, back or ahead, while the program runs: nothing lasts for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authz_dev.emulator import Fault, Match
from support.programs.set_clock import SetClock
from support.programs.stack import Client, Clock, Process, World, problem
from support.proxy.secret_stream import SecretStream

HOUR, DAY = 3600.0, 86_400.0
LONG = {"nbf": 0, "iat": 0, "exp": int(time.time()) + 30 * 86_400}
"""Claims of a user whose token is valid whatever the clock shows."""


class Desk:
    """The running program, a clock for it, and somebody else who is served all the while."""

    def __init__(self, world: World, process: Process, clock: SetClock, client: Client) -> None:
        self.world = world
        self.process = process
        self.clock = clock
        self.client = client

    async def reason(self, route: str, token: str | None = None) -> str | None:
        """Return why an egress call is denied; None when it is not."""
        answer = await self.client.check("egress", route, token)
        if answer.WhichOneof("http_response") == "ok_response":
            return None
        return str(problem(answer)["reason"])

    async def value(self, route: str) -> str:
        """Return the token that an egress call gets."""
        answer = await self.client.check("egress", route)
        (header,) = [
            h.header for h in answer.ok_response.headers if h.header.key == "authorization"
        ]
        return str(header.value).removeprefix("Bearer ")

    async def until_served(self, route: str, token: str | None = None, **others: str) -> None:
        """Wait until a call is allowed; meanwhile the probe is answered, and so are others."""
        end = time.monotonic() + 30
        while (reason := await self.reason(route, token)) is not None:
            assert time.monotonic() < end, (reason, self.process.log())
            assert dict.fromkeys(others) == {
                name: await self.reason(name, other) for name, other in others.items()
            }
            assert 200 == await self.livez()

    async def livez(self) -> int:
        """Return the status of the liveness probe."""
        return (await asyncio.to_thread(self.process.admin, "/livez")).status_code

    async def until_ready(self) -> None:
        """Wait until the readiness probe says so."""
        await asyncio.to_thread(self.process.wait_ready)


@pytest.fixture
def process_clock(world: World, clock: Clock) -> SetClock:
    """The clock of the running program."""
    return SetClock(world.folder / "clock", clock)


@pytest.fixture
def process(world: World, process_clock: SetClock, write: Callable[..., Path]) -> Iterator[Process]:
    """The program, with an autonomous route whose token is pushed."""
    document = world.config()
    document["entra"]["keys"] = {"unknown_key_interval": "1s"}
    file = str(write(document))
    with Process("serve", "--config", file, environ=process_clock.environ) as process:
        yield process.wait_ready()


@pytest.fixture
async def desk(world: World, process: Process, process_clock: SetClock) -> AsyncIterator[Desk]:
    """All of it, with a client."""
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        yield Desk(world, process, process_clock, client)


def lasting(world: World, user: str = "alice", **order: Any) -> str:
    """Return a user's token that is valid whatever the clock shows."""
    return world.token(user, claims=LONG, **order)


def opaque(text: str) -> Fault:
    """An answer with a token that says nothing of itself, for each leg."""
    body = {"token_type": "Bearer", "access_token": text, "expires_in": 3600}
    return Fault("answer", status=200, body=body)


@pytest.mark.parametrize(
    "steps",
    [(-HOUR,), (-DAY,), (HOUR, 0.0), (DAY, 0.0)],
    ids=["back by an hour", "back by a day", "ahead by an hour for a moment", "ahead by a day"],
)
async def test_a_failure_ends_in_time_and_others_are_served(
    world: World, desk: Desk, steps: tuple[float, ...]
) -> None:
    """Who was refused for a second is not refused for an hour, and nobody else is for a moment."""
    alice, other = lasting(world), lasting(world, "alice2")
    assert await desk.reason("graph-clerk", other) is None
    agent = Match(leg="agent_obo", client_id=world.agent["client_id"])
    world.emulator.faults.add(Fault("status", status=503, retry_after=1, match=agent))
    refused = await desk.reason("graph", alice)
    world.emulator.faults.clear()
    for set_by in steps:
        desk.clock.set_by(set_by)
        await desk.reason("graph", alice)
    await desk.until_served("graph", alice, **{"graph-clerk": other})
    await desk.until_ready()

    assert "exchange_unavailable" == refused
    assert 200 == await desk.livez()


@pytest.mark.parametrize(
    ("before", "after"),
    [(0.0, -HOUR), (0.0, -DAY), (HOUR, 0.0), (DAY, 0.0)],
    ids=["back by an hour", "back by a day", "ahead by an hour before", "ahead by a day before"],
)
async def test_a_token_ends_in_time(world: World, desk: Desk, before: float, after: float) -> None:
    """In a Check and where it is pushed: an hour after it was issued it is neither."""
    desk.clock.set_by(before)
    world.emulator.faults.add(opaque("first"))
    async with SecretStream(f"unix:{world.folder}/authz.sock") as stream:
        await stream.ask("autonomous")
        async with asyncio.timeout(30):
            pushed = [(await stream.hear())["autonomous"]]
        await stream.acknowledge("autonomous")
        checked = [await desk.value("autonomous")]
        desk.clock.set_by(after)
        checked.append(await desk.value("autonomous"))
        world.emulator.faults.clear()
        world.emulator.faults.add(opaque("second"))
        desk.clock.advance(HOUR)
        checked.append(await desk.value("autonomous"))
        async with asyncio.timeout(30):
            while pushed[-1] != "Bearer second":
                pushed.append((await stream.hear())["autonomous"])
                await stream.acknowledge("autonomous")

    assert ["first", "first", "second"] == checked
    assert ["Bearer first", "Bearer second"] == [value for value in pushed if value]
    assert 200 == await desk.livez()


async def test_a_token_that_has_ended_is_not_served_while_the_clock_is_ahead(
    world: World, desk: Desk
) -> None:
    """Its own `exp` counts; a moment later, with the clock right again, there is another one."""
    first = await desk.value("autonomous")
    desk.clock.set_by(DAY)
    ahead = await desk.reason("autonomous")
    alive = await desk.livez()
    desk.clock.set_by(0.0)
    await desk.until_served("autonomous")
    await desk.until_ready()

    assert ("exchange_unavailable", 200) == (ahead, alive)
    assert first != await desk.value("autonomous")


async def test_a_new_signing_key_is_not_locked_out_by_a_moment_ahead(
    world: World, desk: Desk
) -> None:
    """What was asked about meanwhile holds nobody up afterwards."""
    desk.clock.set_by(DAY)
    forged = lasting(world, key="foreign")
    assert await desk.reason("graph", forged) in ("invalid_token", "keys_unavailable")
    desk.clock.set_by(0.0)
    world.emulator.roll_signing_key()

    await desk.until_served("graph", lasting(world))


async def test_a_token_that_only_leeway_keeps_alive_is_refused_before_entra_is_asked(
    world: World, desk: Desk
) -> None:
    """The user still reaches the agent; the agent hears that the user's token has ended."""
    world.emulator.calls.reset()
    token = world.token(lifetime=-5)
    inbound = await desk.client.check("inbound", "agent", token)
    egress = await desk.client.check("egress", "graph", token)

    assert "ok_response" == inbound.WhichOneof("http_response")
    assert "invalid_token" == problem(egress)["reason"]
    assert 0 == world.emulator.calls.snapshot()["total"]


async def test_a_clock_that_differs_from_entras_is_told(
    world: World, process_clock: SetClock, write: Callable[..., Path]
) -> None:
    """Ten minutes slow: all users are refused, and log, `/status` and gauge say why."""
    document = world.config()
    document["entra"]["keys"] = {"unknown_key_interval": "1s"}
    process_clock.set_by(-600)
    file = str(write(document))
    with Process("serve", "--config", file, environ=process_clock.environ) as process:
        await asyncio.to_thread(process.wait_ready)
        async with Client(f"unix:{world.folder}/authz.sock") as client:
            refused = problem(await client.check("inbound", "agent", world.token()))["reason"]

        async def shown() -> tuple[float, float]:
            status = (await asyncio.to_thread(process.admin, "/status")).json()
            metrics = (await asyncio.to_thread(process.admin, "/metrics")).text
            (gauge,) = [
                line.rpartition(" ")[2]
                for line in metrics.splitlines()
                if line.startswith("authz_clock_difference_seconds ")
            ]
            return status["clock_difference_seconds"], float(gauge)

        slow = await shown()
        process_clock.set_by(0)
        world.emulator.roll_signing_key()
        async with Client(f"unix:{world.folder}/authz.sock") as client:
            await client.check("inbound", "agent", world.token())
        await asyncio.to_thread(process.event, "clock agrees again")
        right, log = await shown(), process.events()

    assert ("invalid_token", (0.0, 0.0)) == (refused, right)
    assert (-600.0, -600.0) == pytest.approx(slow, abs=3)
    told = [line for line in log if line["event"].startswith("clock")]
    assert ["clock differs", "clock agrees again"] == [line["event"] for line in told]
    assert "behind Entra's" == told[0]["clock"]
    assert -600 == pytest.approx(told[0]["seconds"], abs=3)
