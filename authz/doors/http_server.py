"""`HttpServer`: an ASGI application served inside this process, in bounds, with TLS where it is asked for."""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from math import ceil
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from authz.doors.http_connections import Connections
from authz.system.unix_socket import Place, SocketPath

MOST_CONNECTIONS: Final = 1000
"""At a time: files are needed for the other doors as well. For a further one the longest silent yields."""
MOST_HELD: Final = 32 * 1024**2
"""Bytes of requests and answers that are in memory, of all connections of a server together."""
MOST_BODY: Final = 64 * 1024
"""Bytes of a request's body, where a server does not say otherwise."""
MOST_HEAD_BYTES: Final = 65536
"""Of a request's line and headers: room for tokens of the largest kind, and for nothing without end."""
HEAD_PATIENCE: Final = 10.0
"""Seconds in which a request's head must be there, and a new connection's first one."""
BODY_PATIENCE: Final = 10.0
"""Seconds in which a request's body must be there, while it is being read."""
LINGER: Final = 1.0
"""Seconds in which a client may read why it was refused; closing at once could destroy that on its way."""
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
        self._address = address
        self._socket = (
            SocketPath(Path(address.removeprefix("unix:"))) if address.startswith("unix:") else None
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
            http=partial(_BoundedProtocol, connections, most_body),  # type: ignore[arg-type]
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
        _log.warning("socket was gone, serving at a new one", address=self._address)
        await self._server.listen_also(listener)
        return None

    def _listen(self) -> socket.socket:
        if self._socket is None:
            return _listen(self._address)
        listener = socket.socket(socket.AF_UNIX)
        try:
            private = self._socket.private_name()
            listener.bind(str(private))
            listener.listen(_BACKLOG)
            self._socket.publish(private)
        except OSError:
            listener.close()
            raise
        return listener

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            # Nobody is left to answer.
            _log.info("request not read to its end")


def _listen(address: str) -> socket.socket:
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
    """Gives up a connection whose request is too long in coming, or for which there is no room.

    The parser itself would take headers for ever, from any client.
    """

    _head_bytes = 0
    _head_is_there = False
    _head_timer: asyncio.TimerHandle | None = None
    _body_timer: asyncio.TimerHandle | None = None
    _refused = False

    def __init__(self, connections: Connections, most_body: int | None, /, **more: Any) -> None:
        super().__init__(**more)
        self._connections = connections
        self._most_body = most_body
        self.held = 0

    # The transport's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request, if there is a place."""
        super().connection_made(transport)
        if not self._connections.add(self):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self._connections.waits(self)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._connections.remove(self)
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on to the parser, within the bounds."""
        while data and not self._is_refused() and self._awaits_head():
            # No more than a head may have, so that a body that comes along does not count as one.
            room = MOST_HEAD_BYTES - self._head_bytes
            piece, data = data[:room], data[room:]
            self._head_bytes += len(piece)
            self._connections.hold(self, len(piece))
            if not self._is_refused():
                super().data_received(piece)
            if self._awaits_head() and self._head_bytes >= MOST_HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if data and not self._is_refused():
            super().data_received(data)

    def pause_writing(self) -> None:
        """Count an answer that the client does not read."""
        super().pause_writing()
        self._connections.waits(self)
        self._connections.hold(self, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._request is not None:
            self._connections.works(self)
        else:
            self._connections.release(self)

    # The parser's side

    def on_message_begin(self) -> None:
        """Wait for the rest of the head."""
        super().on_message_begin()
        if self._head_is_there:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Wait for the body, if it may come."""
        self._wait_no_longer()
        self._head_is_there = True
        if self._most_body is not None and _length(self.headers) > self._most_body:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        super().on_headers_complete()
        self._await_body()

    def on_body(self, body: bytes) -> None:
        """Count a piece of a body, and keep it if there is room."""
        if not self._is_refused() and self._request is not None:
            self._connections.hold(self, len(body))
        if self._is_refused():
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Work: the client has said all."""
        self._wait_no_longer()
        if self._is_refused():
            return
        if self._request is not None:
            self._connections.works(self)
        super().on_message_complete()

    # The application's side

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        if not self.flow.write_paused:
            self._connections.release(self)
        self._connections.waits(self)
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Close; a client that does not read what was written has the same time once more."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    # Ends

    def yield_place(self) -> None:
        """End at once."""
        self._wait_no_longer()
        self._refused = True
        self._disconnect()
        self.transport.abort()

    def yield_memory(self) -> None:
        """End, and say so to a client that has had no answer yet."""
        self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)

    def _refuse(self, status: HTTPStatus) -> None:
        self._wait_no_longer()
        self._refused = True
        answered = self._request is not None and self._request.response_started
        self._disconnect()
        if answered or self.flow.write_paused or self.transport.is_closing():
            self.transport.abort()
            return
        self.transport.write(_problem(status))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # What still comes is thrown away meanwhile.
        self.flow.resume_reading()
        self._connections.waits(self)
        self.loop.call_later(LINGER, self.transport.abort)

    def _disconnect(self) -> None:
        """Tell the application that its client is gone."""
        if (request := self._request) is not None:
            request.disconnected = True
            request.message_event.set()
            self.flow.resume_writing()

    def _is_refused(self) -> bool:
        return self._refused

    def _awaits_head(self) -> bool:
        return not self._head_is_there

    @property
    def _request(self) -> RequestResponseCycle | None:
        """The request whose answer is not complete."""
        newest: RequestResponseCycle | None = self.cycle
        return None if newest is None or newest.response_complete else newest

    # Timers

    def _await_head(self) -> None:
        self._head_bytes, self._head_is_there = 0, False
        self._head_timer = self.loop.call_later(HEAD_PATIENCE, self._give_up_head)

    def _await_body(self) -> None:
        self._body_timer = self.loop.call_later(BODY_PATIENCE, self._give_up_body)

    def _wait_no_longer(self) -> None:
        for timer in (self._head_timer, self._body_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._body_timer = None

    def _give_up_head(self) -> None:
        self.transport.close()

    def _give_up_body(self) -> None:
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            # It is the application that does not read yet.
            self._await_body()
        elif self.cycle.response_complete:
            self.transport.abort()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    """Return the length of a body as far as its head tells: the parser has checked the number."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _problem(status: HTTPStatus) -> bytes:
    """Return an answer that is the last one of its connection (RFC 9457)."""
    body = orjson.dumps({"type": "about:blank", "title": status.phrase, "status": status.value})
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        head.append("retry-after: 1")
    return "\r\n".join([*head, "", ""]).encode() + body


class _EmbeddedServer(uvicorn.Server):
    """A server that leaves signals to the program it is part of, and may listen on further sockets."""

    async def listen_also(self, listener: socket.socket) -> None:
        """Take connections from this socket as well."""
        before = self.servers
        await self.startup(sockets=[listener])
        self.servers += before

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
