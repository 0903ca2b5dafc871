"""The SDS door: `envoy.service.secret.v3.SecretDiscoveryService`, for Envoy's `credential_injector`.

A secret is named like its egress route and holds the whole `Authorization` value, or it is the certificate
`https/HOST`. Who may have which is decided in `authz.tokens.pushing` and `authz.pod_ca`; what is said on a
stream is `authz.doors.envoy.conversation`.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol, TypeVar

import grpc

from authz._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from authz.core.shares import Shares
from authz.doors.envoy.conversation import (
    Delta,
    StateOfTheWorld,
    TooManyNames,
    Versions,
    WrongType,
    mark_in,
)
from authz.doors.envoy.secret_sources import SecretSources
from authz.doors.envoy.workload_identity import spiffe_id
from authz.pod_ca.certificates import PodCertificates
from authz.ports import Observer, Peer
from authz.tokens.pushing import PushedTokens

SERVICE: Final = "envoy.service.secret.v3.SecretDiscoveryService"
MAX_STREAMS: Final = 20_000
"""Most streams of one process: one for each secret of each Envoy, and each pushed route has two."""
SHARING: Final = 100
"""Workloads that have a guaranteed part of them, where each proves its name."""

_STRANGER: Final = (
    "tokens are given ahead over a Unix socket, or to a client certificate with a SPIFFE id: set "
    "listen.tls.client_ca_file and give Envoy such a certificate, or set push: false on the route"
)

Request_contra = TypeVar("Request_contra", contravariant=True)
_R = TypeVar("_R", DiscoveryRequest, DeltaDiscoveryRequest)
Response_co = TypeVar("Response_co", covariant=True)


class Conversation(Protocol[Request_contra, Response_co]):
    """One of the two kinds of `authz.doors.envoy.conversation`."""

    def receive(self, request: Request_contra) -> None:
        """Take in a request."""

    def say(self) -> Response_co | None:
        """Return what is to be said now; None for silence."""

    def end(self) -> None:
        """Want nothing any more."""


class SecretDiscovery:
    """The servicer: knows who is there, listens, speaks.

    Args:
        tokens: Keeps tokens.
        observer: Is notified of what was sent and what was refused.
        peers_have_names: Whether connections prove a SPIFFE id by a client certificate.
        certificates: Keeps certificates of the pod's authority, if there is one.
        max_streams: Most streams at a time. One workload of several gets at most half of them or so.
        note_mark: Is given what each Envoy says it was rendered from, at the beginning of a stream.
    """

    def __init__(
        self,
        tokens: PushedTokens,
        observer: Observer,
        *,
        peers_have_names: bool,
        certificates: PodCertificates | None = None,
        max_streams: int = MAX_STREAMS,
        note_mark: Callable[[str | None], object] = lambda _: None,
    ) -> None:
        self._note_mark = note_mark
        self._sources = SecretSources(tokens, certificates)
        self._observer = observer
        self._peers_have_names = peers_have_names
        self._places = Shares(max_streams, holders=SHARING if peers_have_names else 1)
        self._versions = Versions(secrets.token_hex(6))
        self._streams = 0

    def streams(self) -> int:
        """Return how many streams there are."""
        return self._streams

    async def stream_secrets(
        self,
        requests: AsyncIterator[DiscoveryRequest],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        """Serve a stream, state of the world."""

        def begin(peer: Peer, on_change: Callable[[], None]) -> StateOfTheWorld:
            return StateOfTheWorld(self._sources, peer, on_change, self._versions, self._observer)

        await self._serve(begin, self._heard(requests), context)

    async def delta_secrets(
        self,
        requests: AsyncIterator[DeltaDiscoveryRequest],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        """Serve a stream, delta."""

        def begin(peer: Peer, on_change: Callable[[], None]) -> Delta:
            return Delta(self._sources, peer, on_change, self._versions, self._observer)

        await self._serve(begin, self._heard(requests), context)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to register with a server. `FetchSecrets` is not served."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "StreamSecrets": grpc.stream_stream_rpc_method_handler(
                    self.stream_secrets,
                    request_deserializer=DiscoveryRequest.FromString,
                    response_serializer=DiscoveryResponse.SerializeToString,
                ),
                "DeltaSecrets": grpc.stream_stream_rpc_method_handler(
                    self.delta_secrets,
                    request_deserializer=DeltaDiscoveryRequest.FromString,
                    response_serializer=DeltaDiscoveryResponse.SerializeToString,
                ),
            },
        )

    async def _heard(self, requests: AsyncIterator[_R]) -> AsyncIterator[_R]:
        """Pass requests on. The first of a stream says who speaks, and later ones need not."""
        is_first = True
        async for request in requests:
            if is_first:
                self._note_mark(mark_in(request))
                is_first = False
            yield request

    async def _serve(
        self,
        begin: Callable[[Peer, Callable[[], None]], Conversation[Request_contra, Response_co]],
        requests: AsyncIterator[Request_contra],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        peer = self._peer(context)
        if peer is None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, _STRANGER)
        if not self._places.take(peer):
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "as many streams of secrets are open as this client may have",
            )
        changed = asyncio.Event()
        conversation = begin(peer, changed.set)
        self._streams += 1
        listening = asyncio.get_running_loop().create_task(_listen(conversation, requests, changed))
        try:
            while not listening.done():
                await changed.wait()
                changed.clear()
                # Only ever the newest: what a slow reader missed in between is nobody's need.
                answer = conversation.say()
                if answer is not None:
                    await context.write(answer)
            listening.result()
        except WrongType as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TooManyNames as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        finally:
            # However it ends: Envoy gone, connection too old, server stopped.
            self._streams -= 1
            self._places.give_back(peer)
            conversation.end()
            listening.cancel()

    def _peer(self, context: "grpc.aio.ServicerContext[Any, Any]") -> Peer | None:
        """Return who is there; None for somebody who has proved nothing (law 2)."""
        if context.peer().startswith("unix:"):
            return Peer()
        name = spiffe_id(context) if self._peers_have_names else None
        return Peer(name) if name is not None else None


async def _listen(
    conversation: Conversation[Request_contra, Response_co],
    requests: AsyncIterator[Request_contra],
    changed: asyncio.Event,
) -> None:
    try:
        async for request in requests:
            conversation.receive(request)
            changed.set()
    finally:
        changed.set()
