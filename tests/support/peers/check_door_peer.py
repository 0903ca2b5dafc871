"""`Peer`: the other side of a connection to the Check door, without a socket, and the frames it sends."""

import asyncio
from typing import Any, ClassVar, Final

import hpack

from authz.doors.envoy.http2.connection import Connection
from authz.doors.envoy.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    Code,
    frame,
    settings,
)

CHECK: Final = "/service/Check"
REQUEST: Final = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", CHECK),
    (":authority", "authz"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)
LAST: Final = END_HEADERS | END_STREAM
GREETING: Final = PREFACE + settings({})


def block(*headers: tuple[str, str]) -> bytes:
    """Compress headers without a table."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode(list(headers)))


def headers(stream: int, *fields: tuple[str, str], flags: int = END_HEADERS) -> bytes:
    """Return a frame of request headers."""
    return frame(HEADERS, flags, stream, block(*(fields or REQUEST)))


def message(content: bytes) -> bytes:
    """Return a body with one gRPC message."""
    return b"\0" + len(content).to_bytes(4, "big") + content


def call(stream: int, content: bytes = b"hello") -> bytes:
    """Return a whole call."""
    return headers(stream) + frame(DATA, END_STREAM, stream, message(content))


class Wire:
    """A transport without a socket: what was written, and whether it was closed."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.reading = True
        self.protocol: Connection | None = None

    def write(self, data: bytes) -> None:
        """Remember."""
        assert not self.closed
        self.written += data

    def close(self) -> None:
        """Remember."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    abort = close

    def pause_reading(self) -> None:
        """Remember."""
        self.reading = False

    def resume_reading(self) -> None:
        """Remember."""
        self.reading = True


class Echo:
    """Answers with what it is asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.let = asyncio.Event()

    def answer(self, content: bytes, timeout: float | None) -> Any:
        """At once; `wait` later."""
        self.asked.append(content)
        return self._later(content) if content.startswith(b"wait") else content

    async def _later(self, content: bytes) -> bytes:
        await self.let.wait()
        return content


class Peer:
    """A connection, from the side of its peer."""

    made: ClassVar[list["Peer"]] = []
    """Those of the test, for `end_all`."""

    def __init__(self, *, greets: bool = True, max_age: float = 1e6, grace: float = 1e6) -> None:
        self.made.append(self)
        self.echo, self.wire = Echo(), Wire()
        self.connection = Connection(CHECK, self.echo, max_age=max_age, grace=grace)
        transport: Any = self.wire
        self.connection.connection_made(transport)
        self._decoder = hpack.Decoder()
        self.heard: list[tuple[int, int, int, bytes]] = []
        if greets:
            self.send(GREETING)
            self.heard.clear()

    def send(self, *parts: bytes) -> list[tuple[int, int, int, bytes]]:
        """Send bytes, all at once unless in parts; return the frames that are answered."""
        before = len(self.heard)
        for part in parts:
            self.connection.data_received(part)
        self.read()
        return self.heard[before:]

    def read(self) -> None:
        """Take apart what was written."""
        data, self.wire.written = self.wire.written, b""
        while data:
            length, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
            stream = int.from_bytes(data[5:9], "big")
            self.heard.append((kind, flags, stream, data[9 : 9 + length]))
            data = data[9 + length :]

    def end(self) -> Code | None:
        """Return the error that the connection ended with; None if it goes on."""
        codes = [
            Code(int.from_bytes(what[4:8], "big"))
            for kind, _, _, what in self.heard
            if kind == GOAWAY
        ]
        assert self.wire.closed or not any(codes)
        return codes[-1] if codes else None

    def resets(self) -> dict[int, Code]:
        """Return the errors that streams ended with."""
        return {
            stream: Code(int.from_bytes(what, "big"))
            for kind, _, stream, what in self.heard
            if kind == RST_STREAM
        }

    def answers(self) -> dict[int, tuple[dict[str, str], bytes]]:
        """Return answers that are whole: headers with trailers, and the body."""
        found: dict[int, tuple[dict[str, str], bytes]] = {}
        whole = set()
        for kind, flags, stream, what in self.heard:
            fields, body = found.get(stream, ({}, b""))
            if kind == HEADERS:
                fields |= {str(name): str(value) for name, value in self._decoder.decode(what)}
            elif kind == DATA:
                body += what
            else:
                continue
            found[stream] = fields, body
            if flags & END_STREAM:
                whole.add(stream)
        return {stream: found[stream] for stream in whole}

    def is_well(self, stream: int = 2**31 - 1) -> bool:
        """Whether a further call is answered."""
        self.send(call(stream, b"well?"))
        return self.end() is None and self.answers()[stream][1] == message(b"well?")


async def end_all() -> None:
    """End every connection of the test, and what waits on it."""
    tasks = [
        stream.task
        for peer in Peer.made
        for stream in peer.connection._session._streams.values()
        if stream.task is not None
    ]
    while Peer.made:
        Peer.made.pop().connection.connection_lost(None)
    await asyncio.gather(*tasks, return_exceptions=True)
