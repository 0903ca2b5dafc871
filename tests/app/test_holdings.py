"""What the running program holds after odd answers and many reloads: no more than before."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from authz_dev.emulator import Fault, Match
from support.programs.holdings import descriptors, most_memory
from support.programs.stack import Client, Process, World, authorization, problem, until

pytestmark = pytest.mark.thorough

Serve = Callable[..., Process]
Write = Callable[..., Path]
MIB: Final = 1024**2
RELOADS: Final = 12


async def test_endless_heads_of_entra_are_not_read(world: World, serve: Serve) -> None:
    """Four answers at a time, each with a head of 5 MiB: none of it is kept, and the next user is served."""
    process = serve()
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        served = await client.check("egress", "graph", world.token("alice2"))
        before = most_memory(process.pid)
        world.emulator.faults.add(
            Fault("heads", lines=90, width=60_000, match=Match(user=world.users["alice"]["username"]))
        )  # fmt: skip
        refused = await asyncio.gather(
            *(client.check("egress", "graph", world.token("alice")) for _ in range(4))
        )
        grown = most_memory(process.pid) - before
        world.emulator.faults.clear()
        after = await client.check("egress", "graph", world.token("alice3"))

    assert {"exchange_unavailable"} == {problem(answer)["reason"] for answer in refused}
    assert grown < 10 * MIB
    assert ["alice2", "alice3"] == [
        authorization(answer)["upn"].split("@")[0] for answer in (served, after)
    ]


async def test_many_reloads_leave_nothing_open(world: World, serve: Serve, write: Write) -> None:
    """Each version has connections of its own, and they are closed with it."""
    document = world.config(reload_interval="0s")
    process = serve(document)
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        await client.check("egress", "graph", world.token())
        before = descriptors(process.pid)
        for number in range(RELOADS):
            document["entra"]["timeout"] = f"{4000 + number}ms"
            write(document)
            process.signal(signal.SIGHUP)
            await until(lambda: _applied(process) > number, seconds=30)  # noqa: B023 - awaited here
            answer = await client.check("egress", "graph", world.token("alice2"))
            assert "alice2" == authorization(answer)["upn"].split("@")[0]
        # The last version has its own, for exchanges and for keys.
        await until(lambda: descriptors(process.pid) <= before + 4, seconds=60)


def _applied(process: Process) -> int:
    return sum(record["event"] == "configuration applied" for record in process.events())
