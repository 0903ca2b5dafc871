"""What is said on one stream of secrets: state of the world, or delta (xDS protocol, "xds_protocol").

A conversation hears requests and knows what is to be said next; it waits for nothing. Who may speak
with us, and the streams themselves, are `authz.doors.envoy.sds`.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final

import structlog
from google.protobuf.any_pb2 import Any

from authz._pb.base_pb2 import DataSource
from authz._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
    Resource,
)
from authz._pb.secret_pb2 import GenericSecret, TlsCertificate
from authz._pb.secret_pb2 import Secret as WireSecret
from authz.config.rendered import MARK
from authz.core.event import SecretRejected, SecretSent
from authz.doors.envoy.secret_sources import SecretSources, Subscription, Value
from authz.pod_ca.certificates import CertificateValue
from authz.ports import Observer, Peer
from authz.tokens.keeper import REFUSAL, RefusalValue

TYPE_URL: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
NO_REFUSAL: Final = "none"
MAX_NAMES: Final = 256
"""Most secrets that one stream may ask for. Envoy opens a stream for each."""
_MAX_OPEN: Final = 16
"""Answers of which it is remembered what they held, until Envoy has said what it thinks of them."""
_MAX_TEXT: Final = 300
_TOKEN: Final = re.compile(r"eyJ[A-Za-z0-9._~+/=-]*")

_log = structlog.get_logger(__name__)


class WrongType(ValueError):
    """Something else than secrets is asked for."""


class TooManyNames(ValueError):
    """One stream asks for more secrets than `MAX_NAMES`."""


class Versions:
    """Versions that no other process, and no earlier life of this one, gives out.

    Args:
        boot: Names this process.
    """

    def __init__(self, boot: str) -> None:
        self._boot = boot
        self._last = 0

    def of(self, value: Value) -> str:
        """Return the version of one secret."""
        return f"{self._boot}-{value.version}"

    def next(self) -> str:
        """Return a version for a state of the world."""
        self._last += 1
        return f"{self._boot}-{self._last}"


class _Conversation:
    """What both kinds share: which secrets are wanted, and what was sent of them.

    Args:
        sources: Keep what is subscribed to.
        peer: With whom we speak.
        on_change: Called when there may be something to say.
        versions: Gives out versions.
        observer: Is notified of what was sent and what was refused.
    """

    def __init__(
        self,
        sources: SecretSources,
        peer: Peer,
        on_change: Callable[[], None],
        versions: Versions,
        observer: Observer,
    ) -> None:
        self._sources = sources
        self._peer = peer
        self._on_change = on_change
        self._versions = versions
        self._observer = observer
        self._wanted: dict[str, Subscription] = {}
        self._sent: dict[str, Value] = {}
        self._reported: set[str] = set()
        self._answers = 0

    def end(self) -> None:
        """Want nothing any more."""
        self._drop(list(self._wanted))

    def _want(self, names: Iterable[str]) -> None:
        new = [name for name in dict.fromkeys(names) if name not in self._wanted]
        if len(self._wanted) + len(new) > MAX_NAMES:
            raise TooManyNames(f"expected at most {MAX_NAMES} secrets in one stream")
        for name in new:
            self._wanted[name] = self._sources.subscribe(name, self._peer, self._on_change)

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            subscription = self._wanted.pop(name, None)
            self._sent.pop(name, None)
            self._reported.discard(name)
            if subscription is not None:
                self._sources.cancel(subscription)

    def _available(self) -> dict[str, Value]:
        return {
            name: value
            for name, subscription in self._wanted.items()
            if (value := subscription.value) is not None
        }

    def _note_sent(self, values: dict[str, Value]) -> None:
        for name, value in values.items():
            subscription = self._wanted[name]
            self._sent[name] = value
            if isinstance(value, RefusalValue):
                continue  # no token, and about one that is counted and logged itself
            self._observer.observe(SecretSent(_label(subscription), value.is_empty))
            if subscription.refusal is not None and name not in self._reported:
                self._reported.add(name)
                _log.warning(
                    "secret refused",
                    secret=name[:_MAX_TEXT],
                    peer=self._peer.spiffe_id,
                    cause=subscription.refusal,
                )

    def _note_rejected(self, names: Iterable[str], message: str) -> None:
        known = list(names)
        for name in known:
            subscription = self._wanted.get(name)
            label = _label(subscription) if subscription is not None else None
            self._observer.observe(SecretRejected(label))
        _log.warning("envoy rejected secrets", secrets=known, cause=self._masked(message))

    def _masked(self, message: str) -> str:
        """Return Envoy's words without any chance of a token in them."""
        for value in self._sent.values():
            for secret in value.secrets:
                message = message.replace(secret.reveal(), "***")
        return _TOKEN.sub("***", message)[:_MAX_TEXT]

    def _next_nonce(self) -> str:
        self._answers += 1
        return str(self._answers)


class StateOfTheWorld(_Conversation):
    """`StreamSecrets`: each request names all that is wanted, each answer holds all there is of it."""

    _nonce = ""
    _last: tuple[str, ...] = ()

    def receive(self, request: DiscoveryRequest) -> None:
        """Take in a request.

        Raises:
            WrongType: It is not about secrets.
            TooManyNames: It is about too many.
        """
        _expect_secrets(request.type_url)
        nonce = request.response_nonce
        if self._nonce and nonce and nonce != self._nonce:
            return  # about an answer that is no longer the last: one about the last will follow
        if not self._nonce or not nonce:
            # A new stream says which version it has, of whichever process: it gets ours in any case.
            self._sent.clear()
        elif request.HasField("error_detail"):
            self._note_rejected(self._last, request.error_detail.message)
        self._drop([name for name in self._wanted if name not in set(request.resource_names)])
        self._want(request.resource_names)

    def say(self) -> DiscoveryResponse | None:
        """Return what is to be said now; None for silence."""
        values = self._available()
        if all(self._sent.get(name) is value for name, value in values.items()):
            return None
        self._nonce, self._last = self._next_nonce(), tuple(values)
        self._note_sent(values)
        return DiscoveryResponse(
            version_info=self._versions.next(),
            type_url=TYPE_URL,
            nonce=self._nonce,
            resources=[_packed(name, value) for name, value in values.items()],
        )


class Delta(_Conversation):
    """`DeltaSecrets`: requests and answers are about what has changed."""

    def __init__(
        self,
        sources: SecretSources,
        peer: Peer,
        on_change: Callable[[], None],
        versions: Versions,
        observer: Observer,
    ) -> None:
        super().__init__(sources, peer, on_change, versions, observer)
        self._had: dict[str, str] = {}
        self._open: dict[str, tuple[str, ...]] = {}

    def receive(self, request: DeltaDiscoveryRequest) -> None:
        """Take in a request.

        Raises:
            WrongType: It is not about secrets.
            TooManyNames: It is about too many.
        """
        _expect_secrets(request.type_url)
        answered = self._open.pop(request.response_nonce, None)
        if answered is not None and request.HasField("error_detail"):
            self._note_rejected(answered, request.error_detail.message)
        self._drop(request.resource_names_unsubscribe)
        self._want(request.resource_names_subscribe)
        for name in request.resource_names_subscribe:
            # A client that subscribes again wants its values again.
            self._sent.pop(name, None)
            version = request.initial_resource_versions.get(name)
            if version is None:
                self._had.pop(name, None)
            else:
                self._had[name] = version

    def say(self) -> DeltaDiscoveryResponse | None:
        """Return what is to be said now; None for silence."""
        changed = {}
        for name, value in self._available().items():
            if self._sent.get(name) is value:
                continue
            if self._had.pop(name, None) == self._versions.of(value):
                self._sent[name] = value  # from an earlier stream to this same process
            else:
                changed[name] = value
        if not changed:
            return None
        nonce = self._next_nonce()
        self._open[nonce] = tuple(changed)
        if len(self._open) > _MAX_OPEN:
            del self._open[next(iter(self._open))]
        self._note_sent(changed)
        return DeltaDiscoveryResponse(
            type_url=TYPE_URL,
            nonce=nonce,
            resources=[
                Resource(name=name, version=self._versions.of(value), resource=_packed(name, value))
                for name, value in changed.items()
            ],
        )


def mark_in(request: DiscoveryRequest | DeltaDiscoveryRequest) -> str | None:
    """Return what the Envoy that speaks says it was rendered from, if it says so."""
    value = request.node.metadata.fields.get(MARK)
    return None if value is None else value.string_value or None


def _expect_secrets(type_url: str) -> None:
    # On a stream of its own the type may be left out.
    if type_url not in {"", TYPE_URL}:
        raise WrongType(f"expected type_url {TYPE_URL}")


def _label(subscription: Subscription) -> str | None:
    if not subscription.is_configured:
        return None
    return subscription.name.removeprefix(REFUSAL)


def _packed(name: str, value: Value) -> Any:
    packed = Any()
    if isinstance(value, CertificateValue):
        chain, key = value.certificate.chain, value.certificate.key
        certificate = TlsCertificate(
            certificate_chain=DataSource(inline_string=chain),
            private_key=DataSource(inline_string=key.reveal()),
        )
        packed.Pack(WireSecret(name=name, tls_certificate=certificate))
        return packed
    if isinstance(value, RefusalValue):
        # Never empty: Envoy refuses a request for which any of its values is.
        text = value.reason or NO_REFUSAL
    else:
        text = f"Bearer {value.token.reveal()}" if value.token is not None else ""
    packed.Pack(
        WireSecret(name=name, generic_secret=GenericSecret(secret=DataSource(inline_string=text)))
    )
    return packed
