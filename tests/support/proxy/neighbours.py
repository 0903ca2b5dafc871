"""Two tenants behind one service: what happens at one of them, and users of the other one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from authz_dev.emulator import Fault, Match
from support.fakes.people import people
from support.programs.stack import GRAPH, Client, Process, World

HANGS: Final = Fault("hang")
DRIPS: Final = Fault("drip", part="head", seconds=0.05)
THROTTLES: Final = Fault("status", status=429, retry_after=1)
FAILS: Final = Fault("status", status=503)
CUTS: Final = Fault("down")
TROUBLES: Final = {
    "hangs": HANGS, "drips": DRIPS, "throttles": THROTTLES, "fails": FAILS, "cuts": CUTS,
}  # fmt: skip


def two_tenants(world: World, **changes: Any) -> dict[str, Any]:
    """Return the configuration with a blueprint and agent of the second tenant, as route `neighbour`."""
    tenant = world.other_tenant
    blueprint = tenant["blueprints"][0]
    secret = world.folder / "neighbours-secret"
    secret.write_text(blueprint["client_secret"])
    document = world.config(**changes)
    document["blueprints"]["neighbour"] = {
        "tenant_id": tenant["tenant_id"],
        "client_id": blueprint["client_id"],
        "credentials": [{"client_secret": {"file": str(secret)}}],
    }
    document["agents"]["neighbour"] = {
        "blueprint": "neighbour",
        "agent_identity": blueprint["agents"][0]["client_id"],
    }
    document["inbound"]["neighbour"] = {"agent": "neighbour", "scopes": ["access_agent"]}
    document["egress"]["neighbour"] = {
        "flow": "on_behalf_of",
        "agent": "neighbour",
        "scopes": [GRAPH],
    }
    return document


def neighbours_token(world: World) -> str:
    """What a client application of the second tenant got for its user. Each one is new to the service."""
    tenant = world.other_tenant
    return world.emulator.mint_user_token(
        tenant_id=tenant["tenant_id"],
        user=tenant["users"][0]["object_id"],
        audience=tenant["blueprints"][0]["client_id"],
    )


def trouble(world: World, fault: Fault, *, leg: str | None = "agent_obo") -> Fault:
    """Return a fault of the first tenant's token endpoint."""
    return Fault(
        fault.kind,
        match=Match(leg=leg, tenant=world.tenant_id),
        seconds=fault.seconds,
        status=fault.status,
        retry_after=fault.retry_after,
        part=fault.part,
    )


@asynccontextmanager
async def probed(process: Process) -> AsyncIterator[list[int]]:
    """Ask `/livez` again and again, through the block, and collect what it says."""
    said: list[int] = []

    async def ask() -> None:
        while True:
            said.append((await asyncio.to_thread(process.admin, "/livez")).status_code)

    probing = asyncio.create_task(ask())
    try:
        yield said
    finally:
        probing.cancel()
        with suppress(asyncio.CancelledError):
            await probing


@asynccontextmanager
async def crowded(client: Client, world: World, number: int) -> AsyncIterator[list[Any]]:
    """Have users of the first tenant ask all at once, and go on asking with new tokens through the block."""

    async def ask(person: str) -> None:
        while True:
            token = world.emulator.mint_user_token(
                user=person, audience=world.blueprint["client_id"]
            )
            answers.append(await client.check("egress", "graph", token, seconds=5.0))

    answers: list[Any] = []
    persons = people(world, number, world.agent["client_id"])
    crowd = [asyncio.create_task(ask(person)) for person in persons]
    try:
        yield answers
    finally:
        for caller in crowd:
            caller.cancel()
        await asyncio.wait(crowd)
