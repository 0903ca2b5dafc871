"""`Session`: the streams of one connection, by the frames that come (RFC 9113 sections 5, 6 and 8).

A stream is forgotten as soon as it has its answer. What still comes for it is answered by its number alone.
Nothing here reads or writes a socket.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from functools import partial
from typing import Any, ClassVar, Final, Protocol

import structlog

from authz.doors.envoy.http2 import calls, frames
from authz.doors.envoy.http2.calls import (
    LARGEST_MESSAGE,
    PREFIX_BYTES,
    Calls,
    Refusal,
    length_of,
    refusal_of,
)
from authz.doors.envoy.http2.frames import Code, ConnectionFault, Setting, StreamFault
from authz.doors.envoy.http2.sending import Sender, Stream

_log = structlog.get_logger(__name__)
MOST_STREAMS: Final = 4096
"""Calls under way at a time on one connection; Envoy holds back what comes beyond."""
_STREAM_WINDOW: Final = LARGEST_MESSAGE + PREFIX_BYTES + 65_536
"""Bytes of one stream's body that the peer may send. It is not extended: more is no Check."""
_CONNECTION_WINDOW: Final = 16 * 1024 * 1024
"""Bytes of bodies of all streams that are held at a time."""
_MOST_CONTINUATIONS: Final = 32
"""Frames by which one block of headers may be continued."""
_MOST_CUT: Final = 64
"""Streams that are remembered as ended by us."""
_MOST_SETTINGS: Final = 100
"""Frames of settings on one connection. A peer sends one, or a few; each is work for all streams."""
_MARK: Final = b"authz-go"
"""Content of the ping whose answer says that the peer has read of the connection's end."""
OPENING: Final = frames.settings(
    {
        # Each block of headers then means the same whenever it comes.
        Setting.HEADER_TABLE_SIZE: 0,
        Setting.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
        Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
        Setting.MAX_HEADER_LIST_SIZE: calls.LARGEST_HEADERS,
    }
) + frames.window_update(0, _CONNECTION_WINDOW - frames.DEFAULT_WINDOW)
"""What the peer is sent first."""
_SETTINGS_ACK: Final = frames.frame(frames.SETTINGS, frames.ACK, 0)


class Method(Protocol):
    """The one unary method: bytes of a message in, bytes of a message out."""

    def answer(self, message: bytes, timeout: float | None) -> bytes | Coroutine[Any, Any, bytes]:
        """Answer at once, or later.

        Args:
            message: The request's message.
            timeout: Seconds that the client waits; None for as long as it takes.

        Raises:
            ValueError: It is no message of the method's.
        """


class Session:
    """The state of one connection.

    Args:
        path: `:path` of the method.
        method: What answers.
        sender: Takes what is to be sent.

    Attributes:
        settled: Whether the peer has sent its settings.
        reading: Whether frames are being read, after which what was gathered is written.
    """

    def __init__(self, path: str, method: Method, sender: Sender) -> None:
        self._method = method
        self._calls = Calls(path)
        self._sender = sender
        self._out = sender.out
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, Stream] = {}
        self._last = 0
        # Streams that we have cut of late: frames that were on their way are passed over (section 5.1).
        self._cut: deque[int] = deque(maxlen=_MOST_CUT)
        self._final = frames.LARGEST_STREAM
        self.settled = self.reading = False
        self._retiring = self._may_close = False
        # Headers of which further frames follow: their stream, whether it ends with them, and their parts.
        self._block: tuple[int, bool, list[bytes]] | None = None
        self._first_window = frames.DEFAULT_WINDOW
        self._settings = 0
        self._held = 0
        self._credit = 0

    @property
    def is_idle(self) -> bool:
        """Whether no call is under way."""
        return not self._streams

    @property
    def is_done(self) -> bool:
        """Whether the end was announced, and nothing is left to be answered."""
        return self._may_close and not self._streams

    def retire(self) -> bool:
        """Announce the end, in two steps (section 6.8); return whether it was not announced before.

        Calls that are on their way when the peer reads the first are answered.
        """
        if self._retiring:
            return False
        self._retiring = True
        self._out.append(frames.goaway(frames.LARGEST_STREAM, Code.NO_ERROR))
        self._out.append(frames.frame(frames.PING, 0, 0, _MARK))
        return True

    def fail(self, fault: ConnectionFault) -> None:
        """Tell the peer why the connection ends."""
        _log.info("http2 connection ended", error=fault.code.name, cause=str(fault))
        self._out.append(frames.goaway(self._last, fault.code, str(fault)))

    def close(self) -> None:
        """Cancel what nobody waits for any more."""
        self._sender.close()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            if stream.task is not None:
                stream.task.cancel()

    def take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Take one frame.

        Raises:
            ConnectionFault: The connection ends for it.
        """
        if not self.settled and kind != frames.SETTINGS:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "expected settings first")
        if self._block is not None and (kind != frames.CONTINUATION or stream != self._block[0]):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "expected the rest of the headers")
        if kind == frames.DATA and stream:
            self._on_data(stream, flags, payload)
        elif kind == frames.HEADERS and stream:
            self._on_headers(stream, flags, payload)
        elif kind < len(self._HANDLERS):
            frames.check(kind, stream, payload)
            self._HANDLERS[kind](self, stream, flags, payload)
        # Section 4.1: an unknown kind is passed over.

    def _on_data(self, number: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        self._held += size
        if self._held + self._credit > _CONNECTION_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more data than the window has room for")
        stream = self._streams.get(number)
        if stream is None or stream.ended:
            self._release(size)
            if number > self._last:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "data before headers")
            if number not in self._cut:
                self._reset(number, Code.STREAM_CLOSED)
            return
        stream.received += size
        if stream.received > _STREAM_WINDOW:
            self._reset(number, Code.FLOW_CONTROL_ERROR)
            return
        stream.take(frames.unpadded(payload, flags) if flags & frames.PADDED else payload)
        if flags & frames.END_STREAM:
            self._ended(number, stream)
        elif len(stream.body) >= PREFIX_BYTES and length_of(stream.body) > LARGEST_MESSAGE:
            self._refuse(number, stream, stream.call.refusal or calls.TOO_LARGE)
            self._reset(number, Code.NO_ERROR)

    def _on_headers(self, number: int, flags: int, payload: bytes) -> None:
        block = frames.unpadded(payload, flags) if flags & frames.PADDED else payload
        if flags & frames.WITH_PRIORITY:
            if len(block) < frames.PRIORITY_BYTES:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "the frame ends within its priority")
            frames.check_priority(number, block)
            block = block[frames.PRIORITY_BYTES :]
        ends = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            self._on_block(number, block, ends=ends)
        else:
            self._block = (number, ends, [block])

    def _on_continuation(self, number: int, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "there are no headers to go on with")
        _, ends, parts = self._block
        parts.append(payload)
        if len(parts) > _MOST_CONTINUATIONS or sum(map(len, parts)) > calls.LARGEST_HEADERS:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "the headers are too large")
        if flags & frames.END_HEADERS:
            self._block = None
            self._on_block(number, b"".join(parts), ends=ends)

    def _on_block(self, number: int, block: bytes, *, ends: bool) -> None:
        if number <= self._last:
            self._on_trailers(number, block, ends=ends)
            return
        if number % 2 == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a client's streams have odd numbers")
        self._last = number
        try:
            call = self._calls.call(block)
        except StreamFault as fault:
            self._reset(number, fault.code)
            return
        if number > self._final:
            # Announced as not answered: the peer sends it elsewhere. Its data may follow.
            self._cut.append(number)
            return
        if len(self._streams) >= MOST_STREAMS:
            self._reset(number, Code.REFUSED_STREAM)
            return
        stream = self._streams[number] = Stream(call, self._first_window)
        if ends:
            self._ended(number, stream)

    def _on_trailers(self, number: int, block: bytes, *, ends: bool) -> None:
        # Whatever comes of it, the block has to be read: HPACK has one state for all.
        are_good = self._calls.trailers(block)
        stream = self._streams.get(number)
        if stream is None or stream.ended:
            if number not in self._cut:
                raise ConnectionFault(Code.STREAM_CLOSED, "headers after the end of their stream")
        elif ends and are_good:
            self._ended(number, stream)
        else:
            self._reset(number, Code.PROTOCOL_ERROR)

    def _on_priority(self, number: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - of each kind
        frames.check_priority(number, payload)

    def _on_reset(self, number: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - of each kind
        if number > self._last:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "there is no such stream")
        self._forget(number)

    def _on_settings(self, number: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - of each kind
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "expected no settings")
            self._calls.has_agreed = True
            return
        self.settled = True
        self._settings += 1
        if self._settings > _MOST_SETTINGS:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "the settings change too often")
        # Our frames are never larger than what everybody takes, and the other settings bound nothing of ours.
        found, before = frames.settings_of(payload), self._first_window
        self._first_window = found.get(Setting.INITIAL_WINDOW_SIZE, before)
        self._out.append(_SETTINGS_ACK)
        if more := self._first_window - before:
            self._widen(more)

    def _widen(self, more: int) -> None:
        """Give each stream so much more room, or less, and send what it has room for."""
        for number, stream in list(self._streams.items()):
            stream.window += more
            if stream.window > frames.LARGEST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the window is too large")
            if stream.pending and self._sender.send_part(number, stream):
                self._forget(number)

    def _on_promise(self, number: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - of each kind
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a client promises nothing")

    def _on_ping(self, number: int, flags: int, payload: bytes) -> None:
        if not flags & frames.ACK:
            self._out.append(frames.frame(frames.PING, frames.ACK, number, payload))
        elif payload == _MARK and self._retiring:
            self._final = self._last
            self._out.append(frames.goaway(self._final, Code.NO_ERROR))
            self._may_close = True

    def _on_goaway(self, number: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - of each kind
        self._may_close = True

    def _on_window(self, number: int, flags: int, payload: bytes) -> None:  # noqa: ARG002 - of each kind
        increment = int.from_bytes(payload, "big") & frames.LARGEST_WINDOW
        if number == 0:
            self._sender.window += increment
            if not increment:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "the increment is 0")
            if self._sender.window > frames.LARGEST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the window is too large")
            for done in self._sender.send_waiting():
                self._forget(done)
            return
        if number > self._last:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "there is no such stream")
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.window += increment
        if not increment or stream.window > frames.LARGEST_WINDOW:
            self._reset(number, Code.FLOW_CONTROL_ERROR if increment else Code.PROTOCOL_ERROR)
        elif stream.pending and self._sender.send_part(number, stream):
            self._forget(number)

    def _ended(self, number: int, stream: Stream) -> None:
        """Answer a request that is whole."""
        stream.ended = True
        call, body, stream.body = stream.call, bytes(stream.body), b""
        if call.length is not None and call.length != len(body):
            self._reset(number, Code.PROTOCOL_ERROR)
            return
        refusal = refusal_of(body) if call.refusal is None else call.refusal
        if refusal is not None:
            self._refuse(number, stream, refusal)
            return
        try:
            found = self._method.answer(body[PREFIX_BYTES:], call.timeout)
        except ValueError:
            self._refuse(number, stream, calls.NO_CHECK)
            return
        except Exception as defect:  # noqa: BLE001 - whatever it is, the other calls are answered
            self._defect(number, stream, defect)
            return
        if isinstance(found, bytes):
            self._answer(number, stream, found)
        else:
            stream.task = self._loop.create_task(found)
            stream.task.add_done_callback(partial(self._answered, number, stream))

    def _answered(self, number: int, stream: Stream, task: asyncio.Task[bytes]) -> None:
        """Send an answer that has been waited for."""
        defect = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._streams.get(number) is not stream:
            return  # It was we who cancelled it.
        stream.task = None
        if defect is None:
            self._answer(number, stream, task.result())
        else:
            self._defect(number, stream, defect)
        self._sender.later()

    def _defect(self, number: int, stream: Stream, defect: BaseException) -> None:
        _log.error("check failed", exc_info=defect)
        self._refuse(number, stream, calls.DEFECT)

    def _answer(self, number: int, stream: Stream, message: bytes) -> None:
        if self._sender.answer(number, stream, message):
            self._forget(number)

    def _refuse(self, number: int, stream: Stream, refusal: Refusal) -> None:
        if self._sender.refuse(number, stream, refusal):
            self._forget(number)

    def _reset(self, number: int, code: Code) -> None:
        self._cut.append(number)
        self._out.append(frames.rst_stream(number, code))
        self._forget(number)

    def _forget(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        if stream.pending:
            self._sender.forget(number)
        if stream.task is not None:
            stream.task.cancel()
        self._release(stream.received)

    def _release(self, size: int) -> None:
        """Let the peer send as much more as is held no longer, once that is worth a frame."""
        self._held -= size
        self._credit += size
        if self._credit > _CONNECTION_WINDOW // 4:
            self._out.append(frames.window_update(0, self._credit))
            self._credit = 0

    _HANDLERS: ClassVar = (
        _on_data,
        _on_headers,
        _on_priority,
        _on_reset,
        _on_settings,
        _on_promise,
        _on_ping,
        _on_goaway,
        _on_window,
        _on_continuation,
    )
    """By kind of frame."""
