"""The composition root: builds every object once, in start order, and stops them in reverse.

`run` is one process. Several processes on one port are `authz.process.supervisor`'s business.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from authz import __version__
from authz.config import Config, ConfigError, ConfigSource, ConfigWatch
from authz.config.effect import in_effect
from authz.config.reading.named_files import NamedFiles
from authz.config.rendered import difference
from authz.core.policy import PeerSource
from authz.doors.admin.server import AdminServer
from authz.doors.envoy.ext_authz import ExtAuthz
from authz.doors.envoy.grpc_server import GrpcServer, ListenError
from authz.doors.envoy.pairing import Pairing
from authz.doors.envoy.sds import SecretDiscovery
from authz.doors.http_server import HttpServer
from authz.doors.sidecar_api.downstream import DownstreamClient
from authz.doors.sidecar_api.server import SidecarApi
from authz.entra.aadsts import MEANINGS
from authz.entra.tenant_names import TenantNames
from authz.observe.decision_log import DecisionLog
from authz.observe.logging import configure_logging, log_output
from authz.observe.metrics import Metrics
from authz.observe.observers import Observers
from authz.observe.output import LogOutput
from authz.observe.registry import Registry, own_registry
from authz.process.engine import Engine
from authz.process.wiring.grpc_door import server_settings
from authz.process.wiring.pod_authority import pod_certificates
from authz.system.allocator import give_back
from authz.system.rounds import Rounds

HOUSEKEEPING: Final = 1.0
"""Seconds between looks at readiness, and between updates of the gauges."""
STARTING: Final = 5.0
"""Seconds from the start within which it is normal that something is still missing."""
FILES: Final = 5.0
"""Seconds between looks at the files of certificates that the configuration names."""
QUIET: Final = 0.5
"""Seconds without a Check after which those who ask have taken notice of a stop."""
_log = structlog.get_logger("authz")


@dataclass(frozen=True, slots=True)
class WorkerSeat:
    """The place of this process among several that share a port.

    Attributes:
        address: Where to listen: the configured address with the port that the supervisor holds.
        report_to: File descriptor to which readiness is reported, a line each time it changes.
        lifeline: File descriptor that ends when the supervisor does, however it ends.
    """

    address: str
    report_to: int
    lifeline: int


class App:
    """One serving process.

    Args:
        config_file: The configuration file; None for the environment form.
        environ: Environment variables.
        output: Where log records go.
        seat: The place among several processes; None when this is the only one.
    """

    def __init__(
        self,
        config_file: Path | None,
        environ: Mapping[str, str],
        *,
        output: LogOutput,
        seat: WorkerSeat | None = None,
    ) -> None:
        self._seat = seat
        self._output = output
        self._watch = ConfigWatch(ConfigSource.find(config_file, environ))
        _configure_logging(self._watch.current.config)
        self._tenants = TenantNames(self._watch.source.tenants)
        self._learn_tenant_now()
        config = self._first = self._watch.current.config
        self._waiting: list[str] = []
        """Keys whose change waits for the next start."""
        self._registry = own_registry()
        self._metrics = Metrics(self._registry, frozenset(MEANINGS))
        self._decisions = DecisionLog(config.log.decisions)
        self._observers = Observers([self._metrics, self._decisions], secrets=self._metrics)
        self._engine = Engine(config, environ=environ, observer=self._observers)
        peers_have_names = (
            config.listen.tls is not None and config.listen.tls.client_ca_file is not None
        )
        self._pairing = Pairing(config, timer=time.monotonic)
        self._ext_authz = ExtAuthz(
            self._engine.service,
            timer=time.monotonic,
            default_timeout=config.limits.check_timeout,
            margin=config.limits.deadline_margin,
            peers_have_names=peers_have_names,
            believes_source=config.listen.workload_identity is PeerSource.SOURCE_PRINCIPAL,
            hear=self._pairing.hear,
        )
        self._certificates = pod_certificates(config)
        self._secrets = SecretDiscovery(
            self._engine.pushed,
            self._observers,
            peers_have_names=peers_have_names,
            certificates=self._certificates,
            hear=self._pairing.hear,
        )
        self._grpc = GrpcServer(
            server_settings(config, shared_address=seat.address if seat is not None else None),
            [self._ext_authz.handler(), self._secrets.handler()],
        )
        self._admin = (
            AdminServer(
                config.listen.admin,
                registry=self._measured,
                readiness=self._missing,
                notices=self._notices,
                status=self._status,
            )
            if config.listen.admin is not None and seat is None
            else None
        )
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
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reload_now = asyncio.Event()
        self._started = False
        self._doors: dict[str, str] = {}
        """Why nobody can connect, by listener."""
        self._files: dict[str, str | None] = {}
        """What is wrong with each file of certificates, by its key in the configuration."""

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT (the second one hurries); SIGHUP reloads at once.

        Raises:
            ListenError: An address cannot be had.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_now.set)
        if self._seat is not None:
            loop.add_reader(self._seat.lifeline, self._orphaned, self._seat.lifeline)
        for notice in self._watch.current.warnings:
            _log.warning("configuration", path=notice.path, notice=notice.message)
        config = self._engine.config
        if self._admin is not None:
            await _listening(self._admin, "admin", config.listen.admin)
        if self._api is not None:
            await _listening(self._api, "api", config.listen.api)
        await self._grpc.start()
        # Only now: threads that wait for Entra would delay the exit of a process whose address is taken.
        self._engine.start()
        self._started = True
        _log.info(
            "serving",
            version=__version__,
            grpc=_with_port(config.listen.grpc, self._grpc.port),
            admin=_with_port(config.listen.admin, self._admin.port) if self._admin else None,
            api=_with_port(config.listen.api, self._api.port) if self._api else None,
            pid=os.getpid(),
        )
        background = [
            loop.create_task(self._watch_readiness()),
            loop.create_task(self._watch_configuration()),
            loop.create_task(self._watch_files()),
            loop.create_task(self._learn_tenant()),
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

    def _measured(self) -> Registry:
        self._gauge(self._missing())
        return self._registry

    def _gauge(self, missing: Mapping[str, Any]) -> None:
        self._observers.attempt(lambda: self._state_all(missing))

    def _state_all(self, missing: Mapping[str, Any]) -> None:
        self._observers.flush()
        self._metrics.count_log(self._output.dropped, self._observers.failures)
        self._metrics.gauge_state(ready=not missing, config_refused=self._watch.refused is not None)
        self._metrics.gauge(self._engine.entries(), self._engine.key_ages())
        self._metrics.count_evictions(self._engine.evictions())
        expiries = self._engine.pushed.expiries()
        if self._certificates is not None:
            expiries |= self._certificates.expiries()
        self._metrics.gauge_secrets(expiries, self._secrets.streams())
        self._metrics.gauge_credentials(self._engine.credential_expiries())
        unreadable = self._engine.unreadable_credentials()
        self._metrics.gauge_unserved(self._engine.unserved(), known=self._engine.servable())
        self._metrics.gauge_refused(self._engine.refused_credentials(), known=unreadable.keys())
        self._metrics.gauge_unreadable(unreadable)
        self._metrics.gauge_files({key: bool(fault) for key, fault in self._files.items()})
        self._metrics.gauge_proved(self._engine.proved_credentials())
        self._metrics.gauge_envoys(self._pairing.counts())
        self._metrics.gauge_circuits(self._engine.circuits())

    def _missing(self) -> dict[str, Any]:
        if self._stopping.is_set():
            return {"state": "stopping"}
        missing = ({} if self._engine.is_ready() else self._engine.missing()) | self._doors
        if (name := self._watch.current.tenant_name) is not None:
            missing["tenant"] = f"{name}: {self._tenants.fault or 'about to be looked up'}"
        if not self._started:
            missing["state"] = "starting"
        return missing

    def _notices(self) -> dict[str, Any]:
        refused: dict[str, list[str]] = {}
        for client, kind in sorted(self._engine.refused_credentials()):
            refused.setdefault(client, []).append(kind)
        return {"credentials_refused": refused} if refused else {}

    def _status(self) -> dict[str, Any]:
        config = self._engine.config
        return {
            "version": __version__,
            "configuration": {
                "digest": self._watch.current.digest,
                "source": str(self._watch.source.path or "environment"),
                "refused": self._watch.refused,
                "waits_for_start": self._waiting,
                "inbound": sorted(config.inbound),
                "egress": {name: route.flow.value for name, route in config.egress.items()},
            },
            "missing": self._engine.missing() | self._missing(),
            **self._notices(),
            "credentials": self._engine.credentials(),
            "files": self._files,
            "cache_entries": {name.value: count for name, count in self._engine.entries().items()},
            "envoy": self._pairing.status(),
            "pushed_secrets": self._engine.pushed.status(),
            "signing_keys_age_seconds": {
                issuer: round(age, 1) for issuer, age in self._engine.key_ages().items()
            },
        }

    async def _watch_readiness(self) -> None:
        last: dict[str, Any] | None = None
        unserved: set[tuple[str, str]] = set()
        started: float | None = time.monotonic()
        renewal, doors = Rounds("renewal of certificates"), Rounds("mending of sockets")
        while True:
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
            self._gauge(missing)
            if not missing and (now := self._engine.unserved()) != unserved:
                unserved = now
                if now:
                    _log.warning("ready, but not for all", **self._engine.missing())
            await asyncio.sleep(HOUSEKEEPING if not missing else HOUSEKEEPING / 10)

    async def _say_readiness(self, missing: Mapping[str, Any], *, starting: bool) -> None:
        """Say to health checkers, to the log and to the supervisor whether Checks can be answered."""
        if not self._stopping.is_set():
            await self._grpc.set_serving(serving=not missing)
            if not missing:
                _log.info("ready")
            elif starting:
                _log.info("not ready yet", **missing)
            else:
                _log.warning("not ready", **missing)
        if self._seat is not None:
            with contextlib.suppress(BrokenPipeError):  # the supervisor is gone
                os.write(self._seat.report_to, b"0\n" if missing else b"1\n")

    async def _watch_files(self) -> None:
        named, rounds = NamedFiles(), Rounds("look at certificate files")
        while True:
            with rounds.surviving():
                seen = named.of_versions()
                found = await asyncio.to_thread(named.look, self._engine.config)
                before, self._files = self._files, found
                if seen and seen != named.of_versions() and not any(found.values()):
                    _log.info("certificate file changed", keys=[key for key, _, _ in seen])
                    self._watch.look_again()
                    self._reload_now.set()
                for key, fault in found.items():
                    if fault is not None and fault != before.get(key):
                        _log.error("certificate file not usable", key=key, cause=fault)
                    elif fault is None and before.get(key) is not None:
                        _log.info("certificate file usable again", key=key)
            await asyncio.sleep(FILES)

    async def _mend_doors(self) -> None:
        if self._stopping.is_set():
            return
        doors = {"grpc": self._grpc, "admin": self._admin, "api": self._api}
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

    async def _learn_tenant(self) -> None:
        """Find out the id of a tenant that is configured by name, then reload; never ends."""
        rounds = Rounds("look-up of a tenant")
        while (name := self._watch.current.tenant_name) is not None:
            await asyncio.sleep(self._tenants.pause)
            with rounds.surviving():
                if await asyncio.to_thread(self._tenants.learn, name, self._watch.current.config):
                    self._reload_now.set()
        await asyncio.Event().wait()

    async def _watch_configuration(self) -> None:
        while True:
            interval = self._engine.config.reload_interval
            try:
                async with asyncio.timeout(interval or None):
                    await self._reload_now.wait()
            except TimeoutError:
                pass
            self._reload_now.clear()
            await self._reload()

    async def _reload(self) -> None:
        """Apply a new version of the configuration as a whole, or refuse it and keep the old one."""
        was_refused = self._watch.refused is not None
        try:
            loaded = await asyncio.to_thread(self._watch.look)
        except ConfigError as error:
            self._refused(str(error))
            return
        if loaded is None:
            if was_refused and self._watch.refused is None:
                digest = self._watch.current.digest
                _log.info("configuration is again the one in use", digest=digest)
            return
        try:
            config, waiting = in_effect(self._first, loaded.config)
            # Off the loop: certificates are loaded and credentials read. Nothing of it is in use yet.
            version = await asyncio.to_thread(self._engine.prepare, config)
            api = await asyncio.to_thread(DownstreamClient, config.api)
        except Exception as error:  # noqa: BLE001 - whatever it is, the old version serves on
            # Else its type alone: its text may quote a file.
            cause = (
                str(error)
                if isinstance(error, ConfigError)
                else f"it cannot be built: {type(error).__name__}"
            )
            if self._watch.refuse(cause):
                self._refused(cause)
            return
        for key in waiting:
            _log.warning("takes effect at the next start", key=key)
        changed = difference(self._engine.config, config)
        await self._engine.apply(version)
        self._pairing.swap(config)
        if self._api is not None:
            await self._api.swap(config, api)
        self._watch.adopt(replace(loaded, config=config))
        self._waiting = waiting
        _configure_logging(config)
        self._decisions.which = config.log.decisions
        self._observers.attempt(lambda: self._metrics.reloaded(applied=True))
        _log.info("configuration applied", digest=loaded.digest)
        if changed:
            _log.warning(
                f"{'hosts' if changed.new_hosts or changed.gone_hosts else 'routes'} changed: render Envoy's "
                "configuration again",
                hosts=changed.new_hosts,
                hosts_gone=changed.gone_hosts,
                keys=changed.keys,
            )

    def _refused(self, faults: str) -> None:
        self._observers.attempt(lambda: self._metrics.reloaded(applied=False))
        _log.error("configuration refused, the old one goes on", faults=faults)


def run(
    config_file: Path | None, environ: Mapping[str, str], seat: WorkerSeat | None = None
) -> int:
    """Serve until told to stop; return the exit status.

    Raises:
        ConfigError: The configuration has faults.
    """

    async def serve(output: LogOutput) -> None:
        await App(config_file, environ, output=output, seat=seat).run()

    give_back()
    try:
        with log_output() as output:
            uvloop.run(serve(output))
    except ListenError as error:
        print(f"authz: {error}", file=sys.stderr)  # noqa: T201 - the log may not be there yet
        return 1
    return 0


def _configure_logging(config: Config) -> None:
    configure_logging(level=config.log.level.value, style=config.log.format.value)


async def _listening(server: HttpServer, key: str, address: str | None) -> None:
    try:
        await server.start()
    except OSError as error:
        raise ListenError(
            f"listen.{key}: cannot listen on {address}: {error.strerror or error}"
        ) from error


def _with_port(address: str | None, port: int | None) -> str | None:
    if address is None or address.startswith("unix:"):
        return address
    return f"{address.rpartition(':')[0]}:{port}"
