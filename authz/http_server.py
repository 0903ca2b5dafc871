"""`HttpServer`: an ASGI application served inside this process, in bounds, with TLS where it is asked for."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_CONNECTIONS: Final = 1000
"""At a time. Further ones are answered with 503: files are needed for the other doors as well."""
MOST_HEAD_BYTES: Final = 65536
"""Of a request's line and headers: room for tokens of the largest kind, and for nothing without end."""
HEAD_PATIENCE: Final = 10.0
"""Seconds in which a request's head must be there, and a new connection's first one."""
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_BACKLOG: Final = 1024
_EVERY_ADDRESS: Final = "::"
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
        # Asked for each connection, whether or not the client names a server.
        self.context.sni_callback = self._refresh

    def _seen(self) -> tuple[tuple[int, int], ...]:
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in map(os.stat, self._files))

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(*self._files)
        return context

    def _refresh(self, connection: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        try:
            version = self._seen()
            if version != self._version:
                self._latest, self._version = self._load(), version
                _log.info("certificate renewed", file=str(self._files[0]))
        except OSError as error:
            # Half written, perhaps: the next connection looks again.
            _log.warning(
                "certificate not usable", file=str(self._files[0]), cause=type(error).__name__,
                old_one_goes_on=True,
            )  # fmt: skip
        connection.context = self._latest


class HttpServer:
    """Serves an application until it is stopped.

    Args:
        address: `host:port` or `unix:PATH`. `[::]` takes connections of IPv4 as well.
        app: What to serve.
        keep_alive: Seconds for which an idle connection is kept.
        patience: Seconds that requests under way have when stopping; None for as many as they take.
        tls: Certificate and key; None for plain HTTP.
    """

    def __init__(
        self,
        address: str,
        app: ASGIApp,
        *,
        keep_alive: int = 5,
        patience: float | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        self._address = address
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            # Who connects is who asks: nobody stands before us whose word would count.
            proxy_headers=False,
            http=_BoundedProtocol,
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
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
        listener = _listen(self._address)
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


def _listen(address: str) -> socket.socket:
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        if path.is_socket():
            path.unlink()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(_BACKLOG)
        return listener
    host, _, port = address.rpartition(":")
    host, number = host.strip("[]"), int(port)
    if host == _EVERY_ADDRESS:
        if not socket.has_dualstack_ipv6():
            return socket.create_server(("0.0.0.0", number), backlog=_BACKLOG)  # noqa: S104 - as told
        return socket.create_server(
            (host, number), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, number), family=family, backlog=_BACKLOG)


class _BoundedProtocol(HttpToolsProtocol):
    """Gives up a connection whose request is too long in coming, in bytes or in seconds.

    The parser itself would take headers for ever, from whoever can connect.
    """

    _head_bytes = 0
    _head_is_there = False
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on to the parser, within the bound."""
        if not self._head_is_there:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Wait for the rest of the head."""
        super().on_message_begin()
        if self._head_is_there:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Wait no longer: bodies are bounded by those who read them."""
        self._wait_no_longer()
        self._head_is_there = True
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head_bytes, self._head_is_there = 0, False
        self._head_timer = self.loop.call_later(HEAD_PATIENCE, self._give_up)

    def _wait_no_longer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self.transport.close()


class _EmbeddedServer(uvicorn.Server):
    """A server that leaves signals to the program it is part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
