"""`PodCertificates`: certificates of the pod's authority for Envoy, renewed long before they end."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Final

from authz.core.moment import Moment
from authz.core.secret import Secret
from authz.pod_ca.authority import IssuedCertificate, PodAuthority
from authz.ports import Clock, Peer, Timer

PREFIX: Final = "https/"
"""What the name of such a secret begins with; the host follows. No egress route has a slash in its name."""
RENEW_AT: Final = 0.5
"""Part of a certificate's life after which Envoy gets another one."""


@dataclass(frozen=True, slots=True)
class CertificateValue:
    """A certificate that Envoy shall hold.

    Attributes:
        version: Unique in this process.
        certificate: Which.
        renew_at: When another one is made.
    """

    version: int
    certificate: IssuedCertificate
    renew_at: Moment
    is_empty: ClassVar[bool] = False

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What must be in no log."""
        return (self.certificate.key,)


class CertificateSubscription:
    """One Envoy's interest in one host's certificate."""

    def __init__(self, name: str, peer: Peer, on_change: Callable[[], None]) -> None:
        self.name = name
        self.peer = peer
        self.on_change = on_change
        self.refusal: str | None = None
        self.is_configured = False
        self.value: CertificateValue | None = None


class PodCertificates:
    """Issues certificates to the Envoy of this pod, which comes by the Unix socket.

    Args:
        authority: Signs them.
        lifetime: Seconds for which each is valid.
        clock: Epoch seconds.
        timer: Monotonic seconds.
    """

    def __init__(
        self, authority: PodAuthority, *, lifetime: float, clock: Clock, timer: Timer
    ) -> None:
        self._authority = authority
        self._lifetime = lifetime
        self._clock = clock
        self._timer = timer
        self._next_version = count(1).__next__
        self._kept: dict[str, CertificateValue] = {}
        self._subscriptions: dict[CertificateSubscription, None] = {}

    def subscribe(
        self, name: str, peer: Peer, on_change: Callable[[], None]
    ) -> CertificateSubscription:
        """Begin to keep a host's certificate for a peer; `on_change` is called when there is another one.

        What the peer may not have is no error: it receives nothing, and its listener takes no connection.
        """
        subscription = CertificateSubscription(name, peer, on_change)
        host = name.removeprefix(PREFIX)
        subscription.is_configured = host in self._authority.hosts
        if peer.spiffe_id is not None:
            subscription.refusal = (
                "certificates are for the Envoy of this pod: expected a Unix socket"
            )
        elif not subscription.is_configured:
            subscription.refusal = "the pod's authority is not for this host"
        else:
            subscription.value = self._kept.get(host) or self._issue(host)
        self._subscriptions[subscription] = None
        return subscription

    def cancel(self, subscription: CertificateSubscription) -> None:
        """End a subscription."""
        self._subscriptions.pop(subscription, None)

    def renew(self) -> None:
        """Replace certificates whose time has come. Called each second or so."""
        now = Moment(self._clock(), self._timer())
        for host, value in list(self._kept.items()):
            if not value.renew_at.has_come(now):
                continue
            renewed = self._issue(host)
            for subscription in self._subscriptions:
                if subscription.value is value:
                    subscription.value = renewed
                    subscription.on_change()

    def expiries(self) -> dict[str, float]:
        """Return the seconds until the end of each certificate, by the secret's name."""
        now = self._clock()
        return {
            f"{PREFIX}{host}": value.certificate.expires_at - now
            for host, value in self._kept.items()
        }

    def _issue(self, host: str) -> CertificateValue:
        now = Moment(self._clock(), self._timer())
        certificate = self._authority.issue(host, now=now.wall, lifetime=self._lifetime)
        renew_at = now.later((certificate.expires_at - now.wall) * RENEW_AT)
        value = self._kept[host] = CertificateValue(self._next_version(), certificate, renew_at)
        return value
