"""What is counted of Checks without a user and of small caches, and what is told of certificates."""

import math

import pytest

from authz.core.decision import Allow, Deny, Reply
from authz.core.errors import Reason
from authz.core.event import Decided
from authz.core.exchange import Flow
from authz.core.record import CacheName
from authz.observe.decision_log import fields_of
from authz.observe.metrics import Metrics
from authz.observe.registry import own_registry
from support.fakes.records import record_of, repeated, trace_of
from support.fakes.routes import regranted, route_of

FALLBACK = route_of("graph", Flow.AUTONOMOUS, stands_in=True)
ALLOWED = record_of(Allow(), route=FALLBACK)
ELSEWHERE = record_of(Allow(), route=regranted(FALLBACK, stands_in=False))


def test_calls_without_a_user_are_counted_and_told() -> None:
    """Each one, also where its answer was given again; not where it was denied, nor elsewhere."""
    registry = own_registry()
    metrics = Metrics(registry, frozenset())
    again = ALLOWED._replace(trace=None)
    denied = record_of(Deny(Reason.EXCHANGE_UNAVAILABLE))
    trace_of(denied).route = FALLBACK
    for record in (ALLOWED, denied, ELSEWHERE):
        metrics.observe(Decided(record))
    metrics.observe(repeated([again, again]))

    assert 3 == registry.get_sample_value("authz_subject_fallbacks_total", {"route": "graph"})
    assert fields_of(ALLOWED)["fallback"]
    assert "autonomous" == fields_of(ALLOWED)["flow"]
    assert "fallback" not in fields_of(ELSEWHERE)


def test_replies_are_neither_allowances_nor_denials() -> None:
    """They have a label of their own, and count as no call without a user."""
    registry = own_registry()
    Metrics(registry, frozenset()).observe(Decided(record_of(Reply(200), route=FALLBACK)))

    labels = {"direction": "egress", "route": "graph", "decision": "reply"}
    counted = [
        registry.get_sample_value("authz_checks_total", labels | {"reason": "none"}),
        registry.get_sample_value("authz_check_duration_seconds_count", labels),
        registry.get_sample_value("authz_subject_fallbacks_total", {"route": "graph"}),
    ]
    assert [1, 1, None] == counted


@pytest.mark.parametrize(
    ("stated", "expected"), [([0], 0), ([2, 2, 5], 5), ([3, 0, 1], 4), ([3, 2], 5)]
)
def test_evictions_are_counted_over_the_life_of_the_process(
    stated: list[int], expected: int
) -> None:
    """A cache that a new configuration made begins with none."""
    registry = own_registry()
    metrics = Metrics(registry, frozenset())
    for number in stated:
        metrics.count_evictions({CacheName.SUBJECTS: number})

    assert expected == registry.get_sample_value(
        "authz_cache_evictions_total", {"cache": "subjects"}
    )


def test_no_series_says_when_another_one_began() -> None:
    """`*_created` would be a series more for each counter and histogram, and nothing asks for it."""
    registry = own_registry()
    Metrics(registry, frozenset()).observe(Decided(ALLOWED))
    names = {sample.name for family in registry.collect() for sample in family.samples}

    assert "authz_checks_total" in names
    assert set() == {name for name in names if name.endswith("_created")}


def test_a_certificate_that_is_in_use_no_more_raises_no_alarm() -> None:
    """Its last value would be the least for ever; files of several workers cannot forget a label."""
    registry = own_registry()
    metrics = Metrics(registry, frozenset())
    metrics.gauge_credentials({("desk", "certificate"): 60.0, ("desk", "key_vault"): 90.0})
    metrics.gauge_credentials({("desk", "key_vault"): 80.0})

    assert [math.inf, 80] == [
        registry.get_sample_value(
            "authz_credential_expiry_seconds", {"client": "desk", "kind": kind}
        )
        for kind in ("certificate", "key_vault")
    ]
