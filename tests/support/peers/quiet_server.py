"""HTTP servers of tests that log nothing: requests hold tokens, and clients may hang up as they like."""

import socket
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final, Self

_CHUNK: Final = 64 * 1024


class QuietHandler(BaseHTTPRequestHandler):
    """Answers requests without a line for each."""

    def answer(
        self, body: bytes, status: int = 200, content_type: str = "application/octet-stream"
    ) -> None:
        """Send an answer whose length is known; to HEAD without its body (RFC 9110 section 9.3.2)."""
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        # Bytes after the head would end the connection, and with it a request that Envoy sends there again.
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> Iterator[bytes]:
        """Read the request's body piece by piece, in chunks or of a known length (without trailers)."""
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("content-length", 0))
        while left:
            chunk = self.rfile.read(min(_CHUNK, left))
            left -= len(chunk)
            yield chunk

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class QuietServer(ThreadingHTTPServer):
    """Serves from threads that end with the process, and says nothing of clients that end a connection.

    Args:
        address: Where to listen, IPv4 or IPv6; port 0 takes a free one.
        handler: Answers.
        tls: With it, TLS is spoken; each handshake is made in the connection's own thread.
    """

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)
        if tls is not None:
            self.socket = tls.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def handle_error(self, *_: Any) -> None:
        """Say nothing."""

    def started(self) -> Self:
        """Serve from a thread of its own, and return the server."""
        Thread(target=self.serve_forever, daemon=True).start()
        return self
