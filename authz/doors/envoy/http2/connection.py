"""`Connection`: one peer's bytes, from the preface to the end. What frames mean is in `session`.

What is read at once is answered by one write.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final, cast

from authz.doors.envoy.http2 import frames
from authz.doors.envoy.http2.frames import Code, ConnectionFault
from authz.doors.envoy.http2.sending import Sender
from authz.doors.envoy.http2.session import OPENING, Method, Session

HANDSHAKE_PATIENCE: Final = 10.0
"""Seconds in which a connection must have come to its first settings."""
IDLE_PATIENCE: Final = 600.0
"""Seconds for which a connection without calls is kept."""
CLOSING_PATIENCE: Final = 5.0
"""Seconds in which the peer must have read the last answers."""
_SPREAD: Final = 0.1
"""Part of its age by which a connection lives longer or shorter: those of one moment do not end in one."""


class Connection(asyncio.Protocol):
    """Serves one peer.

    Args:
        path: `:path` of the method.
        method: What answers.
        max_age: Seconds after which the peer is asked to open another connection.
        grace: Seconds that calls under way have then.
        gone: Is called when the connection has ended.
    """

    def __init__(
        self,
        path: str,
        method: Method,
        *,
        max_age: float,
        grace: float,
        gone: Callable[["Connection"], None] = lambda _: None,
    ) -> None:
        self._sender = Sender(self._answered)
        self._session = Session(path, method, self._sender)
        self._max_age = max_age
        self._grace = grace
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._idle: asyncio.TimerHandle | None = None
        self._heard = self._loop.time()
        self._greeted = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer, and begin to count its age."""
        # uvloop's is no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(OPENING)
        age = self._max_age * (1 + _SPREAD * (2 * random.random() - 1))  # noqa: S311 - to spread
        self._timers.append(self._loop.call_later(age, self.retire))
        self._timers.append(self._loop.call_later(HANDSHAKE_PATIENCE, self._greet_or_end))
        self._watch_idle()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and answer what can be answered."""
        if self._transport is None or self._transport.is_closing():
            return
        session = self._session
        session.reading, self._heard = True, self._loop.time()
        try:
            self._take(self._rest + data if self._rest else data)
        except ConnectionFault as fault:
            session.fail(fault)
            self._write()
            self._close()
        finally:
            session.reading = False
        self._answered()

    def eof_received(self) -> bool:
        """End with the peer: nobody reads answers any more."""
        self._close()
        return False

    def pause_writing(self) -> None:
        """Read no more while the peer does not read."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever it was
        """Cancel what nobody waits for any more."""
        self._transport = None
        for timer in (*self._timers, self._idle):
            if timer is not None:
                timer.cancel()
        self._session.close()
        self._gone(self)

    def retire(self) -> None:
        """Ask the peer to send further calls elsewhere; end when those under way are answered."""
        if self._transport is not None and self._session.retire():
            self._timers.append(self._loop.call_later(self._grace, self.abort))
            self._write()

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self._greeted:
            got = data[: len(frames.PREFACE)]
            if not frames.PREFACE.startswith(got):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "expected the preface of HTTP/2")
            if len(got) < len(frames.PREFACE):
                self._rest = data
                return
            self._greeted, at = True, len(got)
        unpack, head, take = frames.HEAD.unpack_from, frames.HEAD_BYTES, self._session.take
        while end - at >= head:
            high, low, kind, flags, stream = unpack(data, at)
            length = high << 8 | low
            if length > frames.LARGEST_FRAME:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "the frame is too large")
            after = at + head + length
            if after > end:
                break
            take(kind, flags, stream & frames.LARGEST_STREAM, data[at + head : after])
            at = after
        self._rest = data[at:]

    def _answered(self) -> None:
        """Write what has been gathered, and close if it was the last."""
        if not self._session.reading:
            self._write()
            if self._session.is_done:
                self._close()

    def _write(self) -> None:
        gathered = self._sender.taken()
        if gathered and self._transport is not None and not self._transport.is_closing():
            self._transport.write(gathered)

    def _close(self) -> None:
        """End as soon as the peer has read what is written, or has not read it for a while."""
        if self._transport is not None:
            self._transport.close()
            self._timers.append(self._loop.call_later(CLOSING_PATIENCE, self.abort))

    def _greet_or_end(self) -> None:
        if not self._session.settled:
            self.abort()

    def _watch_idle(self) -> None:
        """Retire a connection on which nothing has come for long."""
        left = self._heard + IDLE_PATIENCE - self._loop.time()
        if left <= 0 and self._session.is_idle:
            self.retire()
            return
        self._idle = self._loop.call_later(max(left, 1.0), self._watch_idle)
