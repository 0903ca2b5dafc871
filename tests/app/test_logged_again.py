"""`log.decisions` that a reload changes: what the running program logs of repeated answers."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from support.programs.stack import Client, Process, World, authorization, until


async def test_the_first_repeated_answer_after_a_reload_is_logged(
    world: World, serve: Callable[..., Process], write: Callable[..., Path]
) -> None:
    """Even though nothing was kept of those before it."""
    log = {"decisions": "denied"}
    process = serve(log=log, reload_interval="0s")
    token = world.token()
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        first = authorization(await client.check("egress", "graph", token))
        assert first == authorization(await client.check("egress", "graph", token))
        write(log=log | {"decisions": "all"}, reload_interval="0s")
        process.signal(signal.SIGHUP)
        await asyncio.to_thread(process.event, "configuration applied")
        # A new configuration has no answers yet: the first Check is decided, the second is repeated.
        for _ in range(2):
            assert first == authorization(await client.check("egress", "graph", token))

        def logged() -> list[str]:
            return [each["decision"] for each in process.events() if each["event"] == "check"]

        await until(lambda: logged() == ["allow", "allow"])
