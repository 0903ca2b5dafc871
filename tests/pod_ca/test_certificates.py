"""Certificates for Envoy: for the pod's own Envoy, for configured hosts, renewed ahead of time."""

from typing import Final

import pytest
from cryptography import x509

from authz.pod_ca.authority import PodAuthority
from authz.pod_ca.certificates import CertificateSubscription, PodCertificates
from authz.ports import Peer
from support.fakes.clock import START, Clock

HOST: Final = "graph.microsoft.com"
DAY: Final = 86400.0
SOCKET: Final = Peer()


class Desk:
    """Certificates, a clock, and what was heard."""

    def __init__(self) -> None:
        self.clock = Clock()
        authority = PodAuthority.create([HOST], now=START)
        self.passed = 0.0
        self.certificates = PodCertificates(
            authority, lifetime=DAY, clock=self.clock, timer=lambda: self.passed
        )
        self.heard: list[str] = []

    def subscribe(
        self, name: str = f"https/{HOST}", peer: Peer = SOCKET
    ) -> CertificateSubscription:
        """Subscribe as an Envoy does."""
        return self.certificates.subscribe(name, peer, lambda: self.heard.append(name))


def test_all_who_ask_have_the_same_certificate() -> None:
    """At once, and with a key that no log may hold."""
    desk = Desk()
    first, second = desk.subscribe(), desk.subscribe()
    assert first.value is not None
    assert first.value is second.value
    assert first.value.secrets == (first.value.certificate.key,)
    assert (True, None, False) == (first.is_configured, first.refusal, first.value.is_empty)
    assert {f"https/{HOST}": DAY} == desk.certificates.expiries()


def test_it_is_renewed_at_half_of_its_life() -> None:
    """Whoever still subscribes hears of it, once."""
    desk = Desk()
    kept, gone = desk.subscribe(), desk.subscribe()
    desk.certificates.cancel(gone)
    before = kept.value
    desk.certificates.renew()
    assert [] == desk.heard
    desk.clock.now += DAY / 2
    desk.certificates.renew()
    desk.certificates.renew()
    assert [f"https/{HOST}"] == desk.heard
    assert kept.value is not before
    assert kept.value is not None
    assert before is not None
    assert kept.value.version != before.version
    assert gone.value is before
    assert desk.subscribe().value is kept.value


def test_strangers_get_none() -> None:
    """Hosts that are not configured, and Envoys of other pods: nothing is ever said."""
    desk = Desk()
    unknown = desk.subscribe("https/evil.example")
    far = desk.subscribe(peer=Peer("spiffe://c/w"))
    assert (None, False) == (unknown.value, unknown.is_configured)
    assert (None, True) == (far.value, far.is_configured)
    assert unknown.refusal is not None
    assert far.refusal is not None
    assert {} == desk.certificates.expiries()


@pytest.mark.parametrize("set_by", [-DAY, -3600.0])
def test_it_is_renewed_in_time_after_the_clock_was_set_back(set_by: float) -> None:
    """Half of its life is counted as well, and apps take it all the while."""
    desk = Desk()
    kept = desk.subscribe()
    desk.clock.now += set_by
    desk.certificates.renew()
    assert [] == desk.heard
    assert kept.value is not None
    certificate = x509.load_pem_x509_certificate(kept.value.certificate.chain.encode())
    assert certificate.not_valid_before_utc.timestamp() < desk.clock.now

    desk.passed += DAY / 2
    desk.certificates.renew()

    assert [f"https/{HOST}"] == desk.heard
