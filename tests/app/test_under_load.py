"""Stops, rotations and reloads while requests go on: nothing lost, nobody wrongly denied or served."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from authz_dev.emulator.entities import Secret
from support.programs.stack import Client, Process, World, authorization, claims, problem, until
from support.proxy.secret_stream import SecretStream

Serve = Callable[..., Process]
TCP = {"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"}


class Load:
    """Users who keep calling, and what became of it."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        self.stop = False

    async def call(
        self, client: Client, world: World, user: str, route: str, *, fresh: bool
    ) -> None:
        """Call until told to stop; with `fresh` each call brings a new token of the user."""
        token = world.token(user)
        agent = {"graph": world.agent, "graph-clerk": world.sibling}[route]["client_id"]
        while not self.stop:
            if fresh:
                token = world.token(user)
            try:
                answer = await client.check("egress", route, token)
            except grpc.aio.AioRpcError as error:
                self.outcomes["lost"] += 1
                self.failures.append(f"{error.code()} {error.details()}")
                return
            if answer.WhichOneof("http_response") != "ok_response":
                self.outcomes["denied"] += 1
                self.failures.append(problem(answer)["reason"])
                continue
            found = authorization(answer)
            right = (found["oid"], found["appid"]) == (world.users[user]["object_id"], agent)
            self.outcomes["right" if right else "wrong"] += 1

    async def reach(self, number: int) -> None:
        """Wait until that many further calls were answered."""
        target = self.outcomes.total() + number
        await until(lambda: self.outcomes.total() >= target or self.failures, seconds=30)


@asynccontextmanager
async def load(
    address: str,
    world: World,
    *,
    fresh: bool = False,
    routes: tuple[str, ...] = ("graph", "graph-clerk"),
) -> AsyncIterator[Load]:
    """Keep a caller for each user and route going through the block."""
    async with Client(address) as client:
        going = Load()
        callers = [
            asyncio.create_task(going.call(client, world, user, route, fresh=fresh))
            for user in ("alice", "alice2", "alice3")
            for route in routes
        ]
        await going.reach(50)
        yield going
        going.stop = True
        await asyncio.gather(*callers)


async def test_key_rollover_under_load(world: World, serve: Serve) -> None:
    """Entra signs with a new key from one moment to the next: nobody notices."""
    serve()
    async with load(f"unix:{world.folder}/authz.sock", world, fresh=True) as going:
        world.emulator.roll_signing_key()
        await going.reach(200)

    assert [] == going.failures
    assert 0 == going.outcomes["wrong"]


async def test_secret_rotation_under_load(world: World, serve: Serve) -> None:
    """The secret is replaced at Entra and in the file while tokens of new users are needed."""
    serve()
    socket = f"unix:{world.folder}/authz.sock"
    async with load(socket, world, fresh=True, routes=("graph",)) as going:
        directory = world.emulator.directory
        blueprint = directory.application(world.tenant_id, world.blueprint["client_id"])
        assert blueprint is not None
        directory.add_secret(blueprint, Secret("rotated secret"))
        world.secret_file.write_text("rotated secret")
        await going.reach(50)
        directory.update_application(
            world.tenant_id, blueprint.client_id, secrets=(Secret("rotated secret"),)
        )
        world.emulator.calls.reset()
        # The other agent has no T1 yet, and only the new secret gets one.
        async with Client(socket) as client:
            other = await client.check("egress", "graph-clerk", world.token())
        await going.reach(50)

    assert authorization(other)["appid"] == world.sibling["client_id"]
    assert 1 == world.emulator.calls.snapshot()["t1"]
    assert [] == going.failures
    assert 0 == going.outcomes["wrong"]


async def test_sigterm_under_load_loses_no_request(world: World, serve: Serve) -> None:
    """Two instances: the one that is told to stop answers all it was asked, and clients move on."""
    first = serve(listen=TCP)
    second = serve(listen=TCP)
    addresses = [process.event("serving")["grpc"] for process in (first, second)]
    target = "ipv4:" + ",".join(addresses)
    async with load(target, world) as going:
        first.signal(signal.SIGTERM)
        await going.reach(500)

    assert 0 == first.wait()
    assert [] == going.failures
    assert 0 == going.outcomes["wrong"]
    assert "Traceback" not in first.log()


async def test_sigterm_lets_a_slow_exchange_end(world: World, serve: Serve) -> None:
    """A Check that waits for Entra when the stop comes still gets its token."""
    from authz_dev.emulator import Fault  # noqa: PLC0415

    process = serve()
    world.emulator.faults.add(Fault("latency", seconds=1.0))
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        waiting = asyncio.create_task(client.check("egress", "autonomous"))
        await until(lambda: world.emulator.calls.snapshot()["t1"] == 1)
        process.signal(signal.SIGTERM)
        answer = await waiting

    assert authorization(answer)["appid"] == world.agent["client_id"]
    assert 0 == process.wait()


async def test_sigterm_does_not_wait_for_streams_of_secrets(world: World, serve: Serve) -> None:
    """They never end by themselves: the drain is over when no Check comes, not when they are gone."""
    process = serve(listen={"grpc": f"unix:{world.folder}/authz.sock", "drain_timeout": "1h"})
    async with SecretStream(f"unix:{world.folder}/authz.sock") as envoy:
        await envoy.ask("autonomous")
        await envoy.hear()
        process.signal(signal.SIGTERM)

        assert 0 == await asyncio.to_thread(process.wait)
        assert grpc.StatusCode.OK != (await envoy.status())[0]
    assert "Traceback" not in process.log()


async def test_reload_ends_only_the_pushed_token_of_a_route_that_is_gone(
    world: World, serve: Serve, write: Callable[..., Path]
) -> None:
    """What is no longer configured is empty at once; what stays is the same token, not fetched again."""
    process = serve(reload_interval="0s")
    address = f"unix:{world.folder}/authz.sock"
    async with SecretStream(address) as gone, SecretStream(address) as kept:
        await gone.ask("autonomous")
        await kept.ask("app")
        before = (await gone.hear())["autonomous"], (await kept.hear())["app"]
        fetched = world.emulator.calls.snapshot()
        document = world.config(reload_interval="0s")
        del document["egress"]["autonomous"]
        write(document)
        process.signal(signal.SIGHUP)

        assert {"autonomous": ""} == await gone.hear()
        async with SecretStream(address) as later:
            await later.ask("app")
            after = (await later.hear())["app"]
    assert all(before)
    assert claims(after.removeprefix("Bearer "))["appid"] == world.reports["client_id"]
    assert before[1] == after
    assert fetched == world.emulator.calls.snapshot()
    (record,) = [one for one in process.events() if one["event"] == "secret refused"]
    assert ("autonomous", "no egress route has this name") == (record["secret"], record["cause"])


async def test_connections_age_and_are_replaced_without_a_loss(world: World, serve: Serve) -> None:
    """A connection that is asked to go away finishes its calls; clients come back on another."""
    aging = {**TCP, "max_connection_age": "1s", "max_connection_age_grace": "5s"}
    process = serve(listen=aging)
    address = process.event("serving")["grpc"]
    async with Client(address) as bystander, load(address, world) as going:
        await bystander.check("egress", "autonomous")
        async with asyncio.timeout(20):
            await bystander.asked_to_go_away()
        await going.reach(50)

    assert [] == going.failures
    assert 0 == going.outcomes["wrong"]


async def test_configuration_reload_under_load(
    world: World, serve: Serve, write: Callable[..., Path]
) -> None:
    """A new version is applied whole, a bad one refused loudly, and no request notices."""
    process = serve(reload_interval="100ms")
    async with load(f"unix:{world.folder}/authz.sock", world) as going:
        document = world.config(reload_interval="100ms")
        document["egress"]["added"] = document["egress"]["autonomous"]
        write(document)
        await asyncio.to_thread(process.event, "configuration applied")
        async with Client(f"unix:{world.folder}/authz.sock") as client:
            added = await client.check("egress", "added")
            broken = world.config()
            broken["egress"]["graph"]["agent"] = "nobody"
            write(broken)
            await asyncio.to_thread(
                process.event, "configuration refused, the previous one stays in use"
            )
            still = await client.check("egress", "added")
        await going.reach(100)

    assert (
        authorization(added)["appid"] == authorization(still)["appid"] == world.agent["client_id"]
    )
    assert [] == going.failures
    metrics = process.admin("/metrics").text
    assert 'authz_config_reloads_total{outcome="refused"} 1.0' in metrics
    assert "authz_config_refused 1.0" in metrics
    assert "egress.graph.agent" in process.admin("/status").json()["configuration"]["refused"]


async def test_a_refused_configuration_shows_no_password(
    world: World, serve: Serve, write: Callable[..., Path]
) -> None:
    """Neither in the log nor in `/status`, which an agent in the same pod may read."""
    process = serve(reload_interval="0s")
    document = world.config(reload_interval="0s")
    document["entra"]["authority"] = "https://user:hunter2@login.example"
    document["egress"]["graph"]["hosts"] = ["graph.example/?key=hunter2"]
    write(document)
    process.signal(signal.SIGHUP)
    await asyncio.to_thread(process.event, "configuration refused, the previous one stays in use")
    refused = process.admin("/status").json()["configuration"]["refused"]

    assert "found 'https://…@login.example'" in refused
    assert "found 'graph.example/?…'" in refused
    assert "hunter2" not in refused + process.log()


async def test_removed_route_is_denied_after_reload(
    world: World, serve: Serve, write: Callable[..., Path]
) -> None:
    """What is no longer configured is no longer granted, warm cache or not."""
    process = serve(reload_interval="0s")
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        before = await client.check("egress", "autonomous")
        document = world.config(reload_interval="0s")
        del document["egress"]["autonomous"]
        write(document)
        process.signal(signal.SIGHUP)
        await asyncio.to_thread(process.event, "configuration applied")
        after = await client.check("egress", "autonomous")

    assert authorization(before)["appid"] == world.agent["client_id"]
    assert problem(after)["reason"] == "unknown_route"


async def test_the_log_level_changes_without_a_restart(
    world: World, serve: Serve, write: Callable[..., Path]
) -> None:
    """At `debug` each exchange has a record; at `info` only those that fail."""
    process = serve(reload_interval="0s")
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        await client.check("egress", "autonomous")
        quiet = [record for record in process.events() if record["event"] == "exchange"]
        write(world.config(reload_interval="0s", log={"level": "debug"}))
        process.signal(signal.SIGHUP)
        await asyncio.to_thread(process.event, "configuration applied")
        await client.check("egress", "autonomous-clerk")

    assert [] == quiet
    assert "debug" == process.event("exchange")["level"]


@pytest.mark.parametrize("kill", [False, True])
async def test_workers_share_a_port_and_are_replaced(
    world: World, serve: Serve, kill: bool
) -> None:
    """Two workers on one port: metrics add up, a killed one is replaced, SIGTERM ends all."""
    process = serve(listen={**TCP, "workers": 2})
    address = process.event("supervising")["grpc"]
    for _ in range(8):
        async with Client(address) as client:
            assert authorization(await client.check("egress", "autonomous"))
    workers = process.admin("/status").json()["workers"]
    counted = 'authz_checks_total{decision="allow",direction="egress",reason="none",route="autonomous"} 8.0'
    # A worker writes its counts to its file in a moment.
    await until(lambda: counted in process.admin("/metrics").text)
    assert "authz_ready 1.0" in process.admin("/metrics").text
    assert 2 == len({worker["pid"] for worker in workers.values()})
    if kill:
        import os  # noqa: PLC0415

        os.kill(workers["0"]["pid"], signal.SIGKILL)
        await asyncio.to_thread(process.event, "worker ended")
        await asyncio.to_thread(process.wait_ready)
        async with Client(address) as client:
            assert authorization(await client.check("egress", "autonomous"))
    process.signal(signal.SIGTERM)

    assert 0 == process.wait()
