"""`Reload`: notices what a running process should take over, and applies it as a whole or not at all.

That is a new version of the configuration, a change of files that it names, or the id of a tenant that it
names. What a version is built of is in `authz.process.version`, how the engine takes it over in
`authz.process.engine`; start, readiness and drain are in `authz.process.app`.
"""

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import Final

import structlog

from authz.config import Config, ConfigError, ConfigWatch
from authz.config.effect import in_effect
from authz.config.reading.named_files import NamedFiles
from authz.config.rendered import Difference, difference
from authz.config.source import Loaded
from authz.doors.envoy.pairing import Pairing
from authz.doors.sidecar_api.downstream import DownstreamClient
from authz.doors.sidecar_api.server import SidecarApi
from authz.entra.tenant_names import TenantNames
from authz.observe.decision_log import DecisionLog
from authz.observe.logging import configure_logging
from authz.observe.metrics import Metrics
from authz.observe.observers import Observers
from authz.process.engine import Engine
from authz.process.version import Version
from authz.system.rounds import Rounds

FILES: Final = 5.0
"""Seconds between looks at the files of certificates that the configuration names."""
_log = structlog.get_logger("authz")


@dataclass(frozen=True, slots=True)
class _Following:
    """A version that is built and not in use yet.

    Attributes:
        loaded: What was read, with the configuration that it comes to before the next start.
        waiting: Keys that wait for the next start.
        version: What decides.
        api: Client of the HTTP API.
        changed: What of it concerns Envoys.
    """

    loaded: Loaded
    waiting: list[str]
    version: Version
    api: DownstreamClient
    changed: Difference


class Reload:
    """The configuration of a running process, from version to version.

    Args:
        watch: The version in use, and an eye on its source.
        tenants: Finds out the ids of tenants that are configured by name.
        engine: Decides.
        pairing: Envoys that connect, and their configuration.
        api: The sidecar's HTTP API; None where there is none.
        decisions: Writes decisions to the log.
        metrics: Counts reloads.
        observers: Bound what a failure of these can do.
    """

    def __init__(
        self,
        watch: ConfigWatch,
        *,
        tenants: TenantNames,
        engine: Engine,
        pairing: Pairing,
        api: SidecarApi | None,
        decisions: DecisionLog,
        metrics: Metrics,
        observers: Observers,
    ) -> None:
        self._watch = watch
        self._first = watch.current.config
        self._tenants = tenants
        self._engine = engine
        self._pairing = pairing
        self._api = api
        self._decisions = decisions
        self._metrics = metrics
        self._observers = observers
        self._now = asyncio.Event()
        self._applied = asyncio.Event()
        """Set when another version is in use, which may name other files."""
        self.waiting: list[str] = []
        """Keys whose change waits for the next start."""
        self.files: dict[str, str | None] = {}
        """What is wrong with each file of certificates, by its key in the configuration."""

    def soon(self) -> None:
        """Look at the configuration now, not at the end of the interval."""
        self._now.set()

    async def watch_configuration(self) -> None:
        """Look for a new version at each interval, and when asked to; never ends."""
        while True:
            interval = self._engine.config.reload_interval
            try:
                async with asyncio.timeout(interval or None):
                    await self._now.wait()
            except TimeoutError:
                pass
            self._now.clear()
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
            # Off the loop: certificates are loaded and credentials read. Nothing of it is in use yet.
            following = await asyncio.to_thread(self._prepare, loaded)
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
        await self._apply(following)
        _log.info("configuration applied", digest=loaded.digest)
        if changed := following.changed:
            _log.warning(
                f"{'hosts' if changed.new_hosts or changed.gone_hosts else 'routes'} changed: render Envoy's "
                "configuration again",
                hosts=changed.new_hosts,
                hosts_gone=changed.gone_hosts,
                keys=changed.keys,
            )

    def _prepare(self, loaded: Loaded) -> "_Following":
        """Build everything that a new version needs. Blocks.

        Raises:
            Exception: It cannot be built, or not before the next start.
        """
        config, waiting = in_effect(self._first, loaded.config)
        version = self._engine.prepare(config)
        changed = difference(self._engine.rendered, version.rendered)
        api = DownstreamClient(config.api)
        return _Following(replace(loaded, config=config), waiting, version, api, changed)

    async def _apply(self, following: "_Following") -> None:
        config = following.loaded.config
        for key in following.waiting:
            _log.warning("takes effect at the next start", key=key)
        # First, so that no new policy decides for an Envoy that counts as rendered from it and is not.
        self._pairing.swap(following.version.rendered)
        await self._engine.apply(following.version)
        if self._api is not None:
            await self._api.swap(config, following.api)
        self._watch.adopt(following.loaded)
        self.waiting = following.waiting
        self._applied.set()
        log_as_configured(config)
        self._decisions.which = config.log.decisions
        # From now on what the log reads is gathered.
        self._observers.flush()
        self._observers.attempt(lambda: self._metrics.reloaded(applied=True))

    def _refused(self, faults: str) -> None:
        self._observers.attempt(lambda: self._metrics.reloaded(applied=False))
        _log.error("configuration refused, the previous one stays in use", faults=faults)

    async def watch_files(self) -> None:
        """Reload when a file of certificates that the configuration names has changed; never ends."""
        named, rounds = NamedFiles(), Rounds("look at certificate files")
        # Those of the version in use. While any file is faulty a change waits, however many looks that takes.
        in_use = None
        while True:
            with rounds.surviving():
                found = await asyncio.to_thread(named.look, self._engine.config)
                before, self.files = self.files, found
                seen = named.of_versions()
                if in_use is None:
                    in_use = seen
                elif in_use != seen and not any(found.values()):
                    in_use = seen
                    _log.info("certificate file changed", keys=[key for key, _, _ in seen])
                    self._watch.look_again()
                    self._now.set()
                for key, fault in found.items():
                    if fault is not None and fault != before.get(key):
                        _log.error("certificate file not usable", key=key, cause=fault)
                    elif fault is None and before.get(key) is not None:
                        _log.info("certificate file usable again", key=key)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FILES):
                    await self._applied.wait()
            self._applied.clear()

    async def learn_tenant(self) -> None:
        """Find out the id of a tenant that is configured by name, then reload; never ends."""
        rounds = Rounds("look-up of a tenant")
        while (name := self._watch.current.tenant_name) is not None:
            await asyncio.sleep(self._tenants.pause)
            with rounds.surviving():
                if await asyncio.to_thread(self._tenants.learn, name, self._watch.current.config):
                    self._now.set()
        await asyncio.Event().wait()


def log_as_configured(config: Config) -> None:
    """Give the log the level and the style that a configuration asks for."""
    configure_logging(level=config.log.level.value, style=config.log.format.value)
