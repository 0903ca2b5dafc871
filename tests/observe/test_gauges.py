"""What is stated of what comes and goes: evictions, circuits, certificates, credentials."""

import math

import pytest
from prometheus_client import CollectorRegistry

from authz.core.record import CacheName
from authz.observe.gauges import Gauges
from authz.observe.registry import own_registry

TENANT = {"tenant": "t"}


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return an empty registry."""
    return own_registry()


@pytest.fixture
def gauges(registry: CollectorRegistry) -> Gauges:
    """Return what states things there."""
    return Gauges(registry)


@pytest.mark.parametrize(
    ("stated", "expected"), [([0], 0), ([2, 2, 5], 5), ([3, 0, 1], 4), ([3, 2], 5)]
)
def test_evictions_are_counted_over_the_life_of_the_process(
    registry: CollectorRegistry, gauges: Gauges, stated: list[int], expected: int
) -> None:
    """A cache that a new configuration made begins with none."""
    for number in stated:
        gauges.caches({CacheName.SUBJECTS: 1}, {CacheName.SUBJECTS: number})

    evicted = registry.get_sample_value("authz_cache_evictions_total", {"cache": "subjects"})
    assert expected == evicted
    assert 1 == registry.get_sample_value("authz_cache_entries", {"cache": "subjects"})


def test_circuits_are_stated_and_their_openings_counted(
    registry: CollectorRegistry, gauges: Gauges
) -> None:
    """A tenant that is forgotten raises no alarm; one that is asked again begins with none."""
    seen = []
    for stated in ({"t": (True, 2)}, {"t": (False, 3)}, {"t": (True, 4)}, {}, {"t": (False, 1)}):
        gauges.circuits(stated)
        seen.append(
            (
                registry.get_sample_value("authz_entra_circuit_open", TENANT),
                registry.get_sample_value("authz_entra_circuit_openings_total", TENANT),
            )
        )

    assert [(1, 2), (0, 3), (1, 4), (0, 4), (0, 5)] == seen


def test_a_certificate_that_is_in_use_no_more_raises_no_alarm(
    registry: CollectorRegistry, gauges: Gauges
) -> None:
    """Its last value would be the least for ever; files of several workers cannot forget a label."""
    gauges.expiries({("desk", "certificate"): 60.0, ("desk", "key_vault"): 90.0})
    gauges.expiries({("desk", "key_vault"): 80.0})

    assert [math.inf, 80] == [
        registry.get_sample_value(
            "authz_credential_expiry_seconds", {"client": "desk", "kind": kind}
        )
        for kind in ("certificate", "key_vault")
    ]


def test_a_credential_that_is_configured_no_more_raises_no_alarm(
    registry: CollectorRegistry, gauges: Gauges
) -> None:
    """Neither as refused, nor as unreadable, nor as not taken yet."""
    key = ("desk", "certificate")
    names = [f"authz_credential_{end}" for end in ("refused", "unreadable", "accepted")]

    def shown() -> list[float | None]:
        labels = {"client": "desk", "kind": "certificate"}
        return [registry.get_sample_value(name, labels) for name in names]

    gauges.credentials(refused={key}, unreadable={key: True}, proved={key: False})
    alarmed = shown()
    gauges.credentials(refused=set(), unreadable={}, proved={})

    assert [1, 1, 0] == alarmed
    assert [0, 0, 1] == shown()
