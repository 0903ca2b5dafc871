"""The running program where its log cannot be written: decisions, probes and reloads go on as usual."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final

import httpx
import pytest

from support.faults.output import PIPE, broken_pipe, full_disk, small_pipe
from support.programs.stack import Client, Process, World, authorization, problem
from support.proxy.envoy import free_port

pytestmark = pytest.mark.thorough

Write = Callable[..., Path]
DENIALS: Final = 60
"""Their records are more than that."""


class Running:
    """The service with standard output elsewhere, asked over a Unix socket."""

    def __init__(self, process: Process, admin: Path, address: str) -> None:
        self.process = process
        self.address = address
        self._socket = admin
        transport = httpx.HTTPTransport(uds=str(admin))
        self._admin = httpx.Client(transport=transport, base_url="http://admin", timeout=10)

    def ask(self, path: str) -> httpx.Response:
        """Ask the admin endpoint."""
        return self._admin.get(path)

    def wait_for(self, path: str, expected: Callable[[httpx.Response], bool]) -> httpx.Response:
        """Ask until the answer is as expected."""
        end = monotonic() + 60
        while True:
            assert self.process.running, self.process.log()
            if self._socket.exists() and expected(answer := self.ask(path)):
                return answer
            os.sched_yield()
            assert monotonic() < end, f"{path} never was as expected"

    def close(self) -> None:
        """Forget the connections."""
        self._admin.close()


@contextmanager
def running(world: World, write: Write, output: int, **listen: Any) -> Iterator[Running]:
    """Run the service with this standard output."""
    admin = world.folder / "admin.sock"
    address = listen.get("grpc", f"unix:{world.folder}/authz.sock")
    listen = {"grpc": address, "admin": f"unix:{admin}", **listen}
    file = write(listen=listen, reload_interval="0s")
    with Process("serve", "--config", str(file), output=output) as process:
        service = Running(process, admin, address)
        service.wait_for("/readyz", lambda answer: answer.status_code == 200)
        yield service
        service.close()


async def deny(client: Client, number: int) -> None:
    """Ask for what is denied and logged."""
    for _ in range(number):
        assert "unknown_route" == problem(await client.check("egress", "nowhere"))["reason"]


async def test_a_log_that_nobody_reads_holds_up_nothing(world: World, write: Write) -> None:
    """Records wait for their reader, who then gets them whole and in order; nothing else waits."""
    reading, writing = small_pipe()
    with running(world, write, writing) as service:
        os.close(writing)
        async with Client(service.address) as client:
            await deny(client, DENIALS)
            allowed = await client.check("egress", "graph", world.token())
        live = await asyncio.to_thread(service.ask, "/livez")
        service.process.signal(signal.SIGTERM)
        with os.fdopen(reading, "rb") as pipe:
            lines = await asyncio.to_thread(pipe.read)
        status = await asyncio.to_thread(service.process.wait)

    records = [json.loads(line) for line in lines.splitlines()]
    decisions = [record["decision"] for record in records if record["event"] == "check"]
    assert authorization(allowed)["appid"] == world.agent["client_id"]
    assert 200 == live.status_code
    assert PIPE < len(lines)
    assert ["deny"] * DENIALS + ["allow"] == decisions
    assert "stopped" == records[-1]["event"]
    assert 0 == status


async def test_the_end_does_not_wait_for_a_reader_who_never_comes(
    world: World, write: Write
) -> None:
    """What cannot be written within two seconds is lost."""
    reading, writing = small_pipe()
    with running(world, write, writing) as service:
        async with Client(service.address) as client:
            await deny(client, DENIALS)
        service.process.signal(signal.SIGTERM)
        status = await asyncio.to_thread(service.process.wait)
    os.close(reading)
    os.close(writing)

    assert 0 == status


def dropped_in(metrics: str) -> float:
    """Return how many records were dropped."""
    (line,) = [
        line for line in metrics.splitlines() if line.startswith("authz_log_records_dropped_total")
    ]
    return float(line.rpartition(" ")[2])


@pytest.mark.parametrize("output", [broken_pipe, full_disk])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_log_that_cannot_be_written_fails_nothing(
    world: World, write: Write, output: Callable[[], int], workers: int
) -> None:
    """Denials, new users, probes, and a reload: all as usual. What was lost is counted."""
    descriptor = output()
    listen = {"workers": workers, "grpc": f"127.0.0.1:{free_port()}"} if workers > 1 else {}
    with running(world, write, descriptor, **listen) as service:
        os.close(descriptor)
        async with Client(service.address) as client:
            await deny(client, 3)
            allowed = await client.check("egress", "graph", world.token())
            document = world.config(
                listen={
                    "admin": f"unix:{world.folder}/admin.sock",
                    "grpc": service.address,
                    **listen,
                },
                reload_interval="0s",
            )
            document["egress"]["added"] = document["egress"]["autonomous"]
            write(document)
            service.process.signal(signal.SIGHUP)
            await asyncio.to_thread(
                service.wait_for,
                "/metrics",
                lambda a: f'authz_config_reloads_total{{outcome="applied"}} {workers}.0' in a.text,
            )
            added = await client.check("egress", "added")
        live = await asyncio.to_thread(service.ask, "/livez")
        # Processes of workers state their counts once a second.
        metrics = await asyncio.to_thread(
            service.wait_for, "/metrics", lambda answer: dropped_in(answer.text) > 4
        )
        service.process.signal(signal.SIGTERM)
        status = await asyncio.to_thread(service.process.wait)

    assert authorization(allowed)["appid"] == authorization(added)["appid"]
    assert 200 == live.status_code
    assert "authz_observer_failures_total 0.0" in metrics.text
    assert 0 == status
    assert "Traceback" not in service.process.last_log
