"""`SecretSources`: who keeps which of the secrets that Envoys subscribe to, by name."""

from collections.abc import Callable

from authz.pod_ca.certificates import (
    PREFIX,
    CertificateSubscription,
    CertificateValue,
    PodCertificates,
)
from authz.ports import Peer
from authz.tokens.keeper import PushedValue, RefusalValue
from authz.tokens.keeper import Subscription as TokenSubscription
from authz.tokens.pushing import PushedTokens

Subscription = TokenSubscription | CertificateSubscription
Value = PushedValue | RefusalValue | CertificateValue


class SecretSources:
    """Tokens by the name of their route, why there is none by `refusal/ROUTE`, certificates by `https/HOST`.

    Args:
        tokens: Keeps tokens.
        certificates: Keeps certificates, where the pod has an authority.
    """

    def __init__(self, tokens: PushedTokens, certificates: PodCertificates | None = None) -> None:
        self._tokens = tokens
        self._certificates = certificates

    def subscribe(self, name: str, peer: Peer, on_change: Callable[[], None]) -> Subscription:
        """Begin to keep a secret for a peer; `on_change` is called when its value has changed."""
        if self._certificates is not None and name.startswith(PREFIX):
            return self._certificates.subscribe(name, peer, on_change)
        return self._tokens.subscribe(name, peer, on_change)

    def cancel(self, subscription: Subscription) -> None:
        """End a subscription."""
        if isinstance(subscription, TokenSubscription):
            self._tokens.cancel(subscription)
        elif self._certificates is not None:
            self._certificates.cancel(subscription)
