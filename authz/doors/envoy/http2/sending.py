"""`Sender`: the answers of one connection, as far as the peer has room for them (RFC 9113 section 5.2)."""

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import Final

from authz.doors.envoy.http2 import calls, frames
from authz.doors.envoy.http2.calls import PREFIX_BYTES, Call, Refusal

_LAST: Final = frames.END_HEADERS | frames.END_STREAM
_BEFORE: Final = Struct(f">HBBBL{len(calls.ANSWER)}sHBBBLBL")
"""What comes before a message that fits into one frame: headers, and the head of the data with its prefix."""
_AFTER: Final = Struct(f">HBBBL{len(calls.TRAILERS)}s")


class Stream:
    """A request that has begun and has no whole answer yet.

    Attributes:
        call: What its headers ask for.
        window: Bytes of an answer's body that the peer has room for.
        body: What has come of its body.
        received: Bytes of its body, padding included.
        ended: Whether it has come to its end.
        task: What waits for its answer; None if nothing does.
        pending: What is left of its answer's body; empty if nothing is.
    """

    __slots__ = ("body", "call", "ended", "pending", "received", "task", "window")

    def __init__(self, call: Call, window: int) -> None:
        self.call = call
        self.window = window
        self.body: bytes | bytearray = b""
        self.received = 0
        self.ended = False
        self.task: asyncio.Task[bytes] | None = None
        self.pending = b""

    def take(self, data: bytes) -> None:
        """Add a part of the body. Mostly it is the only one."""
        if not self.body:
            self.body = data
        elif isinstance(self.body, bytes):
            self.body = bytearray(self.body + data)
        else:
            self.body += data


class Sender:
    """Gathers frames.

    Args:
        later: Is called when there is something to send that came of nothing that was just read.

    Attributes:
        out: Frames that have not been written.
        window: Bytes of all answers' bodies that the peer has room for.
    """

    def __init__(self, later: Callable[[], None]) -> None:
        self.later = later
        self.out: list[bytes] = []
        self.window = frames.DEFAULT_WINDOW
        self._waiting: dict[int, Stream] = {}
        """Answers that wait for room on the connection, the oldest first."""

    def taken(self) -> bytes:
        """Return what has been gathered, to be written."""
        gathered = b"".join(self.out)
        self.out.clear()
        return gathered

    def answer(self, number: int, stream: Stream, message: bytes) -> bool:
        """Send a message; return whether all of it, and the end after it, is on its way."""
        size = len(message) + PREFIX_BYTES
        if size > frames.LARGEST_FRAME or size > self.window or size > stream.window:
            self.out.append(frames.frame(frames.HEADERS, frames.END_HEADERS, number, calls.ANSWER))
            stream.pending = b"\0" + len(message).to_bytes(4, "big") + message
            return self.send_part(number, stream)
        self.window -= size
        self.out += (
            _BEFORE.pack(
                *(0, len(calls.ANSWER), frames.HEADERS, frames.END_HEADERS, number, calls.ANSWER),
                *(size >> 8, size & 0xFF, frames.DATA, 0, number, 0, len(message)),
            ),
            message,
            _AFTER.pack(0, len(calls.TRAILERS), frames.HEADERS, _LAST, number, calls.TRAILERS),
        )
        return True

    def refuse(self, number: int, stream: Stream, refusal: Refusal) -> bool:
        """Send an error; return whether all of it is on its way."""
        flags = frames.END_HEADERS if refusal.body else _LAST
        self.out.append(frames.frame(frames.HEADERS, flags, number, refusal.headers))
        stream.pending = refusal.body
        return not refusal.body or self.send_part(number, stream)

    def send_part(self, number: int, stream: Stream) -> bool:
        """Send as much of an answer's body as there is room for; return whether that was all of it."""
        has_trailers = stream.call.refusal is None
        while stream.pending:
            size = min(len(stream.pending), frames.LARGEST_FRAME, self.window, stream.window)
            if size <= 0:
                if stream.window > 0:
                    self._waiting[number] = stream
                else:
                    self._waiting.pop(number, None)
                return False
            part, stream.pending = stream.pending[:size], stream.pending[size:]
            self.window -= size
            stream.window -= size
            flags = 0 if stream.pending or has_trailers else frames.END_STREAM
            self.out.append(frames.frame(frames.DATA, flags, number, part))
        if has_trailers:
            self.out.append(frames.frame(frames.HEADERS, _LAST, number, calls.TRAILERS))
        self._waiting.pop(number, None)
        return True

    def send_waiting(self) -> list[int]:
        """Send what the connection has room for now; return the streams of which that was all.

        Each step sends something or ends, however many answers wait.
        """
        done = []
        while self._waiting and self.window > 0:
            number, stream = next(iter(self._waiting.items()))
            if self.send_part(number, stream):
                done.append(number)
        return done

    def forget(self, number: int) -> None:
        """Send no more of an answer."""
        self._waiting.pop(number, None)

    def close(self) -> None:
        """Drop the reference to the connection, and the answers that wait."""
        self.later = _nothing
        self._waiting.clear()


def _nothing() -> None:
    """Do nothing: the connection has ended."""
