"""`Status`: what a running process says of itself, to Prometheus and to `/status`.

Nothing is decided or changed here: whether Checks can be answered is `authz.process.app`'s business.
"""

from collections.abc import Callable, Mapping
from typing import Any

from authz import __version__
from authz.config import ConfigWatch
from authz.config.compile import digest_of
from authz.doors.envoy.pairing import Pairing
from authz.doors.envoy.sds import SecretDiscovery
from authz.observe.gauges import Gauges
from authz.observe.metrics import Metrics
from authz.observe.observers import Observers
from authz.observe.output import LogOutput
from authz.observe.registry import Registry
from authz.pod_ca.certificates import PodCertificates
from authz.process.engine import Engine
from authz.process.reload import Reload


class Status:
    """What is known of the parts of a running process.

    Args:
        engine: Decides.
        missing: Says what is missing before Checks can be answered.
        reload: Watches the configuration and the files that it names.
        watch: The version of the configuration.
        pairing: Envoys that connect, and their configuration.
        secrets: Pushes tokens and certificates to them.
        certificates: Of this pod; None where it has none.
        metrics: Where lost log records are counted.
        gauges: Where the rest goes.
        registry: What is served of them.
        observers: Bound what a failure here can do.
        output: Where log records go.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        missing: Callable[[], dict[str, Any]],
        reload: Reload,
        watch: ConfigWatch,
        pairing: Pairing,
        secrets: SecretDiscovery,
        certificates: PodCertificates | None,
        metrics: Metrics,
        gauges: Gauges,
        registry: Registry,
        observers: Observers,
        output: LogOutput,
    ) -> None:
        self._engine = engine
        self._missing = missing
        self._reload = reload
        self._watch = watch
        self._pairing = pairing
        self._secrets = secrets
        self._certificates = certificates
        self._metrics = metrics
        self._gauges = gauges
        self._registry = registry
        self._observers = observers
        self._output = output

    def measured(self) -> Registry:
        """Return the metrics, with gauges of this moment."""
        self.gauge(self._missing())
        return self._registry

    def gauge(self, missing: Mapping[str, Any]) -> None:
        """Update the gauges. A failure is counted, and ends nothing."""
        self._observers.attempt(lambda: self._state_all(missing))

    def _state_all(self, missing: Mapping[str, Any]) -> None:
        self._observers.flush()
        self._metrics.count_log(self._output.dropped, self._observers.failures)
        self._gauges.state(ready=not missing, config_refused=self._watch.refused is not None)
        self._gauges.caches(self._engine.entries(), self._engine.evictions())
        self._gauges.key_ages(self._engine.key_ages())
        expiries = self._engine.pushed.expiries()
        if self._certificates is not None:
            expiries |= self._certificates.expiries()
        self._gauges.secrets(expiries, self._secrets.streams())
        self._gauges.unserved(self._engine.unserved(), known=self._engine.servable())
        self._gauges.files({key: bool(fault) for key, fault in self._reload.files.items()})
        self._gauges.expiries(self._engine.credential_expiries())
        self._gauges.credentials(
            refused=self._engine.refused_credentials(),
            unreadable=self._engine.unreadable_credentials(),
            proved=self._engine.proved_credentials(),
        )
        self._gauges.clock(self._engine.clock_difference())
        self._gauges.envoys(self._pairing.counts())
        self._gauges.circuits(self._engine.circuits())

    def notices(self) -> dict[str, Any]:
        """Return what is wrong although Checks are answered."""
        refused: dict[str, list[str]] = {}
        for client, kind in sorted(self._engine.refused_credentials()):
            refused.setdefault(client, []).append(kind)
        return {"credentials_refused": refused} if refused else {}

    def _digest(self) -> str:
        """Return the digest of the file, or of what the variables make, credentials left out."""
        if self._watch.source.path is not None:
            return self._watch.current.digest
        return digest_of(self._engine.config)

    def document(self) -> dict[str, Any]:
        """Return what `/status` shows."""
        config = self._engine.config
        return {
            "version": __version__,
            "configuration": {
                "digest": self._digest(),
                "source": str(self._watch.source.path or "environment"),
                "refused": self._watch.refused,
                "waits_for_start": self._reload.waiting,
                "inbound": sorted(config.inbound),
                "egress": {name: route.flow.value for name, route in config.egress.items()},
            },
            "missing": self._engine.missing() | self._missing(),
            "optional_signing_keys_missing": self._engine.optional_keys_missing(),
            **self.notices(),
            "credentials": self._engine.credentials(),
            "files": self._reload.files,
            "cache_entries": {name.value: count for name, count in self._engine.entries().items()},
            "envoy": self._pairing.status(),
            "pushed_secrets": self._engine.pushed.status(),
            "clock_difference_seconds": self._engine.clock_difference(),
            "signing_keys_age_seconds": {
                issuer: round(age, 1) for issuer, age in self._engine.key_ages().items()
            },
        }
