"""A gRPC server for tests: answers `/test.Echo/Echo` with the metadata of the call, and remembers that."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc
import orjson

Metadata = list[tuple[str, str]]


class GrpcEcho:
    """The server, on a free port of an address, as a context manager.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        certificate: Private key and certificate chain, PEM; None for plain HTTP/2.
        method: Service and method that it has.
        called: Called with the metadata of each call.

    Attributes:
        received: Metadata of each call, in order.
        port: Where it listens.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        certificate: tuple[bytes, bytes] | None = None,
        method: tuple[str, str] = ("test.Echo", "Echo"),
        called: Callable[[Metadata], None] = lambda _: None,
    ) -> None:
        self.received: list[Metadata] = []
        self._called = called
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            self._echo
        )
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(method[0], {method[1]: handler})]
        )
        address = f"{host}:{port}"
        if certificate is None:
            self.port = self._server.add_insecure_port(address)
        else:
            credentials = grpc.ssl_server_credentials([certificate])
            self.port = self._server.add_secure_port(address, credentials)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    def _echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = [
            (name, value if isinstance(value, str) else value.hex())
            for name, value in context.invocation_metadata()
        ]
        self.received.append(metadata)
        self._called(metadata)
        return orjson.dumps(metadata)
