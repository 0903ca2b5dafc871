"""Serves an ASGI application over TLS from a thread of its own, with a certificate of its own or a given one.

Nothing about Entra is known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import trustme
import uvicorn
from starlette.types import ASGIApp, Scope


class TlsServer:
    """One listening socket. `start` after `stop` takes the same port again.

    `tls` is a folder with `tls.crt`, `tls.key` and `ca.crt`; without it, there are a CA and a
    certificate of its own for `names`. `ca_pem` is what clients have to trust. Raises OSError.
    """

    def __init__(
        self, host: str, port: int, names: tuple[str, ...], tls: Path | None = None
    ) -> None:
        self.host = host
        self.port = port
        self._tls = tls
        self._certificate: trustme.LeafCert | None = None
        if tls is None:
            authority = trustme.CA()
            self.ca_pem = authority.cert_pem.bytes()
            identities = dict.fromkeys(("127.0.0.1", "::1", "localhost", *names))
            self._certificate = authority.issue_cert(*identities)
        else:
            self.ca_pem = (tls / "ca.crt").read_bytes()
            self._context()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def bind(self) -> socket.socket:
        """Open the listening socket and settle the port; raises OSError."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # With the protocol named, asyncio turns Nagle's algorithm off: 40 ms less per answer.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        return listener

    def serve(self, app: ASGIApp, listener: socket.socket) -> None:
        """Serve from a background thread; returns when connections are accepted."""
        listener.listen(2048)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_keep_alive=60,
                ssl_context_factory=lambda *_: self._context(),
            )
        )

        running = threading.Event()

        async def run() -> None:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            running.set()
            with listener, contextlib.suppress(asyncio.CancelledError):
                await server.serve(sockets=[listener])
            # A connection that was cut is closed in the loop's next rounds, for which TLS needs two.
            for _ in range(3):
                await asyncio.sleep(0)

        self._server = server
        self._thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
        self._thread.start()
        # The socket listens already: a connection made now waits in its backlog.
        running.wait()

    def stop(self) -> None:
        """Close the socket and every connection, requests in flight included."""
        if self._thread is None or self._loop is None:
            return
        # Not uvicorn's own shutdown: that one waits for requests a fault keeps hanging.
        self._loop.call_soon_threadsafe(self._cut)
        self._thread.join()
        self._server = self._thread = self._loop = self._task = None

    def abort(self, scope: Scope) -> None:
        """Cut the connection that a request of this ASGI scope came on."""
        for connection in self._connections():
            if connection.client == scope["client"]:
                connection.transport.abort()

    def write(self, scope: Scope, data: bytes) -> None:
        """Send bytes on the connection that a request came on, past the server's own idea of HTTP."""
        for connection in self._connections():
            if connection.client == scope["client"]:
                connection.transport.write(data)

    def _cut(self) -> None:
        for connection in self._connections():
            connection.transport.abort()
        if self._task is not None:
            self._task.cancel()

    def _connections(self) -> list[Any]:
        return [] if self._server is None else list(self._server.server_state.connections)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._certificate is not None:
            self._certificate.configure_cert(context)
        elif self._tls is not None:
            context.load_cert_chain(self._tls / "tls.crt", self._tls / "tls.key")
        return context
