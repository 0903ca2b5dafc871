"""Several worker processes on one port: has them run, stops them, and answers for them.

Each worker is `authz serve` itself with a `WorkerSeat`. The kernel spreads connections over them
(SO_REUSEPORT). Metrics are gathered from files that the workers share with this process.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from authz import __version__
from authz.config import Config, ConfigError, ConfigSource, ConfigWatch, Fault
from authz.core.address import EVERY_ADDRESS, TcpAddress, parse_tcp_address
from authz.doors.admin.server import AdminServer
from authz.doors.envoy.grpc_server import ListenError
from authz.observe.logging import configure_logging, log_output
from authz.observe.registry import (
    FOLDER_VARIABLE,
    Registry,
    forget_worker,
    gathered_registry,
    metrics_folder,
)
from authz.process.worker import Worker
from authz.system import listen_fault
from authz.system.rounds import Rounds

KILL_GRACE: Final = 15.0
"""Seconds beyond the drain that a worker gets before it is killed."""
_log = structlog.get_logger("authz.process.supervisor")


class Supervisor:
    """Keeps `listen.workers` processes running.

    Args:
        source: Where the configuration comes from, and the environment, which workers inherit.
        metrics_folder: An empty folder for the metrics that workers share.
    """

    def __init__(self, source: ConfigSource, metrics_folder: Path) -> None:
        self._source = source
        self._metrics_folder = metrics_folder
        self._watch = ConfigWatch(source)
        self._config: Config = self._watch.current.config
        self._reload_now = asyncio.Event()
        _configure_logging(self._config)
        self._workers: list[Worker] = []
        self._stopping = asyncio.Event()
        # Nobody writes to it. Its other end ends when this process does, even where that is killed.
        self._lifeline, self._held = os.pipe()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; SIGHUP is passed on to the workers.

        Raises:
            ListenError: An address cannot be had.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)
        # An earlier SIGHUP was ignored.
        self._reload_now.set()
        listen = self._config.listen
        admin = None
        if listen.admin is not None:
            admin = AdminServer(
                listen.admin,
                registry=self._registry,
                readiness=self._missing,
                status=self._status,
            )
            try:
                await admin.start()
            except OSError as error:
                cause = listen_fault.words(error)
                raise ListenError(
                    f"listen.admin: cannot listen on {listen.admin}: {cause}"
                ) from error
        with _hold_port(listen.grpc) as address:
            _log.info(
                "supervising", version=__version__, grpc=address, workers=listen.workers,
                admin=_admin_address(listen.admin, admin), pid=os.getpid(),
            )  # fmt: skip
            self._workers += [self._worker(number, address) for number in range(listen.workers)]
            running = [loop.create_task(worker.keep_running()) for worker in self._workers]
            following = loop.create_task(self._follow_log_settings())
            stop = loop.create_task(self._stopping.wait())
            # Another task that ends first has failed: better to stop and be restarted than to go on blind.
            await asyncio.wait([stop, following, *running], return_when=asyncio.FIRST_COMPLETED)
            self._stopping.set()
            self._pass_on(signal.SIGTERM)
            patience = listen.drain_delay + listen.drain_timeout + KILL_GRACE
            _, late = await asyncio.wait(running, timeout=patience)
            if late:
                _log.error("workers did not stop in time, killed", workers=len(late))
                self._pass_on(signal.SIGKILL)
                await asyncio.wait(late)
            for task in (following, *running):
                if not task.cancel():
                    task.result()
        if admin is not None:
            await admin.stop()
        _log.info("stopped")

    async def _follow_log_settings(self) -> None:
        """Log as each new version says. All the rest of a version is the workers' business, faults too."""
        rounds = Rounds("look at log settings")
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._watch.current.config.reload_interval or None):
                    await self._reload_now.wait()
            self._reload_now.clear()
            with rounds.surviving(), contextlib.suppress(ConfigError):
                if (new := await asyncio.to_thread(self._watch.look)) is not None:
                    self._watch.adopt(new)
                    _configure_logging(new.config)

    def _told_to_stop(self) -> None:
        """Drain at the first signal; at the second, have the workers stop at once."""
        if self._stopping.is_set():
            self._pass_on(signal.SIGTERM)
        self._stopping.set()

    def _told_to_reload(self) -> None:
        for worker in self._workers:
            worker.reload()
        self._reload_now.set()

    def _worker(self, number: int, address: str) -> Worker:
        return Worker(
            number,
            self._source,
            variables={FOLDER_VARIABLE: str(self._metrics_folder)},
            address=address,
            lifeline=self._lifeline,
            stopping=self._stopping,
            forget=lambda pid: forget_worker(pid, self._metrics_folder),
        )

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.signal(number)

    def _pids(self) -> dict[str, int]:
        workers = {f"worker {worker.number}": worker.pid for worker in self._workers}
        return {"supervisor": os.getpid(), **{name: pid for name, pid in workers.items() if pid}}

    def _registry(self) -> Registry:
        """Return the metrics of all workers, and what this process knows even if none is there to say it."""
        return gathered_registry(
            self._metrics_folder,
            self._pids(),
            ready=not self._missing(),
            config_refused=self._watch.refused is not None,
        )

    def _missing(self) -> dict[str, Any]:
        if self._stopping.is_set():
            return {"state": "stopping"}
        if not self._workers:
            return {"state": "starting"}
        waiting = [worker.number for worker in self._workers if not worker.ready]
        return {"workers": waiting} if waiting else {}

    def _status(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "workers": {
                str(worker.number): {"ready": worker.ready, "pid": worker.pid}
                for worker in self._workers
            },
        }


def supervise(source: ConfigSource) -> int:
    """Run several workers until told to stop; return the exit status.

    Raises:
        ConfigError: The configuration has faults, or is in a pipe, which each worker would have to read.
    """
    if source.is_pipe:
        raise ConfigError(
            [
                Fault(
                    "listen.workers",
                    "found a configuration from a pipe: expected a file, for each worker reads it",
                )
            ]
        )
    with metrics_folder() as folder:

        async def serve() -> None:
            await Supervisor(source, folder).run()

        try:
            with log_output():
                uvloop.run(serve())
        except ListenError as error:
            print(f"authz: {error}", file=sys.stderr)  # noqa: T201 - a message for the terminal
            return 1
    return 0


def _configure_logging(config: Config) -> None:
    configure_logging(level=config.log.level.value, style=config.log.format.value)


@contextlib.contextmanager
def _hold_port(address: str) -> Iterator[str]:
    """Reserve a port for workers that come and go: bound here, listened on by them."""
    wanted = parse_tcp_address(address)
    held = wanted.host
    if held == EVERY_ADDRESS and not socket.has_dualstack_ipv6():
        # As the workers do it.
        held = "0.0.0.0"  # noqa: S104 - configured
    family = socket.AF_INET6 if ":" in held else socket.AF_INET
    with socket.socket(family) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            holder.bind((held, wanted.port))
        except OSError as error:
            cause = listen_fault.words(error)
            raise ListenError(f"listen.grpc: cannot listen on {address}: {cause}") from error
        yield str(TcpAddress(wanted.host, holder.getsockname()[1]))


def _admin_address(address: str | None, admin: AdminServer | None) -> str | None:
    if admin is None or address is None or admin.port is None:
        return address
    return f"{address.rpartition(':')[0]}:{admin.port}"
