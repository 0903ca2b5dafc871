"""Signals before the service serves, and the end of one whose threads still wait for Entra."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from authz_dev.emulator import Fault
from support.programs import program
from support.programs.stack import Process, World, until

pytestmark = pytest.mark.thorough

Write = Callable[..., Path]
SOON = 3.0
"""Seconds: less than any of the requests here would take that nobody answers."""


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal. PID 1 of a container receives no other signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_during_the_start_ends_it(
    write: Write, number: signal.Signals, workers: int
) -> None:
    """Before anything is served there is nothing to drain: at once, by the status that a shell has for it."""
    file = write(listen={"grpc": "127.0.0.1:0", "admin": None, "workers": workers})
    with Process("serve", "--config", str(file)) as process:
        await until(lambda: catches(process.pid, signal.SIGTERM))
        process.signal(number)
        status = await asyncio.to_thread(process.wait)
        log = process.log()

    assert 128 + number == status
    assert "Traceback" not in log
    assert "serving" not in log


@pytest.mark.parametrize("workers", [1, 2])
async def test_sighup_during_the_start_ends_nothing(write: Write, workers: int) -> None:
    """SIGHUP ends neither it nor a worker that starts, and reloads once it serves."""

    def written(seconds: int) -> Path:
        listen = {"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0", "workers": workers}
        return write(listen=listen, limits={"check_timeout": f"{seconds}s"}, reload_interval="0s")

    with Process("serve", "--config", str(written(10))) as process:
        await until(lambda: catches(process.pid, signal.SIGHUP))
        process.signal(signal.SIGHUP)
        await asyncio.to_thread(process.event, "supervising" if workers > 1 else "serving")
        while not _count(process, "ready"):
            process.signal(signal.SIGHUP)
            await asyncio.to_thread(process.paused)
        await asyncio.to_thread(process.wait_ready)
        written(11)
        process.signal(signal.SIGHUP)
        await until(lambda: workers == _count(process, "configuration applied"))
        assert 0 == _count(process, "worker ended")


def _count(process: Process, event: str) -> int:
    return [each["event"] for each in process.events()].count(event)


@pytest.mark.parametrize("target", ["discovery", "token"])
async def test_an_end_waits_for_no_answer_of_entra(world: World, write: Write, target: str) -> None:
    """After `stopped` nothing waits for the threads that still ask."""
    world.emulator.faults.add(Fault("hang", target, count=1))
    config = world.config(listen={"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"})
    config["entra"] |= {
        "prove_credentials": True,
        "timeout": "60s",
        "exchange_timeout": "60s",
        "connect_timeout": "60s",
    }
    with Process("serve", "--config", str(write(config))) as process:
        await until(lambda: not world.emulator.faults.active())
        process.signal(signal.SIGTERM)
        await asyncio.to_thread(process.event, "stopped")
        stopped = time.monotonic()
        status = await asyncio.to_thread(process.wait)
        took = time.monotonic() - stopped

    assert 0 == status
    assert took < SOON


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AUTHZ_WORKER_SEAT": "1"}, "authz: AUTHZ_WORKER_SEAT: authz sets it for its own workers"),
        ({"AUTHZ_WORKER_SEAT": "127.0.0.1:0 a b"}, "expected it to be unset"),
        ({"AUTHZ_WORKER_SEAT": "127.0.0.1:0 7707 7708"}, "expected it to be unset"),
    ],
)
def test_a_seat_that_no_supervisor_gave_is_a_fault(
    write: Write, variables: dict[str, str], said: str
) -> None:
    """One line, and the exit status of a faulty configuration."""
    done = program.run("serve", "--config", write(), environ=variables)

    assert 2 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert said in done.stderr


def test_a_folder_for_metrics_of_other_programs_is_left_alone(write: Write, tmp_path: Path) -> None:
    """Images for Python's web servers set the variable; one process has no use for it."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    file = write(listen={"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"})
    variables = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    with Process("serve", "--config", str(file), environ=variables) as process:
        metrics = process.wait_ready().admin("/metrics").text

    assert "\nauthz_ready 1.0\n" in metrics
    assert "\nprocess_open_fds " in metrics
    assert [] == list(folder.iterdir())
