"""`BoundedProtocol`: HTTP/1.1 on one connection, within bounds of bytes and of seconds.

What bounds all connections of a server together is in `authz.doors.http_connections`; where a server
listens, in `authz.doors.http_server`.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from authz.doors.http_connections import Connections

MOST_HEAD_BYTES: Final = 65536
"""Of a request's line and headers: room for tokens of the largest kind, and for nothing without end."""
HEAD_PATIENCE: Final = 10.0
"""Seconds in which a request's head must be there, and a new connection's first one."""
BODY_PATIENCE: Final = 10.0
"""Seconds in which a request's body must be there, while it is being read."""
LINGER: Final = 1.0
"""Seconds in which a client may read why it was refused; closing at once could destroy that on its way."""


class BoundedProtocol(HttpToolsProtocol):
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
