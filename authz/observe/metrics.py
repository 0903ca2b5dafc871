"""Every metric and every label is named here. Labels come from closed sets: never a user, token or host."""

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final, assert_never

from prometheus_client import CollectorRegistry, Counter, Gauge

from authz import __version__
from authz.core.decision import Allow, Decision, Deny
from authz.core.errors import AuthzError, EntraError
from authz.core.event import (
    Called,
    Decided,
    Event,
    Exchanged,
    LookedUp,
    Prefetched,
    Repeated,
    SecretRejected,
    SecretSent,
)
from authz.core.exchange import TokenExchange, blamed
from authz.core.outcome import Granted
from authz.core.record import CacheName, CacheResult
from authz.core.route import EgressRoute, Route
from authz.observe.histogram import Histogram
from authz.observe.labels import NONE, OTHER, check_labels, ending

CHECK_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
EXCHANGE_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 20.0)


class Metrics:
    """An observer that counts.

    Args:
        registry: Where the metrics are registered.
        known_codes: AADSTS numbers that get a label of their own; others are `other`.
    """

    def __init__(self, registry: CollectorRegistry, known_codes: frozenset[int]) -> None:
        self._known_codes = known_codes
        self._checks = Counter(
            "authz_checks", "Checks decided.",
            ["direction", "route", "decision", "reason"], registry=registry,
        )  # fmt: skip
        self._check_duration = Histogram(
            "authz_check_duration_seconds", "Time from a Check's arrival to its decision.",
            ["direction", "route", "decision"], buckets=CHECK_BUCKETS, registry=registry,
        )  # fmt: skip
        self._exchanges = Counter(
            "authz_exchanges", "Exchanges and legs carried out with Entra, by outcome.",
            ["flow", "outcome"], registry=registry,
        )  # fmt: skip
        self._exchange_duration = Histogram(
            "authz_exchange_duration_seconds", "Time of exchanges carried out with Entra.",
            ["flow"], buckets=EXCHANGE_BUCKETS, registry=registry,
        )  # fmt: skip
        self._prefetches = Counter(
            "authz_prefetches", "Exchanges begun before anybody asked, by outcome.",
            ["route", "outcome"], registry=registry,
        )  # fmt: skip
        self._downstream_duration = Histogram(
            "authz_downstream_duration_seconds", "Time of calls to APIs by the HTTP API, by class of status or reason.",
            ["route", "outcome"], buckets=EXCHANGE_BUCKETS, registry=registry,
        )  # fmt: skip
        self._entra_errors = Counter(
            "authz_entra_errors",
            "Exchanges that ended by a refusal of Entra, by AADSTS number; not those that a second "
            "try or an older credential of the client saved.",
            ["code"], registry=registry,
        )  # fmt: skip
        self._cache_lookups = Counter(
            "authz_cache_lookups", "Cache look-ups, by result.",
            ["cache", "result"], registry=registry,
        )  # fmt: skip
        self._cache_entries = Gauge(
            "authz_cache_entries", "Entries held.",
            ["cache"], registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self._cache_evictions = Counter(
            "authz_cache_evictions", "Live entries that were evicted.",
            ["cache"], registry=registry,
        )  # fmt: skip
        self._evictions_seen: dict[CacheName, int] = {}
        self._circuit_open = Gauge(
            "authz_entra_circuit_open",
            "1 while exchanges of some client of a tenant fail without being carried out, because the token "
            "endpoint keeps failing for it; single calls try whether it is well again.",
            ["tenant"], registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._circuit_openings = Counter(
            "authz_entra_circuit_openings",
            "How often a circuit at a tenant's token endpoint has opened, also after a try that failed.",
            ["tenant"], registry=registry,
        )  # fmt: skip
        self._openings_seen: dict[str, int] = {}
        self._fallbacks = Counter(
            "authz_subject_fallbacks",
            "Checks allowed by a token of the agent's own, as no user was found and the route does without.",
            ["route"], registry=registry,
        )  # fmt: skip
        self._rules = Counter(
            "authz_rules", "Checks decided on routes with rules; rule is none where no rule is for the request.",
            ["direction", "route", "rule", "decision"], registry=registry,
        )  # fmt: skip
        self._keys_age = Gauge(
            "authz_signing_keys_age_seconds", "Time since the issuer's keys were last fetched.",
            ["issuer"], registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._issuers_seen: set[str] = set()
        self._clock_difference = Gauge(
            "authz_clock_difference_seconds", "Time by which our clock is ahead of Entra's; negative if behind.",
            registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        self._config_reloads = Counter(
            "authz_config_reloads", "Configuration versions met, by outcome (applied, refused).",
            ["outcome"], registry=registry,
        )  # fmt: skip
        self._secret_expiry = Gauge(
            "authz_pushed_secret_expiry_seconds", "Time until the token that Envoys hold expires; 0 without one.",
            ["secret"], registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self._secret_pushes = Counter(
            "authz_secret_pushes", "Values sent to Envoys, by outcome (token, empty).",
            ["secret", "outcome"], registry=registry,
        )  # fmt: skip
        self._secret_nacks = Counter(
            "authz_secret_nacks", "Values that an Envoy could not use.",
            ["secret"], registry=registry,
        )  # fmt: skip
        self._secret_streams = Gauge(
            "authz_secret_streams", "Streams of secrets: one for each secret of each Envoy.",
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self._secrets_seen: set[str] = set()
        self._credential_expiry = Gauge(
            "authz_credential_expiry_seconds", "Time until the certificate in use by a client expires.",
            ["client", "kind"], registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self._credentials_seen: set[tuple[str, str]] = set()
        self._ready = Gauge(
            "authz_ready", "1 while Checks can be answered, as `/readyz` has it, else 0.",
            registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self._config_refused = Gauge(
            "authz_config_refused", "1 while the newest configuration is refused, else 0.",
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._unserved = Gauge(
            "authz_unserved",
            "1 while an issuer has no signing keys, or a client no usable credential, else 0.",
            ["kind", "name"], registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._unserved_seen: set[tuple[str, str]] = set()
        self._credential_refused = Gauge(
            "authz_credential_refused",
            "1 while Entra refuses the newest version of a client's credential, else 0.",
            ["client", "kind"], registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._credential_unreadable = Gauge(
            "authz_credential_unreadable",
            "1 while a credential of a client cannot be read, 0 while all that are tried can.",
            ["client", "kind"], registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._unreadable_seen: set[tuple[str, str]] = set()
        self._file_unusable = Gauge(
            "authz_file_unusable",
            "1 while a file of certificates that the configuration names cannot be used, else 0.",
            ["key"], registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._files_seen: set[str] = set()
        self._credential_accepted = Gauge(
            "authz_credential_accepted",
            "1 if Entra has taken the newest version of a client's credential, 0 while it has not.",
            ["client", "kind"], registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self._proved_seen: set[tuple[str, str]] = set()
        self._envoys = Gauge(
            "authz_envoy_configurations",
            "Different configurations of the Envoys that asked in the last 5 minutes: rendered from this one "
            "(matched), from another (outdated), or without saying so (unknown).",
            ["match"], registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self._refused_seen: set[tuple[str, str]] = set()
        self._dropped_records = Counter(
            "authz_log_records_dropped",
            "Log records that could not be written, or waited in vain for the reader of the log.",
            registry=registry,
        )
        self._observer_failures = Counter(
            "authz_observer_failures", "Failures to count or log something; no decision fails with them.",
            registry=registry,
        )  # fmt: skip
        self._log_seen = (0, 0)
        build = Gauge(
            "authz_build_info", "Always 1; the version is the label.",
            ["version"], registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        build.labels(__version__).set(1)
        # Looking up a child takes a lock and a tuple of texts; the combinations are few.
        self._check_children = lru_cache(maxsize=4096)(self._find_check_children)
        self._lookup_child = lru_cache(maxsize=64)(self._find_lookup_child)

    def observe(self, event: Event) -> None:
        """Count one event."""
        match event:
            case Decided(record):
                self._count_checks(record.route, record.rule, record.decision, [record.seconds])
            case Repeated(answers):
                self._count_repeats(answers)
            case LookedUp(cache, result):
                self._lookup_child(cache, result).inc()
            case Exchanged(exchange, error, seconds):
                self._count_exchange(exchange, error, seconds)
            case Called(route, outcome, seconds):
                self._downstream_duration.labels(route, ending(outcome)).observe(seconds)
            case Prefetched(route, outcome):
                self._prefetches.labels(route, outcome).inc()
            case SecretSent(name, is_empty):
                self._secret_pushes.labels(name or OTHER, "empty" if is_empty else "token").inc()
            case SecretRejected(name):
                self._secret_nacks.labels(name or OTHER).inc()
            case _ as unreachable:
                assert_never(unreachable)

    def _count_repeats(self, answers: Sequence[tuple[Granted, float]]) -> None:
        # By identity: a route's hash is that of all it consists of.
        by_route: dict[int, tuple[Granted, list[float]]] = {}
        for granted, seconds in answers:
            if (known := by_route.get(id(granted.route))) is None:
                known = by_route[id(granted.route)] = (granted, [])
            known[1].append(seconds)
        for granted, found in by_route.values():
            self._count_checks(granted.route, granted.route.rule, granted.decision, found)
        self._lookup_child(CacheName.ANSWERS, CacheResult.HIT).inc(len(answers))

    def _count_checks(
        self, route: Route | None, rule: str, decision: Decision, seconds: Sequence[float]
    ) -> None:
        """Count Checks of one route and rule that ended alike."""
        reason = decision.reason.value if isinstance(decision, Deny) else NONE
        labels = check_labels(route, decision.label, reason)
        count, duration = self._check_children(*labels)
        count.inc(len(seconds))
        duration.observe_all(seconds)
        if isinstance(decision, Allow) and isinstance(route, EgressRoute) and route.stands_in:
            self._fallbacks.labels(route.name).inc(len(seconds))
        if route is not None and (route.rule or route.rules is not None):
            direction, name, decided, _ = labels
            self._rules.labels(direction, name, rule or NONE, decided).inc(len(seconds))

    def _count_exchange(
        self, exchange: TokenExchange, error: AuthzError | None, seconds: float
    ) -> None:
        flow = exchange.flow.value
        outcome = "issued" if error is None else blamed(exchange, error).value
        self._exchanges.labels(flow, outcome).inc()
        self._exchange_duration.labels(flow).observe(seconds)
        if isinstance(error, EntraError) and error.code is not None:
            code = str(error.code) if error.code in self._known_codes else OTHER
            self._entra_errors.labels(code).inc()

    def reloaded(self, *, applied: bool) -> None:
        """Count one new configuration version."""
        self._config_reloads.labels("applied" if applied else "refused").inc()

    def count_evictions(self, evictions: Mapping[CacheName, int]) -> None:
        """State how many entries of each cache were evicted since it was made."""
        for cache, number in evictions.items():
            before = self._evictions_seen.get(cache, 0)
            # A new cache begins with none.
            self._cache_evictions.labels(cache.value).inc(
                number - before if number >= before else number
            )
            self._evictions_seen[cache] = number

    def count_log(self, dropped: int, failures: int) -> None:
        """State how many log records were dropped, and how often an observer failed, since the start."""
        before, self._log_seen = self._log_seen, (dropped, failures)
        self._dropped_records.inc(dropped - before[0])
        self._observer_failures.inc(failures - before[1])

    def gauge(self, entries: Mapping[CacheName, int], key_ages: Mapping[str, float]) -> None:
        """State what is held at the moment."""
        for cache, count in entries.items():
            self._cache_entries.labels(cache.value).set(count)
        # As with secrets: an issuer that no route trusts any more raises no alarm.
        for issuer in self._issuers_seen - key_ages.keys():
            self._keys_age.labels(issuer).set(0)
        self._issuers_seen |= key_ages.keys()
        for issuer, age in key_ages.items():
            self._keys_age.labels(issuer).set(age)

    def gauge_clock(self, difference: float | None) -> None:
        """State by how many seconds our clock is ahead of Entra's, once that is known."""
        if difference is not None:
            self._clock_difference.set(difference)

    def gauge_secrets(self, expiries: Mapping[str, float], streams: int) -> None:
        """State what Envoys hold at the moment."""
        self._secret_streams.set(streams)
        # Nobody asks for it any more: a value that can never be the least, nor raise an alarm. Files
        # of several workers cannot forget a label.
        for name in self._secrets_seen - expiries.keys():
            self._secret_expiry.labels(name).set(math.inf)
        self._secrets_seen |= expiries.keys()
        for name, seconds in expiries.items():
            self._secret_expiry.labels(name).set(seconds)

    def gauge_credentials(self, expiries: Mapping[tuple[str, str], float]) -> None:
        """State how long the certificates in use are good for, by client and kind."""
        # As with secrets: what is in use no more can never be the least, nor raise an alarm.
        for client, kind in self._credentials_seen - expiries.keys():
            self._credential_expiry.labels(client, kind).set(math.inf)
        self._credentials_seen |= expiries.keys()
        for (client, kind), seconds in expiries.items():
            self._credential_expiry.labels(client, kind).set(seconds)

    def gauge_circuits(self, circuits: Mapping[str, tuple[bool, int]]) -> None:
        """State for each tenant whether its circuit is open, and count how often it has opened."""
        for tenant, (is_open, opened) in circuits.items():
            self._circuit_open.labels(tenant).set(is_open)
            # A client that is forgotten takes its openings with it, and another authority begins at none.
            grown = max(0, opened - self._openings_seen.get(tenant, 0))
            self._circuit_openings.labels(tenant).inc(grown)
            self._openings_seen[tenant] = opened

    def gauge_unserved(
        self,
        unserved: AbstractSet[tuple[str, str]],
        *,
        known: AbstractSet[tuple[str, str]] = frozenset(),
    ) -> None:
        """State which issuers and clients cannot be served, by kind and name, of all that are known."""
        self._unserved_seen |= unserved | known
        for entry in self._unserved_seen:
            self._unserved.labels(*entry).set(entry in unserved)

    def gauge_refused(
        self,
        refused: AbstractSet[tuple[str, str]],
        *,
        known: AbstractSet[tuple[str, str]] = frozenset(),
    ) -> None:
        """State which clients' newest credentials Entra refuses, by client and kind, of all known ones."""
        self._refused_seen |= refused | known
        for entry in self._refused_seen:
            self._credential_refused.labels(*entry).set(entry in refused)

    def gauge_unreadable(self, unreadable: Mapping[tuple[str, str], bool]) -> None:
        """State which clients' credentials cannot be read, by client and kind."""
        # What is configured no more raises no alarm.
        for entry in self._unreadable_seen - unreadable.keys():
            self._credential_unreadable.labels(*entry).set(0)
        self._unreadable_seen |= unreadable.keys()
        for entry, is_unreadable in unreadable.items():
            self._credential_unreadable.labels(*entry).set(is_unreadable)

    def gauge_files(self, unusable: Mapping[str, bool]) -> None:
        """State which files of certificates cannot be used, by their keys in the configuration."""
        for key in self._files_seen - unusable.keys():
            self._file_unusable.labels(key).set(0)
        self._files_seen |= unusable.keys()
        for key, is_unusable in unusable.items():
            self._file_unusable.labels(key).set(is_unusable)

    def gauge_proved(self, proved: Mapping[tuple[str, str], bool]) -> None:
        """State which clients' newest credentials Entra has taken, by client and kind."""
        # What is in use no more raises no alarm, and files of several workers cannot forget a label.
        for entry in self._proved_seen - proved.keys():
            self._credential_accepted.labels(*entry).set(1)
        self._proved_seen |= proved.keys()
        for entry, is_accepted in proved.items():
            self._credential_accepted.labels(*entry).set(is_accepted)

    def gauge_envoys(self, counts: Mapping[str, int]) -> None:
        """State how many different configurations Envoys have, by how they match ours."""
        for match, count in counts.items():
            self._envoys.labels(match).set(count)

    def gauge_state(self, *, ready: bool, config_refused: bool) -> None:
        """State whether Checks can be answered, and by the newest configuration."""
        self._ready.set(ready)
        self._config_refused.set(config_refused)

    def _find_check_children(
        self, direction: str, route: str, decision: str, reason: str
    ) -> tuple[Counter, Histogram]:
        return (
            self._checks.labels(direction, route, decision, reason),
            self._check_duration.labels(direction, route, decision),
        )

    def _find_lookup_child(self, cache: CacheName, result: CacheResult) -> Counter:
        return self._cache_lookups.labels(cache.value, result.value)
