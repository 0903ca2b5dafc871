"""Checks sent straight to a gRPC socket: their bytes, and what an answer says."""

from pathlib import Path
from typing import Final

import grpc

from authz._pb.external_auth_pb2 import CheckRequest, CheckResponse
from authz.config.rendered import MARK
from authz.doors.envoy.ext_authz import SERVICE
from bench.load import LoadError, Target

METHOD: Final = f"/{SERVICE}/Check"
_FRAME: Final = 5
"""Bytes before a gRPC message: a flag and its length."""


def request(direction: str, route: str, token: str, mark: str | None = None) -> bytes:
    """Prepare a Check of about the size that Envoy sends, with the mark of its configuration, if any."""
    wire = CheckRequest()
    http = wire.attributes.request.http
    http.method, http.host, http.path = "GET", "graph.microsoft.com", "/v1.0/me"
    http.headers["authorization"] = f"Bearer {token}"
    for name in ("user-agent", "accept", "x-request-id", "traceparent", "x-forwarded-proto"):
        http.headers[name] = "v" * 40
    wire.attributes.context_extensions["authz.direction"] = direction
    wire.attributes.context_extensions["authz.route"] = route
    if mark is not None:
        wire.attributes.context_extensions[MARK] = mark
    return wire.SerializeToString()


class Caller:
    """Sends one Check at a time over one connection, and waits for the answer.

    Args:
        address: gRPC target.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._call: grpc.UnaryUnaryMultiCallable[bytes, CheckResponse] = self._channel.unary_unary(
            METHOD, response_deserializer=CheckResponse.FromString
        )

    def ask(self, prepared: bytes) -> CheckResponse:
        """Send a prepared Check.

        Raises:
            LoadError: It was denied, or not answered.
        """
        try:
            answer: CheckResponse = self._call(prepared, timeout=20, wait_for_ready=True)
        except grpc.RpcError as error:
            raise LoadError(f"a Check was not answered: {error}") from error
        if answer.status.code:
            body = answer.denied_response.body
            raise LoadError(f"a Check was denied: {answer.status.message} {body}")
        return answer

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


def answer_bytes(address: str, prepared: bytes) -> int:
    """Return the size of the answer to a Check that is allowed, as h2load counts it.

    Raises:
        LoadError: It was denied, or not answered.
    """
    caller = Caller(address)
    try:
        return caller.ask(prepared).ByteSize() + _FRAME
    finally:
        caller.close()


def target(socket: Path | str, prepared: bytes) -> Target:
    """Return what h2load sends for a Check: a gRPC call over HTTP/2.

    Args:
        socket: Unix socket, or `host:port`.
        prepared: The Check.
    """
    where = "authz" if isinstance(socket, Path) else socket
    return Target(
        f"http://{where}{METHOD}",
        {"content-type": "application/grpc", "te": "trailers"},
        body=b"\0" + len(prepared).to_bytes(4, "big") + prepared,
        socket=socket if isinstance(socket, Path) else None,
        http2=True,
    )
