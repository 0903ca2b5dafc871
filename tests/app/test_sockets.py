"""The running program and the places of its Unix sockets: lost, taken by another process, shared."""

import asyncio
import socket
import stat
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from authz.doors.envoy.grpc_server import MOST_RETIRING
from support.programs.holdings import descriptors
from support.programs.stack import Client, Process, World, authorization, until

pytestmark = pytest.mark.thorough

Serve = Callable[..., Process]


def over(file: Path) -> httpx.Client:
    """Return a client over a Unix socket."""
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(file)), base_url="http://admin")


async def test_a_socket_that_was_removed_is_made_again(world: World, serve: Serve) -> None:
    """New connections get in after a second, with the same permissions; those that there are stay."""
    process = serve()
    file = world.folder / "authz.sock"
    async with Client(f"unix:{file}") as before:
        await before.check("egress", "autonomous")
        for number in (1, 2):
            file.unlink()
            await until(lambda n=number: n == len(_mended(process)))
        still = await before.check("egress", "autonomous")
        async with Client(f"unix:{file}") as after:
            new = await after.check("egress", "autonomous")
        mode = stat.S_IMODE(file.stat().st_mode)

    assert authorization(still)["appid"] == authorization(new)["appid"] == world.agent["client_id"]
    assert 0o600 == mode
    assert 200 == process.admin("/readyz").status_code
    assert 0 == process.stop()
    assert not file.exists()
    assert [] == list(world.folder.glob(".*"))


async def test_a_socket_that_is_removed_again_and_again_costs_no_more_each_time(
    world: World, serve: Serve
) -> None:
    """Connections that there are stay for a while, but not those of every socket there was."""
    process = serve()
    file = world.folder / "authz.sock"
    held = []
    async with AsyncExitStack() as clients:
        for number in range(1, MOST_RETIRING + 4):
            client = await clients.enter_async_context(Client(f"unix:{file}"))
            await client.check("egress", "autonomous")
            file.unlink()
            await until(lambda n=number: n == len(_mended(process)))
            held.append(descriptors(process.pid))

    assert held[-1] - held[MOST_RETIRING] <= 2
    assert held[MOST_RETIRING] - held[0] > 2


def _mended(process: Process) -> list[str]:
    return [
        record["address"]
        for record in process.events()
        if record["event"] == "socket was gone, serving at a new one"
    ]


@pytest.mark.parametrize("kind", ["a file", "a loop of links"])
async def test_a_folder_that_is_none_any_more_ends_nothing(
    world: World, serve: Serve, kind: str
) -> None:
    """Not ready, with the reason, and right again with the folder."""
    folder = world.folder / "sockets"
    folder.mkdir()
    address = {"grpc": f"unix:{folder}/authz.sock", "admin": "127.0.0.1:0"}
    process = serve(listen=address)
    folder.rename(world.folder / "away")
    if kind == "a file":
        folder.write_text("")
    else:
        folder.symlink_to(folder.name)
    await until(lambda: 503 == process.admin("/readyz").status_code, seconds=30)
    missing = process.admin("/readyz").json()["missing"]
    live = process.admin("/livez").status_code
    folder.unlink()
    await until(lambda: 200 == process.admin("/readyz").status_code, seconds=30)
    async with Client(f"unix:{folder}/authz.sock") as client:
        served = authorization(await client.check("egress", "autonomous"))

    assert "cannot be had again" in missing["listen.grpc"]
    assert 200 == live
    assert world.agent["client_id"] == served["appid"]


async def test_sockets_of_http_listeners_are_made_again(
    world: World, write: Callable[..., Path]
) -> None:
    """The admin endpoints over a Unix socket as well."""
    admin = world.folder / "admin.sock"
    file = write(listen={"grpc": f"unix:{world.folder}/authz.sock", "admin": f"unix:{admin}"})
    with Process("serve", "--config", str(file)) as process:
        await asyncio.to_thread(process.event, "ready")
        admin.unlink()
        await until(lambda: [f"unix:{admin}"] == _mended(process))
        with over(admin) as client:
            live = await asyncio.to_thread(client.get, "/livez")
        assert 0 == await asyncio.to_thread(process.stop)

    assert 200 == live.status_code
    assert not admin.exists()


async def test_a_second_instance_on_one_socket_is_refused(
    world: World, serve: Serve, write: Callable[..., Path]
) -> None:
    """At its start, with the reason; the first one and its socket stay as they are."""
    serve()
    file = world.folder / "authz.sock"
    inode = file.stat().st_ino
    with Process("serve", "--config", str(write())) as second:
        assert 1 == await asyncio.to_thread(second.wait)
        assert f"cannot listen on unix:{file}: another process serves there" in second.log()
    async with Client(f"unix:{file}") as client:
        answer = await client.check("egress", "autonomous")

    assert inode == file.stat().st_ino
    assert authorization(answer)["appid"] == world.agent["client_id"]


async def test_a_start_that_fails_leaves_no_socket_behind(
    world: World, write: Callable[..., Path]
) -> None:
    """The Check door comes last; what listened before it is gone when its socket cannot be had."""
    file, checks = world.folder / "authz.sock", world.folder / "no-socket"
    checks.write_text("a file")
    document = write(listen={"grpc": f"unix:{file}", "checks": f"unix:{checks}"})
    with Process("serve", "--config", str(document)) as process:
        assert 1 == await asyncio.to_thread(process.wait)
        assert f"listen.checks: cannot listen on unix:{checks}: the path exists" in process.log()

    assert not file.exists()
    assert "a file" == checks.read_text()


@pytest.mark.parametrize("listening", [True, False])
async def test_a_socket_of_another_process_is_left_alone(
    world: World, serve: Serve, listening: bool
) -> None:
    """Not ready while somebody else serves at our path, and only our own socket goes with us.

    A socket that nobody listens on any more is replaced.
    """
    process = serve()
    file, others = world.folder / "authz.sock", world.folder / "others.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(others))
        if listening:
            other.listen()
        inode = others.stat().st_ino
        others.replace(file)
        if listening:
            await until(lambda: 503 == process.admin("/readyz").status_code)
            missing = process.admin("/readyz").json()["missing"]
        else:
            await until(lambda: [f"unix:{file}"] == _mended(process))
        assert 0 == await asyncio.to_thread(process.stop)
        if listening:
            assert {"listen.grpc": f"another process has taken unix:{file}"} == missing
            assert inode == file.stat().st_ino
        else:
            assert not file.exists()
