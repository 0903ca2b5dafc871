"""The composition root: builds every object once, in start order, and stops them in reverse.

`run` is one process: start, readiness, drain. What changes while it runs is in `authz.process.reload`, what
it says of itself in `authz.process.status`, and several processes on one port in `authz.process.supervisor`.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import structlog
import uvloop

from authz import __version__
from authz.config import ConfigSource, ConfigWatch
from authz.core.address import TcpAddress, parse_address
from authz.core.route import PeerSource
from authz.doors.admin.server import AdminServer
from authz.doors.envoy.ext_authz import ExtAuthz
from authz.doors.envoy.grpc_server import GrpcServer, ListenError
from authz.doors.envoy.http2.server import CheckServer
from authz.doors.envoy.pairing import Pairing
from authz.doors.envoy.sds import SecretDiscovery
from authz.doors.http_server import HttpServer
from authz.doors.sidecar_api.server import SidecarApi
from authz.entra.aadsts import MEANINGS
from authz.entra.tenant_names import TenantNames
from authz.observe.decision_log import DecisionLog
from authz.observe.gauges import Gauges
from authz.observe.logging import log_output
from authz.observe.metrics import Metrics
from authz.observe.observers import Observers
from authz.observe.output import LogOutput
from authz.observe.registry import own_registry
from authz.process.engine import Engine
from authz.process.reload import Reload, log_as_configured
from authz.process.seat import WorkerSeat
from authz.process.status import Status
from authz.process.wiring.grpc_door import check_server, server_settings
from authz.process.wiring.pod_authority import pod_certificates
from authz.system import listen_fault
from authz.system.allocator import give_back
from authz.system.collector import Collector, settle
from authz.system.rounds import Rounds

HOUSEKEEPING: Final = 1.0
"""Seconds between looks at readiness."""
STARTING: Final = 5.0
"""Seconds from the start within which it is normal that something is still missing."""
QUIET: Final = 0.5
"""Seconds without a Check after which those who ask have taken notice of a stop."""
TURN: Final = 0.001
"""Seconds after which a thread that computes lets the event loop go on, where it waits for that."""
_log = structlog.get_logger("authz")


class App:
    """One serving process.

    Args:
        source: Where the configuration comes from, and the environment.
        output: Where log records go.
        seat: The place among several processes; None when this is the only one.
    """

    def __init__(
        self,
        source: ConfigSource,
        *,
        output: LogOutput,
        seat: WorkerSeat | None = None,
    ) -> None:
        self._seat = seat
        self._watch = ConfigWatch(source)
        log_as_configured(self._watch.current.config)
        self._tenants = TenantNames(self._watch.source.tenants)
        self._learn_tenant_now()
        config = self._watch.current.config
        registry = own_registry()
        metrics = Metrics(registry, frozenset(MEANINGS))
        decisions = DecisionLog(config.log.decisions)
        self._observers = Observers(
            [metrics, decisions], reads_records=lambda: decisions.reads_records
        )
        self._engine = Engine(config, environ=source.environ, observer=self._observers)
        peers_have_names = (
            config.listen.tls is not None and config.listen.tls.client_ca_file is not None
        )
        pairing = Pairing(self._engine.rendered, timer=time.monotonic)
        self._ext_authz = ExtAuthz(
            self._engine.service,
            timer=time.monotonic,
            default_timeout=config.limits.check_timeout,
            margin=config.limits.deadline_margin,
            peers_have_names=peers_have_names,
            believes_source=config.listen.workload_identity is PeerSource.SOURCE_PRINCIPAL,
            note_mark=pairing.note,
        )
        self._certificates = pod_certificates(config)
        secrets = SecretDiscovery(
            self._engine.pushed,
            self._observers,
            peers_have_names=peers_have_names,
            certificates=self._certificates,
            note_mark=pairing.note,
        )
        self._grpc = GrpcServer(
            server_settings(config, shared_address=seat.address if seat is not None else None),
            [self._ext_authz.handler(), secrets.handler()],
        )
        self._checks = check_server(config, self._ext_authz)
        self._api = (
            SidecarApi(
                config.listen.api,
                self._engine.issuer,
                config,
                observer=self._observers,
                missing=self._missing,
                timer=time.monotonic,
            )
            if config.listen.api is not None and seat is None
            else None
        )
        self._reload = Reload(
            self._watch,
            tenants=self._tenants,
            engine=self._engine,
            pairing=pairing,
            api=self._api,
            decisions=decisions,
            metrics=metrics,
            observers=self._observers,
        )
        self._status = Status(
            engine=self._engine,
            missing=self._missing,
            reload=self._reload,
            watch=self._watch,
            pairing=pairing,
            secrets=secrets,
            certificates=self._certificates,
            metrics=metrics,
            gauges=Gauges(registry),
            registry=registry,
            observers=self._observers,
            output=output,
        )
        self._admin = (
            AdminServer(
                config.listen.admin,
                registry=self._status.measured,
                readiness=self._missing,
                notices=self._status.notices,
                status=self._status.document,
            )
            if config.listen.admin is not None and seat is None
            else None
        )
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._started = False
        self._doors: dict[str, str] = {}
        """Why nobody can connect, by listener."""

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT (the second one hurries); SIGHUP reloads at once.

        Raises:
            ListenError: An address cannot be had.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.soon)
        # An earlier SIGHUP was ignored.
        self._reload.soon()
        if self._seat is not None:
            loop.add_reader(self._seat.lifeline, self._orphaned, self._seat.lifeline)
            os.set_blocking(self._seat.report_to, False)
        for notice in self._watch.current.warnings:
            _log.warning("configuration", path=notice.path, notice=notice.message)
        config = self._engine.config
        if self._admin is not None:
            await _listening(self._admin, "admin", config.listen.admin)
        if self._api is not None:
            await _listening(self._api, "api", config.listen.api)
        await self._grpc.start()
        if self._checks is not None:
            try:
                await _listening(self._checks, "checks", config.listen.checks)
            except ListenError:
                await self._grpc.stop()
                raise
        # Only now: who has no address needs nothing of Entra.
        self._engine.start()
        self._started = True
        _log.info(
            "serving",
            version=__version__,
            grpc=_with_port(config.listen.grpc, self._grpc.port),
            **({} if self._checks is None else {"checks": config.listen.checks}),
            admin=_with_port(config.listen.admin, self._admin.port) if self._admin else None,
            api=_with_port(config.listen.api, self._api.port) if self._api else None,
            pid=os.getpid(),
        )
        background = [
            loop.create_task(self._watch_readiness()),
            loop.create_task(self._reload.watch_configuration()),
            loop.create_task(self._reload.watch_files()),
            loop.create_task(self._reload.learn_tenant()),
        ]
        stop = loop.create_task(self._stopping.wait())
        # A background task that ends has failed; better to stop and be restarted than to go on blind.
        await asyncio.wait([stop, *background], return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        await self._drain()
        for task in (stop, *background):
            task.cancel()
        failures = [
            result
            for result in await asyncio.gather(*background, return_exceptions=True)
            if isinstance(result, Exception)
        ]
        if failures:
            raise failures[0]

    async def _drain(self) -> None:
        """Say so to health checkers, and serve on until nobody asks any more.

        A gRPC server that stops cancels the calls that are on their way to it. So it goes on until
        those who ask have taken notice: Envoy has turned to another replica, or has ended itself.
        """
        listen = self._engine.config.listen
        _log.info("draining", delay=listen.drain_delay, timeout=listen.drain_timeout)
        await self._grpc.set_serving(serving=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(listen.drain_delay + listen.drain_timeout):
                await self._wait_hurried(listen.drain_delay)
                while not (self._hurry.is_set() or self._ext_authz.is_quiet(QUIET)):
                    await self._wait_hurried(QUIET / 10)
        await self._grpc.stop()
        if self._checks is not None:
            await self._checks.stop()
        if self._api is not None:
            await self._api.stop()
        await self._engine.stop()
        self._observers.flush()
        if self._admin is not None:
            await self._admin.stop()
        _log.info("stopped")

    async def _wait_hurried(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    def _told_to_stop(self) -> None:
        """Stop with grace when told once, at once when told twice."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def _orphaned(self, lifeline: int) -> None:
        """Stop with grace: nobody would give this process a new configuration, or ever end it."""
        asyncio.get_running_loop().remove_reader(lifeline)
        _log.error("the supervisor is gone, stopping")
        self._told_to_stop()

    def _missing(self) -> dict[str, Any]:
        if self._stopping.is_set():
            return {"state": "stopping"}
        missing = ({} if self._engine.is_ready() else self._engine.missing()) | self._doors
        if (name := self._watch.current.tenant_name) is not None:
            missing["tenant"] = f"{name}: {self._tenants.fault or 'about to be looked up'}"
        if not self._started:
            missing["state"] = "starting"
        return missing

    async def _watch_readiness(self) -> None:
        last: dict[str, Any] | None = None
        unserved: set[tuple[str, str]] = set()
        started: float | None = time.monotonic()
        renewal, doors = Rounds("renewal of certificates"), Rounds("mending of sockets")
        collector = Collector()
        while True:
            collector.tend(self._observers.seen)
            self._engine.check()
            self._engine.sweep()
            if self._certificates is not None:
                with renewal.surviving():
                    self._certificates.renew()
            with doors.surviving():
                await self._mend_doors()
            missing = self._missing()
            if started is not None and (not missing or time.monotonic() - started >= STARTING):
                # What is still missing is missing for too long: it is said once more, as a warning.
                started, last = None, None if missing else last
            if missing != last:
                last = missing
                await self._say_readiness(missing, starting=started is not None)
            if self._seat is not None:
                self._report(self._seat.report_to, missing)
            if not missing and (now := self._engine.unserved()) != unserved:
                unserved = now
                if now:
                    _log.warning("ready, but not for all", **self._engine.missing())
            await asyncio.sleep(HOUSEKEEPING if not missing else HOUSEKEEPING / 10)

    def _report(self, descriptor: int, missing: Mapping[str, Any]) -> None:
        """Report to the supervisor whether Checks can be answered. Without reports it takes us to hang."""
        # It reads the values of each process from a file, so they are written regularly.
        self._status.gauge(missing)
        # The supervisor may be gone, or may be stopped for so long that the pipe is full.
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(descriptor, b"0\n" if missing else b"1\n")

    async def _say_readiness(self, missing: Mapping[str, Any], *, starting: bool) -> None:
        """Say to health checkers and to the log whether Checks can be answered."""
        if not self._stopping.is_set():
            await self._grpc.set_serving(serving=not missing)
            if not missing:
                _log.info("ready")
            elif starting:
                _log.info("not ready yet", **missing)
            else:
                _log.warning("not ready", **missing)

    async def _mend_doors(self) -> None:
        if self._stopping.is_set():
            return
        doors = {"grpc": self._grpc, "checks": self._checks, "admin": self._admin, "api": self._api}
        causes = {name: await door.mend() for name, door in doors.items() if door is not None}
        self._doors = {f"listen.{name}": cause for name, cause in causes.items() if cause}

    def _learn_tenant_now(self) -> None:
        """Try once before anything is built, so that a start usually is one with the tenant's id."""
        current = self._watch.current
        if current.tenant_name is None:
            return
        self._tenants.learn(current.tenant_name, current.config)
        if (known := self._watch.look()) is not None:
            self._watch.adopt(known)


def run(source: ConfigSource, seat: WorkerSeat | None = None) -> int:
    """Serve until told to stop; return the exit status.

    Some threads may still wait for Entra then. The caller need not wait for them (`authz.system.ending`).

    Raises:
        ConfigError: The configuration has faults.
    """

    async def serve(output: LogOutput) -> None:
        app = App(source, output=output, seat=seat)
        settle()
        await app.run()

    give_back()
    sys.setswitchinterval(TURN)
    try:
        with log_output() as output:
            # Not closed: it would wait for threads.
            asyncio.Runner(loop_factory=uvloop.new_event_loop).run(serve(output))
    except ListenError as error:
        print(f"authz: {error}", file=sys.stderr)  # noqa: T201 - the log may not be there yet
        return 1
    return 0


async def _listening(server: HttpServer | CheckServer, key: str, address: str | None) -> None:
    try:
        await server.start()
    except OSError as error:
        raise ListenError(
            f"listen.{key}: cannot listen on {address}: {listen_fault.words(error)}"
        ) from error


def _with_port(address: str | None, port: int | None) -> str | None:
    found = None if address is None else parse_address(address)
    if not isinstance(found, TcpAddress) or port is None:
        return address
    return str(TcpAddress(found.host, port))
