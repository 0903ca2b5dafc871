"""`HttpServer`: an ASGI application served inside this process, in bounds, with TLS where it is asked for.

What one connection may send, and how long that may take, is in `authz.doors.http_protocol`.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator
from functools import partial
from math import ceil
from pathlib import Path
from typing import Final

import structlog
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from authz.core.address import EVERY_ADDRESS, TcpAddress, UnixAddress, parse_address
from authz.doors.http_connections import Connections
from authz.doors.http_protocol import BoundedProtocol
from authz.system.unix_socket import Place, SocketPath

MOST_CONNECTIONS: Final = 1000
"""At a time: files are needed for the other doors as well. For a further one the longest silent yields."""
MOST_HELD: Final = 32 * 1024**2
"""Bytes of requests and answers that are in memory, of all connections of a server together."""
MOST_BODY: Final = 64 * 1024
"""Bytes of a request's body, where a server does not say otherwise."""
_BACKLOG: Final = 1024
_log = structlog.get_logger(__name__)


class ServerTls:
    """Certificate and key of a server, read again when their files change.

    Args:
        certificate_file: Certificate chain, PEM.
        key_file: Private key, PEM.

    Raises:
        OSError: A file cannot be read, or does not hold what it should (`ssl.SSLError`).
    """

    def __init__(self, certificate_file: Path, key_file: Path) -> None:
        self._files = (certificate_file, key_file)
        self._version = self._seen()
        self.context = self._load()
        self._latest = self.context
        self._complained: str | None = None
        # Asked for each connection, whether or not the client names a server.
        self.context.sni_callback = self._refresh

    def _seen(self) -> tuple[tuple[int, int], ...]:
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in map(os.stat, self._files))

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for file in self._files:
            if not file.is_file():
                raise OSError(f"{file} is no regular file")
        # With a pass phrase, which is wrong: without one, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(*self._files, password="")
        return context

    def _refresh(self, connection: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        try:
            version = self._seen()
            if version != self._version:
                self._latest, self._version = self._load(), version
                _log.info("certificate renewed", file=str(self._files[0]))
            elif self._complained is not None:
                _log.info("certificate usable again", file=str(self._files[0]))
            self._complained = None
        except OSError as error:
            # Half written, perhaps: the next connection looks again.
            cause = type(error).__name__
            if cause != self._complained:
                self._complained = cause
                _log.warning(
                    "certificate not usable", file=str(self._files[0]), cause=cause,
                    old_one_goes_on=True,
                )  # fmt: skip
        connection.context = self._latest


class HttpServer:
    """Serves an application until it is stopped.

    Args:
        address: `host:port` or `unix:PATH`. `[::]` takes connections of IPv4 as well.
        app: What to serve.
        keep_alive: Seconds for which an idle connection is kept.
        most_connections: Connections at a time; None for `MOST_CONNECTIONS`.
        most_body: Bytes of a request's body; None if the application bounds it by itself.
        most_held: Bytes in memory, of the requests and answers of all connections.
        patience: Seconds that requests under way have when stopping; None for as many as they take.
        tls: Certificate and key; None for plain HTTP.
    """

    def __init__(
        self,
        address: str,
        app: ASGIApp,
        *,
        keep_alive: int = 5,
        most_connections: int | None = None,
        most_body: int | None = MOST_BODY,
        most_held: int = MOST_HELD,
        patience: float | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        self._address = parse_address(address)
        self._socket = (
            SocketPath(Path(self._address.path)) if isinstance(self._address, UnixAddress) else None
        )
        self._app = app
        connections = Connections(
            most=most_connections or MOST_CONNECTIONS, most_bytes=most_held, timer=time.monotonic
        )
        config = uvicorn.Config(
            self._serve,
            interface="asgi3",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            # Who connects is who asks: nobody stands before us whose word would count.
            proxy_headers=False,
            # uvicorn calls it as it would a class.
            http=partial(BoundedProtocol, connections, most_body),  # type: ignore[arg-type]
            ws="none",
            ssl_context_factory=None if tls is None else lambda *_: tls.context,
            timeout_keep_alive=keep_alive,
            timeout_graceful_shutdown=None if patience is None else ceil(patience),
        )
        self._server = _EmbeddedServer(config)
        self._serving: asyncio.Task[None] | None = None
        self.port: int | None = None
        """Port of a TCP address, once started."""

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            OSError: The address cannot be had.
        """
        listener = self._listen()
        if listener.family != socket.AF_UNIX:
            self.port = listener.getsockname()[1]
        self._serving = asyncio.get_running_loop().create_task(
            self._server.serve(sockets=[listener])
        )

    async def stop(self) -> None:
        """Stop, finishing requests under way."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        if self._socket is not None:
            self._socket.remove()

    async def mend(self) -> str | None:
        """Serve at the socket's path again, if the socket there is gone. Called each second or so.

        Returns:
            Why nobody can connect; None if that is possible.
        """
        if self._socket is None or not self._server.started:
            return None
        place = self._socket.place()
        if place is Place.OURS:
            return None
        if place is Place.TAKEN:
            return f"another process has taken {self._address}"
        try:
            listener = self._listen()
        except OSError as error:
            return f"{self._address} is gone, and cannot be had again: {error}"
        _log.warning("socket was gone, serving at a new one", address=str(self._address))
        await self._server.move_to(listener)
        return None

    def _listen(self) -> socket.socket:
        if isinstance(self._address, TcpAddress):
            return _listen(self._address)
        assert self._socket is not None
        return self._socket.listen(_BACKLOG)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            # Nobody is left to answer.
            _log.info("request not read to its end")


def _listen(address: TcpAddress) -> socket.socket:
    place = address.host, address.port
    if address.host == EVERY_ADDRESS:
        if not socket.has_dualstack_ipv6():
            return socket.create_server(("0.0.0.0", address.port), backlog=_BACKLOG)  # noqa: S104 - every address is configured
        return socket.create_server(
            place, family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
        )
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server(place, family=family, backlog=_BACKLOG)


class _EmbeddedServer(uvicorn.Server):
    """A server that leaves signals to the program it is part of, and may move to another socket."""

    async def move_to(self, listener: socket.socket) -> None:
        """Take connections from this socket, and no more from the one before. Those that there are stay."""
        before = self.servers
        await self.startup(sockets=[listener])
        for server in before:
            server.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
