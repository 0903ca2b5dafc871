"""`Metrics`: what is counted as it happens. Labels come from closed sets: never a user, token or host.

What is stated when Prometheus asks is in `authz.observe.gauges`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, assert_never

from prometheus_client import CollectorRegistry, Counter

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
        self._fallbacks = Counter(
            "authz_subject_fallbacks",
            "Checks allowed by a token of the agent's own, as no user was found and the route does without.",
            ["route"], registry=registry,
        )  # fmt: skip
        self._rules = Counter(
            "authz_rules", "Checks decided on routes with rules; rule is none where no rule is for the request.",
            ["direction", "route", "rule", "decision"], registry=registry,
        )  # fmt: skip
        self._config_reloads = Counter(
            "authz_config_reloads", "Configuration versions met, by outcome (applied, refused).",
            ["outcome"], registry=registry,
        )  # fmt: skip
        self._secret_pushes = Counter(
            "authz_secret_pushes", "Values sent to Envoys, by outcome (token, empty).",
            ["secret", "outcome"], registry=registry,
        )  # fmt: skip
        self._secret_nacks = Counter(
            "authz_secret_nacks", "Values that an Envoy could not use.",
            ["secret"], registry=registry,
        )  # fmt: skip
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

    def count_log(self, dropped: int, failures: int) -> None:
        """State how many log records were dropped, and how often an observer failed, since the start."""
        before, self._log_seen = self._log_seen, (dropped, failures)
        self._dropped_records.inc(dropped - before[0])
        self._observer_failures.inc(failures - before[1])

    def _find_check_children(
        self, direction: str, route: str, decision: str, reason: str
    ) -> tuple[Counter, Histogram]:
        return (
            self._checks.labels(direction, route, decision, reason),
            self._check_duration.labels(direction, route, decision),
        )

    def _find_lookup_child(self, cache: CacheName, result: CacheResult) -> Counter:
        return self._cache_lookups.labels(cache.value, result.value)
