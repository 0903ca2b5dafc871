"""What is counted of Checks without a user, and of replies."""

from authz.core.decision import Allow, Deny, Reply
from authz.core.errors import Reason
from authz.core.event import Decided
from authz.core.exchange import Flow
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


def test_no_series_says_when_another_one_began() -> None:
    """`*_created` would be a series more for each counter and histogram, and nothing asks for it."""
    registry = own_registry()
    Metrics(registry, frozenset()).observe(Decided(ALLOWED))
    names = {sample.name for family in registry.collect() for sample in family.samples}

    assert "authz_checks_total" in names
    assert set() == {name for name in names if name.endswith("_created")}
