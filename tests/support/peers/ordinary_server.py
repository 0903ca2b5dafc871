"""An agent or an API that ordinary clients call: echoes, digests of uploads, events, gzip and a web page.

The last event of a stream is sent once the client has said, by another request, that it has the first one: so
an intermediary that holds events back is noticed.
"""

import gzip
import hashlib
import ssl
import threading
from collections import defaultdict
from typing import Final, Self

from support.peers.quiet_server import QuietHandler, QuietServer
from support.peers.upstream import Seen

SQUEEZED: Final = "squeezed " * 1000
LATE: Final = "late"
"""Sent in place of the last event, to a client that did not receive the first one in time."""
_PATIENCE: Final = 20.0


class OrdinaryServer:
    """A threaded HTTP/1.1 server on a free loopback port, as a context manager.

    Args:
        tls: With it, the server speaks TLS and nothing else.
        page: What a browser is given.

    Attributes:
        received: The requests that arrived, in order, without their bodies.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, page: bytes = b"") -> None:
        self.received: list[Seen] = []
        self.page = page
        self.seen: dict[str, threading.Event] = defaultdict(threading.Event)
        self._server = _Server(self, tls)

    @property
    def address(self) -> str:
        """`host:port` it listens on."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._server.started()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(QuietServer):
    def __init__(self, owner: OrdinaryServer, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler, tls)
        self.owner = owner


class _Handler(QuietHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def take(self) -> None:
        """Answer by the path."""
        assert isinstance(self.server, _Server)
        owner = self.server.owner
        headers = tuple((name.lower(), value) for name, value in self.headers.items())
        owner.received.append(Seen(self.command, self.path, headers))
        kind, _, name = self.path.partition("?")[0].strip("/").partition("/")
        match kind:
            case "healthz" | "page":
                self.answer(owner.page, content_type="text/html; charset=utf-8")
            case "digest":
                found = hashlib.sha256()
                for chunk in self.body():
                    found.update(chunk)
                self.answer(found.hexdigest().encode(), content_type="text/plain")
            case "events":
                self._tell(owner.seen[name])
            case "seen":
                owner.seen[name].set()
                self.answer(b"noted", content_type="text/plain")
            case "gzip":
                self._squeeze()
            case _:
                for _ in self.body():
                    pass
                self.answer(b"echo", content_type="text/plain")

    do_GET = do_POST = do_PUT = do_OPTIONS = take  # noqa: N815

    def do_HEAD(self) -> None:  # noqa: N802
        """Answer without a body."""
        assert isinstance(self.server, _Server)
        headers = tuple((name.lower(), value) for name, value in self.headers.items())
        self.server.owner.received.append(Seen(self.command, self.path, headers))
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()

    def _tell(self, seen: threading.Event) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._event("first")
        self._event("last" if seen.wait(_PATIENCE) else LATE)
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, event: str) -> None:
        data = f"data: {event}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _squeeze(self) -> None:
        """Answer in gzip to those who ask for it, and with a refusal to others."""
        if "gzip" not in self.headers.get("accept-encoding", ""):
            self.answer(b"gzip is all there is", 406, "text/plain")
            return
        body = gzip.compress(SQUEEZED.encode())
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-encoding", "gzip")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
