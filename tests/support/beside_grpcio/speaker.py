"""`Speaker`: the client's side of one connection, as frames. It keeps to RFC 9113 in all it says.

Rules are broken in `mutations`. A client has 65,535 bytes of room on a connection that it opens; no
speaker sends more, so that it need not hear the server to keep to flow control.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import hpack

from authz.doors.envoy.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    SETTINGS,
    WITH_PRIORITY,
    Code,
    Setting,
    frame,
    goaway,
    rst_stream,
    settings,
    window_update,
)
from support.peers.check_door_peer import REQUEST, message

Fields = list[tuple[str, str]]
LARGEST_PART: Final = 9_000
AMPLE: Final = 1_000_000
_RESERVE: Final = 2_000
"""Bytes of room that are left for what is short."""


def request(**changed: str | None) -> Fields:
    """Return headers of a call, with some changed, or left out (None). Colons and dashes are underscores."""
    names = {name: name.replace(":", "_").replace("-", "_") for name, _ in REQUEST}
    return [
        (name, str(changed.get(names[name], value)))
        for name, value in REQUEST
        if changed.get(names[name], value) is not None
    ]


@dataclass
class Asked:
    """A call of the conversation.

    Attributes:
        kind: What is special about it.
        whole: Whether its end was sent.
        cancelled: Whether the client gave it up.
        body: What an echo of it is.
    """

    kind: str = "ordinary"
    body: bytes = b""
    whole: bool = False
    cancelled: bool = False


@dataclass
class Plan:
    """A call before it is sent.

    Attributes:
        fields: Its headers.
        body: Its body.
        trailers: What follows the body; None if the body ends the stream.
        kind: What is special about it.
    """

    fields: Fields
    body: bytes
    trailers: Fields | None = None
    kind: str = "ordinary"


@dataclass
class Conversation:
    """What one client sends on one connection.

    Attributes:
        frames: The preface, and the frames.
        steps: Names of what they do.
        streams: The calls, by stream.
        mutation: The rule that was broken; empty if none was.
        victim: The stream on which it was broken; 0 for the connection.
        cuts: Places at which the bytes are cut.
    """

    frames: list[bytes] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    streams: dict[int, Asked] = field(default_factory=dict)
    mutation: str = ""
    victim: int = 0
    cuts: list[int] = field(default_factory=list)

    def portions(self) -> list[bytes]:
        """Return the bytes, cut."""
        data = b"".join(self.frames)
        places = [0, *self.cuts, len(data)]
        return [data[at:end] for at, end in pairwise(places) if at < end]


class Speaker:
    """Says what a client may say.

    Args:
        chance: What it says.

    Attributes:
        last: The latest stream; -1 before the first.
        under_way: Calls that have begun and not ended, with what is left to be said of them.
        pads: Whether frames are padded at times.
        room: Bytes of bodies that may still be sent.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.pads = False
        self.said = Conversation()
        self.last = -1
        self.under_way: dict[int, list[Callable[[], None]]] = {}
        self.room = DEFAULT_WINDOW
        self._encoder = hpack.Encoder()
        # Our door asks for no table. A client may keep one until it has read that, and so never says so here.
        self._has_table = chance.random() < 0.5
        if not self._has_table:
            self._encoder.header_table_size = 0

    def say(self, step: str, data: bytes) -> None:
        """Add a frame."""
        self.said.frames.append(data)
        self.said.steps.append(step)

    def greet(self) -> None:
        """Begin."""
        self.said.frames.append(PREFACE)
        self.say("settings", settings(self.chance.choice([{}, {Setting.ENABLE_PUSH: 0}])))
        if not self._has_table:
            self.say("acknowledge", frame(SETTINGS, ACK, 0))

    def block(self, fields: Fields, *, into_table: bool = True) -> bytes:
        """Compress headers. What was compressed has to be sent, and in this order."""
        chance = self.chance
        if self._has_table and chance.random() < 0.05:
            self._encoder.header_table_size = chance.choice([0, 64, 200, 4096])
        plain = [
            hpack.NeverIndexedHeaderTuple(*pair)
            if not into_table or chance.random() < 0.2
            else pair
            for pair in fields
        ]
        return bytes(self._encoder.encode(plain, huffman=chance.random() < 0.7))

    def headers(self, stream: int, fields: Fields, flags: int = 0) -> None:
        """Say headers: padded, with a priority, in several frames, or plainly."""
        chance = self.chance
        # A field that C-core cannot read would spoil later calls that name it by its place in the table.
        is_odd = self.said.streams[stream].kind != "ordinary" or bool(self.said.mutation)
        payload = self.block(fields, into_table=not is_odd)
        if chance.random() < 0.15:
            dependency = chance.choice([0, stream + 2, stream + 1]) | chance.choice([0, 1 << 31])
            payload = dependency.to_bytes(4, "big") + bytes([chance.randrange(256)]) + payload
            flags |= WITH_PRIORITY
        parts = [payload]
        if chance.random() < 0.15:
            ends = sorted(
                chance.randrange(min(6, len(payload)), len(payload) + 1)
                for _ in range(chance.randrange(1, 4))
            )
            parts = [payload[at:end] for at, end in zip([0, *ends], [*ends, None], strict=True)]
        first = parts[0]
        if self.pads and chance.random() < 0.3:
            first, flags = self._padded(first), flags | PADDED
        step = (
            "headers" if stream not in self.said.streams or flags & END_STREAM == 0 else "trailers"
        )
        step += " padded" * bool(flags & PADDED) + " with priority" * bool(flags & WITH_PRIORITY)
        self.say(step, frame(HEADERS, flags | END_HEADERS * (len(parts) == 1), stream, first))
        for number, part in enumerate(parts[1:], 2):
            self.say(
                "continuation",
                frame(CONTINUATION, END_HEADERS * (number == len(parts)), stream, part),
            )

    def data(self, stream: int, content: bytes, flags: int = 0) -> None:
        """Say a part of a body, padded or not."""
        if self.pads and self.room > 300 and self.chance.random() < 0.3:
            before = len(content)
            content, flags = self._padded(content), flags | PADDED
            self.room -= len(content) - before
        step = "data" + " padded" * bool(flags & PADDED) + " empty" * (not content)
        self.say(step, frame(DATA, flags, stream, content))

    def _padded(self, content: bytes) -> bytes:
        size = self.chance.choice([0, 1, 7, 255])
        return bytes([size]) + content + bytes(size)

    def begin(self, plan: Plan) -> int:
        """Plan a call and say its headers; return its stream."""
        chance = self.chance
        self.last = stream = self.last + chance.choice([2, 2, 2, 4, 20])
        body, fields = plan.body, plan.fields
        if len(body) > self.room - _RESERVE:
            # A message for which there is no room is an empty one.
            body = message(b"")
            fields = [pair for pair in fields if pair[0] != "content-length"]
        asked = self.said.streams[stream] = Asked(plan.kind, body)
        size = chance.choice([1, 4, 5, 6, 100, 1000, LARGEST_PART, LARGEST_PART])
        size = min(max(size, len(body) // 6 + 1), LARGEST_PART)
        parts = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
        if chance.random() < 0.1:
            parts.insert(chance.randrange(len(parts) + 1), b"")
        rest: list[Callable[[], None]] = []
        self.room -= len(body)
        without_body = not body and chance.random() < 0.5 and plan.trailers is None
        if not without_body:
            for number, part in enumerate(parts, 1):
                ends = plan.trailers is None and number == len(parts)
                rest.append(lambda p=part, f=END_STREAM * ends: self.data(stream, p, f))  # type: ignore[misc]
            if plan.trailers is not None:
                trailers = plan.trailers
                rest.append(lambda: self.headers(stream, trailers, END_STREAM))
        self.headers(stream, fields, END_STREAM * without_body)
        if rest:
            self.under_way[stream] = rest
        else:
            asked.whole = True
        return stream

    def go_on(self, stream: int) -> None:
        """Say the next part of a call."""
        parts = self.under_way[stream]
        parts.pop(0)()
        if not parts:
            del self.under_way[stream]
            self.said.streams[stream].whole = True

    def finish(self, stream: int) -> None:
        """Say all of a call that is left."""
        while stream in self.under_way:
            self.go_on(stream)

    def give_up(self, stream: int) -> None:
        """Cancel a call, or say so after its end."""
        self.under_way.pop(stream, None)
        self.said.streams[stream].cancelled = True
        self.say("reset", rst_stream(stream, self.chance.choice([Code.CANCEL, Code.NO_ERROR])))

    def known(self) -> int:
        """Return the stream of a call that was begun."""
        return self.chance.choice(list(self.said.streams))

    def change_settings(self) -> None:
        """Say settings that a client may have."""
        chance = self.chance
        values: dict[int, int] = {}
        for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
            match chance.randrange(8):
                case 0 | 1 | 2:
                    size = chance.choice([0, 0, 1, 5, 100, 5000, DEFAULT_WINDOW, AMPLE])
                    values[Setting.INITIAL_WINDOW_SIZE] = size
                case 3 | 4:
                    values[Setting.HEADER_TABLE_SIZE] = chance.choice([0, 1, 64, 4096, 65_536])
                case 5:
                    values[Setting.MAX_FRAME_SIZE] = chance.choice([16_384, 20_000, 2**24 - 1])
                case 6:
                    values[Setting.MAX_CONCURRENT_STREAMS] = chance.choice([0, 1, 100])
                case _:
                    values[chance.choice([7, 9, 0x7A7A])] = chance.randrange(2**32)
        pairs = (key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items())
        self.say("change settings", frame(SETTINGS, 0, 0, b"".join(pairs)))

    def remark(self) -> None:
        """Say something that is about no call."""
        chance = self.chance
        stream = chance.choice([1, self.last + 2, max(self.last, 1)])
        match chance.randrange(6):
            case 0 | 1:
                self.say("ping", frame(PING, 0, 0, chance.randbytes(8)))
            case 2:
                self.say("ping answer", frame(PING, ACK, 0, chance.randbytes(8)))
            case 3 | 4:
                content = chance.randbytes(chance.randrange(50))
                kind, flags = chance.randrange(10, 256), chance.randrange(256)
                self.say("unknown kind", frame(kind, flags, chance.choice([0, stream]), content))
            case _:
                priority = (stream + 2).to_bytes(4, "big") + b"\x10"
                self.say("priority", frame(PRIORITY, 0, stream, priority))

    def end(self, plan: Plan) -> None:
        """End: room for every answer, and a last call, which tells whether the connection goes on."""
        chance = self.chance
        for stream in list(self.under_way):
            match chance.randrange(4):
                case 0:
                    self.give_up(stream)
                case 1:
                    pass
                case _:
                    self.finish(stream)
        self.say("change settings", settings({Setting.INITIAL_WINDOW_SIZE: AMPLE}))
        self.say("window", window_update(0, AMPLE))
        self.finish(self.begin(plan))
        if chance.random() < 0.1:
            self.say("goaway", goaway(0, Code.NO_ERROR))

    def widen(self) -> None:
        """Say that there is more room."""
        stream = self.known() if self.said.streams and self.chance.random() < 0.6 else 0
        self.say("window", window_update(stream, self.chance.choice([1, 7, 100, 1000, 70_000])))


def last_call(chance: random.Random) -> Plan:
    """Return the call that tells whether a connection goes on."""
    return Plan(request(), message(b"last %d" % chance.randrange(10**6)), kind="last")
