"""`Gauges`: the metrics of what a process holds and of how its parts are, stated when Prometheus asks.

What is counted as it happens is in `authz.observe.metrics`. Labels come from closed sets here, too.
"""

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from authz import __version__
from authz.core.record import CacheName

READY: Final = ("authz_ready", "1 while Checks can be answered, as `/readyz` has it, else 0.")
CONFIG_REFUSED: Final = (
    "authz_config_refused",
    "1 while the newest configuration is refused, else 0.",
)
Pair = tuple[str, str]
_Labels = TypeVar("_Labels", bound=tuple[str, ...])
_CREDENTIAL: Final = ("client", "kind")
_Mode = Literal["livemax", "livemin", "livesum", "livemostrecent"]
"""What is shown of the values of several workers."""


class _Changing:
    """A gauge whose label values come and go.

    What is stated no more gets a value that raises no alarm: the files of several workers cannot forget a
    label.

    Args:
        gauge: Where values go.
        gone: The value of what is stated no more.
    """

    def __init__(self, gauge: Gauge, *, gone: float) -> None:
        self._gauge = gauge
        self._gone = gone
        self._seen: set[tuple[str, ...]] = set()

    def state(self, values: Mapping[_Labels, float]) -> None:
        for labels in self._seen - values.keys():
            self._gauge.labels(*labels).set(self._gone)
        self._seen |= values.keys()
        for labels, value in values.items():
            self._gauge.labels(*labels).set(value)


class _Total:
    """A counter of what somebody else counts.

    Args:
        counter: Where the growth goes.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._seen: dict[str, int] = {}

    def state(self, totals: Mapping[str, int]) -> None:
        for label, number in totals.items():
            before = self._seen.get(label, 0)
            # A number that fell is that of a new cache or endpoint, which began at 0.
            self._counter.labels(label).inc(number - before if number >= before else number)
            self._seen[label] = number


class Gauges:
    """What is stated of a process.

    Args:
        registry: Where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(
            name: str, meaning: str, labels: tuple[str, ...] = (), *, mode: _Mode = "livemax"
        ) -> Gauge:
            return Gauge(name, meaning, labels, registry=registry, multiprocess_mode=mode)

        self._ready = gauge(*READY, mode="livemin")
        self._config_refused = gauge(*CONFIG_REFUSED)
        self._envoys = gauge(
            "authz_envoy_configurations",
            "Different configurations of the Envoys that asked in the last 5 minutes: rendered from this one "
            "(matched), from another (outdated), or without saying so (unknown).",
            ("match",),
        )
        self._clock_difference = gauge(
            "authz_clock_difference_seconds",
            "Time by which our clock is ahead of Entra's; negative if behind.",
            mode="livemostrecent",
        )
        self._cache_entries = gauge(
            "authz_cache_entries", "Entries held.", ("cache",), mode="livesum"
        )
        self._cache_evictions = _Total(
            Counter(
                "authz_cache_evictions",
                "Live entries that were evicted.",
                ["cache"],
                registry=registry,
            )
        )
        self._keys_age = _Changing(
            gauge(
                "authz_signing_keys_age_seconds",
                "Time since the issuer's keys were last fetched.",
                ("issuer",),
            ),
            gone=0,
        )
        self._circuit_open = _Changing(
            gauge(
                "authz_entra_circuit_open",
                "1 while exchanges of some client of a tenant fail without being carried out, because the "
                "token endpoint keeps failing for it; single calls try whether it is well again.",
                ("tenant",),
            ),
            gone=0,
        )
        self._circuit_openings = _Total(
            Counter(
                "authz_entra_circuit_openings",
                "How often a circuit at a tenant's token endpoint has opened, also after a try that failed.",
                ["tenant"],
                registry=registry,
            )
        )
        self._secret_streams = gauge(
            "authz_secret_streams",
            "Streams of secrets: one for each secret of each Envoy.",
            mode="livesum",
        )
        self._secret_expiry = _Changing(
            gauge(
                "authz_pushed_secret_expiry_seconds",
                "Time until the token that Envoys hold expires; 0 without one.",
                ("secret",),
                mode="livemin",
            ),
            gone=math.inf,
        )
        self._unserved = _Changing(
            gauge(
                "authz_unserved",
                "1 while an issuer has no signing keys, or a client no usable credential, else 0.",
                ("kind", "name"),
            ),
            gone=0,
        )
        self._file_unusable = _Changing(
            gauge(
                "authz_file_unusable",
                "1 while a file of certificates that the configuration names cannot be used, else 0.",
                ("key",),
            ),
            gone=0,
        )
        self._credential_expiry = _Changing(
            gauge(
                "authz_credential_expiry_seconds",
                "Time until the certificate in use by a client expires.",
                _CREDENTIAL,
                mode="livemin",
            ),
            gone=math.inf,
        )
        self._credential_refused = _Changing(
            gauge(
                "authz_credential_refused",
                "1 while Entra refuses the newest version of a client's credential, else 0.",
                _CREDENTIAL,
            ),
            gone=0,
        )
        self._credential_unreadable = _Changing(
            gauge(
                "authz_credential_unreadable",
                "1 while a credential of a client cannot be read, 0 while all that are tried can.",
                _CREDENTIAL,
            ),
            gone=0,
        )
        self._credential_accepted = _Changing(
            gauge(
                "authz_credential_accepted",
                "1 if Entra has taken the newest version of a client's credential, 0 while it has not.",
                _CREDENTIAL,
                mode="livemin",
            ),
            gone=1,
        )
        build = gauge("authz_build_info", "Always 1; the version is the label.", ("version",))
        build.labels(__version__).set(1)

    def state(self, *, ready: bool, config_refused: bool) -> None:
        """State whether Checks can be answered, and by the newest configuration."""
        self._ready.set(ready)
        self._config_refused.set(config_refused)

    def envoys(self, counts: Mapping[str, int]) -> None:
        """State how many different configurations Envoys have, by how they match ours."""
        for match, count in counts.items():
            self._envoys.labels(match).set(count)

    def clock(self, difference: float | None) -> None:
        """State by how many seconds our clock is ahead of Entra's, once that is known."""
        if difference is not None:
            self._clock_difference.set(difference)

    def caches(self, entries: Mapping[CacheName, int], evictions: Mapping[CacheName, int]) -> None:
        """State how much each cache holds, and how many entries were evicted since it was made."""
        for cache, count in entries.items():
            self._cache_entries.labels(cache.value).set(count)
        self._cache_evictions.state({cache.value: number for cache, number in evictions.items()})

    def key_ages(self, ages: Mapping[str, float]) -> None:
        """State the seconds since each issuer's keys were fetched."""
        self._keys_age.state({(issuer,): age for issuer, age in ages.items()})

    def circuits(self, circuits: Mapping[str, tuple[bool, int]]) -> None:
        """State for each tenant whether a circuit is open, and how often one has opened."""
        self._circuit_open.state({(tenant,): is_open for tenant, (is_open, _) in circuits.items()})
        self._circuit_openings.state({tenant: opened for tenant, (_, opened) in circuits.items()})

    def secrets(self, expiries: Mapping[str, float], streams: int) -> None:
        """State what Envoys hold: seconds until each token expires, and the streams of all of them."""
        self._secret_streams.set(streams)
        self._secret_expiry.state({(name,): seconds for name, seconds in expiries.items()})

    def unserved(self, unserved: AbstractSet[Pair], *, known: AbstractSet[Pair]) -> None:
        """State which issuers and clients cannot be served, by kind and name, of all that are known."""
        self._unserved.state({entry: entry in unserved for entry in unserved | known})

    def files(self, unusable: Mapping[str, bool]) -> None:
        """State which files of certificates cannot be used, by their keys in the configuration."""
        self._file_unusable.state({(key,): is_unusable for key, is_unusable in unusable.items()})

    def expiries(self, expiries: Mapping[Pair, float]) -> None:
        """State the seconds until the certificates in use expire, by client and kind."""
        self._credential_expiry.state(expiries)

    def credentials(
        self,
        *,
        refused: AbstractSet[Pair],
        unreadable: Mapping[Pair, bool],
        proved: Mapping[Pair, bool],
    ) -> None:
        """State what is known of the clients' credentials, by client and kind.

        Args:
            refused: Those whose newest version Entra refuses.
            unreadable: Whether one cannot be read; all that are tried.
            proved: Whether Entra has taken its newest version.
        """
        self._credential_refused.state({key: key in refused for key in refused | unreadable.keys()})
        self._credential_unreadable.state(unreadable)
        self._credential_accepted.state(proved)
