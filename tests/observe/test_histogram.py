"""`Histogram.observe_all` counts as `observe` does."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from authz.observe.histogram import Histogram
from authz.observe.metrics import CHECK_BUCKETS


@given(
    amounts=st.lists(
        st.one_of(st.sampled_from([0.0, *CHECK_BUCKETS, 1e9]), st.floats(0, 20)), max_size=40
    )
)
def test_many_at_once_are_counted_as_one_by_one(amounts: list[float]) -> None:
    """Bounds themselves, and what is beyond the last, included."""
    registries = [CollectorRegistry(), CollectorRegistry()]
    whole, single = (
        Histogram("seconds", "x", ["of"], buckets=CHECK_BUCKETS, registry=registry).labels("a")
        for registry in registries
    )
    whole.observe_all(amounts)
    for amount in amounts:
        single.observe(amount)

    ours, theirs = (
        {
            (sample.name, *sample.labels.items()): round(sample.value, 6)
            for family in registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }
        for registry in registries
    )
    assert theirs == ours
