"""`ProxyAgent`: a stand-in for what Istio runs beside its Envoy, on two Unix sockets.

One leads to pilot, byte for byte. The other serves certificates over SDS: the workload's own, the mesh's
authority, and those that a DestinationRule names by file. Envoy asks for all of them by the names that
pilot tells it.
"""

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Self

import grpc
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls

from authz._pb.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

_SERVICE: Final = "envoy.service.secret.v3.SecretDiscoveryService"
_TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_STREAMS: Final = 32
_CHUNK: Final = 65536


class ProxyAgent:
    """Both sockets, as a context manager.

    Args:
        folder: Where they lie: `xds` and `sds`. Every user may connect.
        pilot: `host:port` of pilot's discovery service.
        certificate: The workload's certificate and key, PEM.
        authorities: PEM of authorities by the name that pilot gives them.

    Attributes:
        asked: Names that Envoy has asked for.
        refused: What Envoy said of secrets that it did not take.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pilot: str,
        certificate: tuple[bytes, bytes],
        authorities: Mapping[str, bytes],
    ) -> None:
        self._folder = folder
        host, _, port = pilot.rpartition(":")
        self._pilot = (host, int(port))
        chain, key = certificate
        self._secrets = {
            "default": tls.Secret(
                name="default",
                tls_certificate=tls.TlsCertificate(
                    certificate_chain=core.DataSource(inline_bytes=chain),
                    private_key=core.DataSource(inline_bytes=key),
                ),
            ),
            **{
                name: tls.Secret(
                    name=name,
                    validation_context=tls.CertificateValidationContext(
                        trusted_ca=core.DataSource(inline_bytes=pem)
                    ),
                )
                for name, pem in authorities.items()
            },
        }
        self.asked: set[str] = set()
        self.refused: list[str] = []
        self._started = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._relay(stack)
            self._serve(stack)
            self._started = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    def _relay(self, stack: ExitStack) -> None:
        path = self._folder / "xds"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        thread = threading.Thread(target=self._accept, args=(listener,))
        thread.start()
        stack.callback(thread.join)
        # Wakes the thread that waits in `accept`; closing alone does not.
        stack.callback(listener.shutdown, socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with ExitStack() as connections, suppress(OSError):
            while True:
                envoy = connections.enter_context(listener.accept()[0])
                pilot = connections.enter_context(socket.create_connection(self._pilot))
                for source, target in ((envoy, pilot), (pilot, envoy)):
                    thread = threading.Thread(target=_copy, args=(source, target))
                    thread.start()
                    connections.callback(thread.join)
                    connections.callback(_shut, source)

    def _serve(self, stack: ExitStack) -> None:
        path = self._folder / "sds"
        server = grpc.server(stack.enter_context(ThreadPoolExecutor(_STREAMS)))
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=DiscoveryRequest.FromString,
            response_serializer=DiscoveryResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {"StreamSecrets": handler}),)
        )
        server.add_insecure_port(f"unix:{path}")
        server.start()
        path.chmod(0o777)
        stack.callback(lambda: server.stop(None).wait())

    def _stream(self, requests: Iterator[DiscoveryRequest], _: Any) -> Iterator[DiscoveryResponse]:
        given: set[str] = set()
        for request in requests:
            wanted = set(request.resource_names)
            self.asked |= wanted
            if request.error_detail.message:
                self.refused.append(request.error_detail.message)
            new, given = wanted - given, wanted
            if not new:
                continue
            response = DiscoveryResponse(
                version_info="1", nonce=os.urandom(4).hex(), type_url=_TYPE
            )
            for name in sorted(wanted & self._secrets.keys()):
                response.resources.add(type_url=_TYPE, value=bytes(self._secrets[name]))
            yield response


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    _shut(source)
    _shut(target)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
