"""Both ends of a WebSocket for tests: the handshake (RFC 6455 section 4), and then bytes as they are.

Nobody between looks at frames.
"""

import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha1
from types import TracebackType
from typing import Final, Self

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
_PATIENCE: Final = 20.0
_BLOCK: Final = 65536


def accept(key: str) -> str:
    """Return `Sec-WebSocket-Accept` for a key."""
    return b64encode(sha1(f"{key}{_GUID}".encode(), usedforsecurity=False).digest()).decode()


@dataclass
class WebSocketServer:
    """A server of WebSockets that sends all bytes back in upper case, as a context manager.

    Attributes:
        tls: TLS to speak; None for none.
        place: Address and port to listen at; port 0 for a free one.
        called: Called with the headers of each handshake.
        received: Request line and headers (names in lower case) of each handshake, in order.
    """

    tls: ssl.SSLContext | None = None
    place: tuple[str, int] = ("127.0.0.1", 0)
    called: Callable[[dict[str, str]], None] = lambda _: None
    received: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(self.place)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    @property
    def address(self) -> str:
        """`host:port` it listens on."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError):
            connection = self.tls.wrap_socket(plain, server_side=True) if self.tls else plain
            with connection:
                head, rest = _head(connection)
                line, *lines = head.split("\r\n")
                pairs = (one.partition(":") for one in lines)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                self.received.append((line, headers))
                self.called(headers)
                chosen = headers.get("sec-websocket-protocol", "").partition(",")[0]
                connection.sendall(
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
                    f"sec-websocket-accept: {accept(headers['sec-websocket-key'])}\r\n"
                    f"sec-websocket-protocol: {chosen}\r\n\r\n".encode()
                )
                while rest:
                    connection.sendall(rest.upper())
                    rest = connection.recv(_BLOCK)
                while data := connection.recv(_BLOCK):
                    connection.sendall(data.upper())


class WebSocketClient:
    """A client that has sent its handshake, as a context manager.

    Args:
        port: Of 127.0.0.1.
        host: `Host` of the request.
        headers: Further lines.
        path: Path of the request.
        early: Bytes that are sent with the handshake, before the answer.

    Attributes:
        status: Status of the answer.
        headers: Its headers, names in lower case.
        body: What came with the head.
    """

    def __init__(
        self,
        port: int,
        host: str,
        headers: Sequence[tuple[str, str]] = (),
        *,
        path: str = "/socket",
        early: bytes = b"",
    ) -> None:
        own = [
            ("host", host),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", _KEY),
            ("sec-websocket-protocol", "chat, other"),
        ]
        lines = "".join(f"{name}: {value}\r\n" for name, value in (*own, *headers))
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
        self._connection.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode() + early)
        head, self.body = _head(self._connection)
        line, *rest = head.split("\r\n")
        self.status = int(line.split(" ")[1])
        pairs = (one.partition(":") for one in rest)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    @property
    def is_accepted(self) -> bool:
        """Whether the other side has agreed."""
        return (101, accept(_KEY)) == (self.status, self.headers.get("sec-websocket-accept"))

    def say(self, data: bytes) -> bytes:
        """Send bytes, and return as many."""
        self._connection.sendall(data)
        return self.hear(len(data))

    def hear(self, size: int) -> bytes:
        """Return as many bytes as are asked for, or fewer at the end."""
        heard, self.body = self.body, b""
        while len(heard) < size and (part := self._connection.recv(_BLOCK)):
            heard += part
        return heard

    def rest(self) -> bytes:
        """Return all bytes up to the end of the connection."""
        heard, self.body = self.body, b""
        with suppress(ConnectionError):
            while part := self._connection.recv(_BLOCK):
                heard += part
        return heard


def _head(connection: socket.socket) -> tuple[str, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(_BLOCK)
        if not part:
            raise ConnectionError(f"ended after {data!r}")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest
