"""Both ends of HTTP/2 for tests, without a library between test and frames that would be too polite.

`Http2Upstream` remembers requests with their trailers; `http2_call` sends whatever it is given.
"""

import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Self

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

Headers = Sequence[tuple[str, str]]

_FRAME: Final = 65536
_PATIENCE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Http2Message:
    """A request or an answer.

    Attributes:
        headers: With those that begin with a colon; of an answer without its status.
        body: The body.
        trailers: What came after it.
        status: Of an answer; 0 where the stream or the connection was ended without one.
    """

    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()
    status: int = 0

    def values(self, name: str) -> list[str]:
        """Return the values of every header of that name."""
        return [value for key, value in self.headers if key == name]


class Http2Upstream:
    """A threaded HTTP/2 server on a free loopback port, as a context manager.

    Args:
        tls: TLS to speak, with `h2` in ALPN; None for plain text.

    Attributes:
        received: The requests that arrived whole, in order.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Http2Message] = []
        self._tls = tls
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def address(self) -> str:
        """`host:port` it listens on."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError, ProtocolError):
            connection = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            with connection:
                self._speak(connection)

    def _speak(self, connection: socket.socket) -> None:
        http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        http.initiate_connection()
        under_way: dict[int, Http2Message] = {}
        connection.sendall(http.data_to_send())
        while data := connection.recv(_FRAME):
            for event in http.receive_data(data):
                self._take(http, under_way, event)
            connection.sendall(http.data_to_send())

    def _take(
        self, http: H2Connection, under_way: dict[int, Http2Message], event: h2.events.Event
    ) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(stream)):
                under_way[stream] = Http2Message(_texts(event.headers))
            case h2.events.DataReceived(stream_id=int(stream)):
                seen = under_way[stream]
                under_way[stream] = replace(seen, body=seen.body + (event.data or b""))
                http.acknowledge_received_data(event.flow_controlled_length or 0, stream)
            case h2.events.TrailersReceived(stream_id=int(stream)):
                under_way[stream] = replace(under_way[stream], trailers=_texts(event.headers))
            case h2.events.StreamEnded(stream_id=int(stream)):
                self.received.append(under_way.pop(stream))
                http.send_headers(stream, [(":status", "200")])
                http.send_data(stream, b"seen")
                http.send_headers(stream, [("grpc-status", "0")], end_stream=True)


@dataclass
class _Answer:
    message: Http2Message = field(default_factory=Http2Message)
    ended: bool = False

    def take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                headers = _texts(event.headers)
                status = int(dict(headers)[":status"])
                self.message = replace(self.message, headers=headers[1:], status=status)
            case h2.events.DataReceived():
                body = self.message.body + (event.data or b"")
                self.message = replace(self.message, body=body)
            case h2.events.TrailersReceived():
                self.message = replace(self.message, trailers=_texts(event.headers))
            case h2.events.StreamEnded() | h2.events.StreamReset():
                self.ended = True
            case h2.events.ConnectionTerminated():
                self.ended = True


def http2_call(
    port: int,
    host: str,
    *,
    method: str = "POST",
    path: str = "/",
    headers: Headers = (),
    body: bytes | None = b"",
    trailers: Headers = (),
    tls: tuple[ssl.SSLContext, str] | None = None,
) -> Http2Message:
    """Send one request on a connection of its own, as it is, and return the answer.

    Args:
        port: Of 127.0.0.1.
        host: `:authority`.
        method: `:method`.
        path: `:path`.
        headers: Further headers.
        body: Sent even where it is empty; None for no frame at all.
        trailers: Sent after the body, if there are any.
        tls: Client's side of TLS and the name to ask for; None for plain text.
    """
    config = H2Configuration(
        header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
    )
    http = H2Connection(config)
    http.initiate_connection()
    scheme = "https" if tls else "http"
    own = [(":method", method), (":scheme", scheme), (":authority", host), (":path", path)]
    http.send_headers(1, [*own, *headers], end_stream=body is None and not trailers)
    while body is not None and len(body) > http.max_outbound_frame_size:
        http.send_data(1, body[: http.max_outbound_frame_size])
        body = body[http.max_outbound_frame_size :]
    if body is not None:
        http.send_data(1, body, end_stream=not trailers)
    if trailers:
        http.send_headers(1, list(trailers), end_stream=True)
    answer = _Answer()
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as plain:
        connection = tls[0].wrap_socket(plain, server_hostname=tls[1]) if tls else plain
        connection.sendall(http.data_to_send())
        while not answer.ended and (data := connection.recv(_FRAME)):
            for event in http.receive_data(data):
                answer.take(event)
                if isinstance(event, h2.events.DataReceived):
                    http.acknowledge_received_data(event.flow_controlled_length or 0, 1)
            connection.sendall(http.data_to_send())
    return answer.message


def _texts(headers: object) -> tuple[tuple[str, str], ...]:
    assert isinstance(headers, list)
    return tuple((str(name), str(value)) for name, value in headers)
