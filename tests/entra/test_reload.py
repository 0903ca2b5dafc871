"""What a new configuration leaves in place: tokens, wherever it asks Entra for the same."""

import asyncio
import gc
import weakref
from pathlib import Path

from authz.entra.exchange import EntraExchange
from authz_dev.emulator import Fault
from support.programs.stack import World, issued, reload, stack, until


async def test_an_unrelated_edit_leaves_every_token_in_use(world: World) -> None:
    """The user's, the agent's and the blueprint's T1: Entra is not asked again for any of them."""
    document = world.config()
    token = world.token()
    async with stack(world, document=document) as service:
        before = [
            await service.egress("graph", token), await service.egress("autonomous"),
            await service.egress("blueprint"),
        ]  # fmt: skip
        asked = world.emulator.calls.snapshot()
        document["egress"]["more"] = {"hosts": ["more.example"], "flow": "none"}
        document["inbound"]["agent"]["scopes"] = ["access_agent", "another"]
        await reload(service.engine, document)
        after = [
            await service.egress("graph", token), await service.egress("autonomous"),
            await service.egress("blueprint"),
        ]  # fmt: skip

    assert sum(asked.values()) > 0
    assert asked == world.emulator.calls.snapshot()
    assert [issued(record) for record in before] == [issued(record) for record in after]


async def test_a_route_that_is_gone_gives_none_of_its_tokens(world: World) -> None:
    """What is held is given only where the configuration in force allows it."""
    document = world.config()
    async with stack(world, document=document) as service:
        await service.egress("autonomous")
        document["egress"]["autonomous"]["agent"] = "clerk"
        await reload(service.engine, document)
        other = await service.egress("autonomous")

    assert world.sibling["client_id"] == issued(other)["appid"]


async def test_what_old_versions_trusted_is_freed(world: World) -> None:
    """At once, and MSAL's clients with it: trusted authorities take most of a megabyte."""
    document = world.config()
    gc.collect()
    gc.disable()
    try:
        async with stack(world, document=document) as service:
            await service.egress("graph", world.token())
            version = service.engine._version
            exchange = version._exchanges[1]._exchange
            assert isinstance(exchange, EntraExchange)
            agents = exchange._agents
            built = [
                *agents._built.values(),
                *(one for _, one in version.applications._built.values()),
            ]
            old = [weakref.ref(part) for part in (*version._connections, *built)]
            del version, exchange, agents, built
            document["cache"] = {"tokens": {"margin": "1s"}}
            await reload(service.engine, document)
            await until(lambda: not service.engine._retiring)

            # Two kinds of connections, the agent's client and that of its blueprint.
            assert [None] * 4 == [reference() for reference in old]
    finally:
        gc.enable()


async def test_a_reload_leaves_nothing_to_the_garbage_collector(world: World) -> None:
    """Its full collections may be a day apart: what waits for one, of each reload, would add up."""
    document = world.config()
    try:
        async with stack(world, document=document) as service:
            gc.collect()
            gc.disable()
            for number in range(3):
                document["cache"] = {"tokens": {"margin": f"{number + 1}s"}}
                await reload(service.engine, document)
                await service.egress("graph", world.token())
                await service.egress("autonomous")
                await until(lambda: not service.engine._retiring)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = {_module(found) for found in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()

    assert not [module for module in left if module.split(".")[0] in ("authz", "msal")]


def _module(found: object) -> str:
    """Where an object's type, or a function, was defined."""
    return str(getattr(found, "__module__", None) or type(found).__module__)


async def test_connections_of_old_versions_are_closed(world: World) -> None:
    """At once, and not when the cyclic collector comes by: it is switched off here."""
    document = world.config()
    gc.collect()
    gc.disable()
    try:
        async with stack(world, document=document) as service:
            await service.egress("autonomous")
            held = _sockets()
            for number in range(5):
                document["cache"] = {"tokens": {"margin": f"{number + 1}s"}}
                await reload(service.engine, document)
                await service.egress("graph", world.token())
            await until(lambda: not service.engine._retiring)
            # The last version has its own, for exchanges and for keys.
            assert _sockets() <= held + 2
    finally:
        gc.enable()


def _sockets() -> int:
    """How many sockets this process has."""
    return sum(_is_socket(entry) for entry in Path("/proc/self/fd").iterdir())


def _is_socket(entry: Path) -> bool:
    try:
        return entry.is_socket()
    except OSError:
        return False


async def test_answers_of_old_versions_are_freed(world: World) -> None:
    """With their tokens, at once, and not when the cyclic collector comes by: it is switched off here."""
    document = world.config()
    gc.collect()
    gc.disable()
    try:
        async with stack(world, document=document) as service:
            await service.egress("graph", world.token())
            # Not the answers themselves: the test's observer has them.
            alive = weakref.ref(service.engine._version.snapshot.answers._answers)
            document["cache"] = {"tokens": {"margin": "1s"}}
            await reload(service.engine, document)

            await until(lambda: alive() is None)
    finally:
        gc.enable()


async def test_the_end_of_the_process_gives_up_exchanges_under_way(world: World) -> None:
    """Those of the version before, too: one that tried again later would find its threads gone."""
    document = world.config()
    async with stack(world, document=document) as service:
        world.emulator.faults.add(Fault("hang"))
        checks = [asyncio.create_task(service.egress("graph", world.token()))]
        versions = [service.engine._version]
        await until(versions[0]._exchanges[1].flights)
        document["cache"] = {"tokens": {"margin": "1s"}}
        await reload(service.engine, document)
        versions.append(service.engine._version)
        checks.append(asyncio.create_task(service.egress("autonomous")))
        await until(versions[1]._exchanges[1].flights)
        held = [part for version in versions for part in version._exchanges]
        begun = [part.flights() for part in held]
    left = [part.flights() for part in held]
    await asyncio.wait(checks)

    assert all(begun)
    assert [0] * 4 == left
