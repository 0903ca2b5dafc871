"""Trouble at one tenant's endpoint is that tenant's: everybody else is served as ever (law 8)."""

import asyncio
from collections.abc import Callable

import pytest

from support.neighbours import (
    TROUBLES,
    crowded,
    neighbours_token,
    probed,
    trouble,
    two_tenants,
)
from support.stack import Client, Process, World, authorization, until

Serve = Callable[..., Process]
CROWD = 40
SHARE = 7
"""Of 16 threads and three clients: two of its own, and half of the rest."""
QUICK = {"timeout": "3s", "exchange_timeout": "4s"}


@pytest.mark.parametrize("kind", TROUBLES)
async def test_a_tenant_in_trouble_takes_nothing_from_another(
    world: World, serve: Serve, kind: str
) -> None:
    """Forty users of the one keep asking; all new users of the other are served, and probes answered."""
    document = two_tenants(world)
    document["entra"] |= QUICK
    process = serve(document)
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        authorization(await client.check("egress", "graph", world.token()))
        world.emulator.calls.reset()
        world.emulator.faults.add(trouble(world, TROUBLES[kind]))
        async with probed(process) as livez, crowded(client, world, CROWD):
            await until(lambda: world.emulator.calls.snapshot()["agent_obo"] >= SHARE)
            answers = [
                await asyncio.gather(
                    *(
                        client.check("egress", "neighbour", neighbours_token(world))
                        for _ in range(7)
                    )
                )
                for _ in range(3)
            ]
            await until(lambda: livez)

    served = [authorization(answer)["oid"] for group in answers for answer in group]
    assert [world.other_tenant["users"][0]["object_id"]] * 21 == served
    assert {200} == set(livez)
