"""Several workers and what becomes of them: the supervisor is killed, workers come and go."""

import asyncio
import os
import resource
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from structlog.testing import capture_logs

from authz.config import ConfigSource
from authz.observe.registry import FOLDER_VARIABLE, forget_worker, gathered_registry
from authz.process import worker
from support.programs.holdings import descriptors
from support.programs.stack import Client, Process, World, authorization, until

pytestmark = pytest.mark.thorough

Write = Callable[..., Path]
WORKERS = 2


@contextmanager
def supervised(world: World, write: Write) -> Iterator[Process]:
    """Run two workers; temporary files go to the folder of the test."""
    file = write(
        listen={"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0", "workers": WORKERS},
        reload_interval="0s",
    )
    with Process("serve", "--config", str(file), environ={"TMPDIR": str(world.folder)}) as process:
        yield process.wait_ready()


def workers(process: Process) -> list[int]:
    """Return the process ids of the workers that there are."""
    found = process.admin("/status").json()["workers"].values()
    return [worker["pid"] for worker in found if worker["pid"] is not None]


def lives(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def folder_of(pid: int) -> Path:
    """Return the folder of a worker's metrics."""
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    (value,) = [one for one in variables if one.startswith(f"{FOLDER_VARIABLE}=")]
    return Path(value.partition("=")[2])


async def test_workers_end_with_their_supervisor(world: World, write: Write) -> None:
    """However it ends. What it leaves in the folder for temporary files goes when the next one starts."""
    with supervised(world, write) as process:
        pids = workers(process)
        folder = folder_of(pids[0])
        process.signal(signal.SIGKILL)
        await until(lambda: not any(map(lives, pids)), seconds=60)
        log = process.log()
    left = folder.exists()
    with supervised(world, write) as process:
        folders = [each.name for each in world.folder.glob("authz-metrics-*")]
        mine = folder_of(workers(process)[0]).name

    assert WORKERS == len(pids)
    assert WORKERS == log.count("the supervisor is gone, stopping")
    assert "Traceback" not in log
    assert left
    assert [mine] == folders
    assert [] == list(world.folder.glob("authz-metrics-*"))


async def test_files_of_workers_that_ended_are_gone_and_their_counts_stay(
    world: World, write: Write
) -> None:
    """A worker that ends again and again leaves nothing of its own, and no count goes back."""
    counted = 'authz_checks_total{decision="allow",direction="egress",reason="none",route="autonomous"} %d.0'
    with supervised(world, write) as process:
        folder = folder_of(workers(process)[0])
        address = process.event("supervising")["grpc"]
        for number in (1, 2):
            async with Client(address) as client:
                assert authorization(await client.check("egress", "autonomous"))
            before = workers(process)
            # Counts of repetitions reach the files a moment later.
            await until(lambda n=number: counted % n in process.admin("/metrics").text)
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            await until(
                lambda old=before: WORKERS == len(now := workers(process)) and not {*old} & {*now},
                seconds=60,
            )
            await asyncio.to_thread(process.wait_ready)
        metrics = process.admin("/metrics").text
        owners = {file.stem.rpartition("_")[2] for file in folder.glob("*.db")}
        living = {str(pid) for pid in workers(process)}

    assert living | {"ended"} == owners
    assert counted % 2 in metrics
    assert (
        'authz_check_duration_seconds_count{decision="allow",direction="egress",route="autonomous"} 2.0'
        in metrics
    )


async def test_a_worker_that_cannot_be_started_is_started_later(world: World, write: Write) -> None:
    """No descriptor may be left for a moment; each try ends without leaving one behind."""
    with supervised(world, write) as process:
        (old, *_), held = workers(process), descriptors(process.pid)
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (1, limits[1]))
        os.kill(old, signal.SIGKILL)
        events = [await asyncio.to_thread(process.event, "worker not started")]
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        await until(lambda: WORKERS == len(now := workers(process)) and old not in now, seconds=60)
        await asyncio.to_thread(process.wait_ready)
        await until(lambda: descriptors(process.pid) <= held)
        assert 0 == process.stop()

    assert [(0, "Too many open files")] == [(event["seat"], event["cause"]) for event in events]


async def test_each_process_has_its_own_series(world: World, write: Write) -> None:
    """The supervisor and its workers: memory, processor and descriptors."""
    with supervised(world, write) as process:
        metrics = process.admin("/metrics").text

    for name in ("process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"):
        for one in ("supervisor", "worker 0", "worker 1"):
            assert f'\n{name}{{process="{one}"}} ' in metrics
    assert 1 == metrics.count("# TYPE process_resident_memory_bytes ")
    assert "\npython_info{" in metrics


async def test_without_any_worker_the_metrics_say_that_nothing_is_served(
    world: World, write: Write
) -> None:
    """Each worker has ended and finds a faulty configuration: alerts must not take silence for health."""
    shown = "\nauthz_ready %d.0\n", "\nauthz_config_refused %d.0\n"
    with supervised(world, write) as process:
        before = process.admin("/metrics").text
        (world.folder / "authz.yaml").write_text("x: [")
        process.signal(signal.SIGHUP)
        await until(lambda: shown[1] % 1 in process.admin("/metrics").text)
        refused = process.admin("/metrics").text
        for pid in workers(process):
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not workers(process))
        after = process.admin("/metrics").text

    assert [True, True] == [
        line % value in before for line, value in zip(shown, (1, 0), strict=True)
    ]
    assert shown[0] % 1 in refused
    assert [True, True] == [
        line % value in after for line, value in zip(shown, (0, 1), strict=True)
    ]


async def test_a_second_sigterm_ends_workers_at_once(world: World, write: Write) -> None:
    """As it ends a single process: nobody waits for the drain."""
    file = write(
        listen={
            "grpc": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "workers": WORKERS,
            "drain_delay": "60s",
        }
    )
    with Process("serve", "--config", str(file)) as process:
        process.wait_ready()
        process.signal(signal.SIGTERM)
        await until(
            lambda: WORKERS == [each["event"] for each in process.events()].count("draining")
        )
        process.signal(signal.SIGTERM)
        assert 0 == process.wait(20)


@asynccontextmanager
async def kept(world: World, write: Write, ended: list[int]) -> AsyncIterator[worker.Worker]:
    """Keep one worker running in the block; ids of processes that have ended are added to the list."""
    file = write(listen={"grpc": "127.0.0.1:0", "admin": None, "workers": WORKERS})
    lifeline, held = os.pipe()
    stopping = asyncio.Event()
    one = worker.Worker(
        0,
        ConfigSource.find(file, dict(os.environ)),
        variables={FOLDER_VARIABLE: str(world.folder)},
        address="127.0.0.1:0",
        lifeline=lifeline,
        stopping=stopping,
        forget=ended.append,
    )
    running = asyncio.create_task(one.keep_running())
    try:
        yield one
    finally:
        stopping.set()
        one.signal(signal.SIGTERM)
        await running
        os.close(held)
        os.close(lifeline)


def stop(one: worker.Worker) -> int:
    """Have its process hang, and return the process's id."""
    pid = one.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return pid


async def test_a_worker_that_hangs_is_not_ready_and_then_replaced(
    world: World, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds connections that nobody answers, and would do so for ever."""
    monkeypatch.setattr(worker, "SILENCE", 2.0)
    ended: list[int] = []
    async with kept(world, write, ended) as one:
        await until(lambda: one.ready, seconds=60)
        hung = stop(one)
        await until(lambda: not one.ready)
        still = one.pid
        await until(lambda: one.ready, seconds=60)
        replaced = one.pid

    assert hung == still != replaced
    assert [hung, replaced] == ended


async def test_a_worker_that_never_says_a_word_is_replaced(
    world: World, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hangs before it can serve: no probe would notice."""
    monkeypatch.setattr(worker, "LONGEST_START", 1.0)
    ended: list[int] = []
    async with kept(world, write, ended) as one:
        await until(lambda: one.pid is not None)
        hung = stop(one)
        await until(lambda: [hung] == ended)
        monkeypatch.setattr(worker, "LONGEST_START", 60.0)
        await until(lambda: one.ready, seconds=60)


def test_a_metrics_file_that_was_just_being_made_ends_nothing(tmp_path: Path) -> None:
    """Its worker was killed between the two steps of that; what others counted stays."""
    for file in ("counter_7.db", "gauge_livemax_7.db", "histogram_7.db"):
        (tmp_path / file).touch()
    (tmp_path / "counter_8.db").touch()
    with capture_logs() as logs:
        forget_worker(7, tmp_path)

    assert ["counter_8.db"] == [file.name for file in tmp_path.iterdir()]
    assert {"counter_7.db", "histogram_7.db"} == {record["file"] for record in logs}


def test_a_scrape_counts_a_worker_that_ends_once(tmp_path: Path) -> None:
    """Its counts are added to those of others while somebody reads."""
    pids = range(1, 120)
    for pid in pids:
        file: Any = MmapedDict(str(tmp_path / f"counter_{pid}.db"))  # type: ignore[no-untyped-call]
        file.write_value(mmap_key("checks", "checks_total", [], [], "Checks."), 1.0, 0.0)
        file.close()
    ended, seen = threading.Event(), set()

    def scrape() -> None:
        while not ended.is_set():
            registry = gathered_registry(tmp_path, {}, ready=True, config_refused=False)
            seen.add(registry.get_sample_value("checks_total"))

    with ThreadPoolExecutor(1) as threads:
        scraping = threads.submit(scrape)
        for pid in pids:
            forget_worker(pid, tmp_path)
        ended.set()
        scraping.result()

    assert {float(len(pids))} == seen
