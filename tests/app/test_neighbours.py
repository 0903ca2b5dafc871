"""Trouble at one tenant's endpoint is that tenant's: everybody else is served as ever (law 8)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from authz_dev.emulator import Fault
from support.peers.middlebox import middlebox
from support.programs.stack import Client, Process, World, authorization, problem, until
from support.proxy.neighbours import (
    TROUBLES,
    crowded,
    neighbours_token,
    probed,
    trouble,
    two_tenants,
)

Serve = Callable[..., Process]
CROWD = 40
SHARE = 7
"""Of 16 threads and three clients: two of its own, and half of the rest."""
KEPT = 20
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


async def test_a_tenant_whose_endpoint_keeps_failing_is_told_in_metric_and_log(
    world: World, serve: Serve
) -> None:
    """Its circuit opens, and closes when the endpoint is well again, without a restart."""
    process = serve(two_tenants(world))
    open_metric = f'authz_entra_circuit_open{{tenant="{world.tenant_id}"}} '
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        world.emulator.faults.add(trouble(world, TROUBLES["fails"]))
        async with crowded(client, world, 3):
            opened = await asyncio.to_thread(process.event, "circuit open")
        refused = problem(await client.check("egress", "graph", world.token()))
        while_open = process.admin("/metrics").text
        neighbour = authorization(
            await client.check("egress", "neighbour", neighbours_token(world))
        )
        world.emulator.faults.clear()
        async with crowded(client, world, 3):
            closed = await asyncio.to_thread(process.event, "circuit closed")
        served = authorization(await client.check("egress", "graph", world.token()))
        after = process.admin("/metrics").text

    assert ["exchange_unavailable", world.tenant_id] == [refused["reason"], opened["tenant"]]
    assert refused["retry_after"] >= 1
    assert [open_metric + "1.0" in while_open, open_metric + "0.0" in after] == [True, True]
    assert f'authz_entra_circuit_openings_total{{tenant="{world.tenant_id}"}}' in after
    assert world.other_tenant["users"][0]["object_id"] == neighbour["oid"]
    assert [world.tenant_id, world.agent["client_id"]] == [closed["tenant"], served["appid"]]


async def test_connections_that_the_network_has_forgotten_cost_no_user_an_answer(
    world: World, serve: Serve
) -> None:
    """Twenty kept connections pass nothing on any more, without a word; forty new users are served."""
    async with middlebox() as box:
        document = world.config(limits={"exchanges": 2 * KEPT})
        document["entra"] |= {
            "proxy": f"http://127.0.0.1:{box.port}",
            "timeout": "10s",
            "exchange_timeout": "15s",
        }
        await asyncio.to_thread(serve, document)
        async with Client(f"unix:{world.folder}/authz.sock") as client:

            async def ask(number: int, *, seconds: float) -> list[Any]:
                return await asyncio.gather(
                    *(
                        client.check("egress", "graph", world.token(), seconds=seconds)
                        for _ in range(number)
                    )
                )

            await ask(1, seconds=10.0)
            before = box.connected
            # So that each of them needs a connection of its own.
            held = world.emulator.faults.add(trouble(world, Fault("latency", seconds=1.0)))
            await ask(KEPT, seconds=20.0)
            kept = box.connected - before
            world.emulator.faults.clear(held.id)
            box.forget()
            answers = await ask(40, seconds=5.0)

    assert kept >= KEPT - 1
    assert [world.agent["client_id"]] * 40 == [authorization(a)["appid"] for a in answers]
