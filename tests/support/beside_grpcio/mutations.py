"""`MUTATIONS`: ways to break one rule of HTTP/2, by name.

Each says what it has to say, and returns the stream it is about; 0 for the connection.
"""

from collections.abc import Callable
from typing import Final

import hpack

from authz.doors.envoy.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Code,
    Setting,
    frame,
    rst_stream,
    window_update,
)
from support.beside_grpcio.speaker import Fields, Plan, Speaker, request
from support.peers.check_door_peer import message

Mutation = Callable[[Speaker], int]
FLIPPED: Final = "a flipped bit"
KEPT: Final = frozenset({"", "padding", "flags that a ping does not have"})
"""What breaks no rule. It is here because grpcio refuses it."""
BODY: Final = message(b"mutated")


def _call(fields: Fields) -> Mutation:
    """Return a mutation: a call with wrong headers."""

    def say(speaker: Speaker) -> int:
        stream = speaker.begin(Plan(fields, BODY))
        speaker.finish(stream)
        return stream

    return say


def _trailers(fields: Fields) -> Mutation:
    """Return a mutation: a call with wrong trailers."""

    def say(speaker: Speaker) -> int:
        stream = speaker.begin(Plan(request(), BODY, fields))
        speaker.finish(stream)
        return stream

    return say


def _about(make: Callable[[int], bytes]) -> Mutation:
    """Return a mutation: a wrong frame of a call under way, which then goes on."""

    def say(speaker: Speaker) -> int:
        stream = speaker.begin(Plan(request(), BODY))
        speaker.say("mutation", make(stream))
        speaker.finish(stream)
        return stream

    return say


def _after(make: Callable[[int], bytes]) -> Mutation:
    """Return a mutation: a frame of a call after its end."""

    def say(speaker: Speaker) -> int:
        speaker.last += 2
        stream = speaker.begin(Plan(request(), BODY))
        speaker.finish(stream)
        speaker.say("mutation", make(stream))
        return 0

    return say


def _frame(make: Callable[[int], bytes]) -> Mutation:
    """Return a mutation: a wrong frame. It is told a stream that has not begun."""

    def say(speaker: Speaker) -> int:
        speaker.last += 4
        speaker.say("mutation", make(speaker.last - 2))
        return 0

    return say


def _block(fields: Fields) -> bytes:
    """Compress headers so that no table changes: the speaker has its own."""
    return bytes(hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in fields]))


def _raw(*parts: bytes) -> bytes:
    return b"".join(parts)


def _setting(key: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, key.to_bytes(2, "big") + value.to_bytes(4, "big"))


def _preface(speaker: Speaker) -> int:
    speaker.said.frames[0] = speaker.chance.choice(
        [
            b"GET / HTTP/1.1\r\nhost: authz\r\n\r\n",
            PREFACE.replace(b"2.0", b"2.1"),
            b"",
            PREFACE[:-2],
        ]
    )
    return 0


def _no_settings(speaker: Speaker) -> int:
    speaker.said.frames[1] = frame(PING, 0, 0, bytes(8))
    return 0


def _nothing(_: Speaker) -> int:
    return 0


def _pad(speaker: Speaker) -> int:
    speaker.pads = True
    speaker.finish(speaker.begin(Plan(request(), BODY)))
    return 0


def _sized_twice(stream: int) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, _block([("a", "b")]) + b"\x20")


_PLAIN: Final = _block(request())
_LAST: Final = END_HEADERS | END_STREAM
MUTATIONS: Final[dict[str, Mutation]] = {
    "no :method": _call(request(_method=None)),
    "no :scheme": _call(request(_scheme=None)),
    "no :path": _call(request(_path=None)),
    "empty :path": _call(request(_path="")),
    "two :path": _call([(":path", "/service/Check"), *request()]),
    "two :method": _call([(":method", "POST"), *request()]),
    "unknown pseudo header": _call([(":x", "y"), *request()]),
    ":status of a request": _call([(":status", "200"), *request()]),
    "pseudo header after others": _call([("x", "y"), *request()]),
    "capitals in a name": _call([*request(), ("X-Y", "z")]),
    "space in a name": _call([*request(), ("x y", "z")]),
    "empty name": _call([*request(), ("", "z")]),
    "line feed in a value": _call([*request(), ("x", "y\nz")]),
    "NUL in a value": _call([*request(), ("x", "y\0z")]),
    "space around a value": _call([*request(), ("x", " y ")]),
    "header of the connection": _call([*request(), ("connection", "close")]),
    "transfer-encoding": _call([*request(), ("transfer-encoding", "chunked")]),
    "another te": _call(request(te="gzip")),
    "longer content-length": _call([*request(), ("content-length", str(len(BODY) + 1))]),
    "shorter content-length": _call([*request(), ("content-length", "1")]),
    "content-length that is no number": _call([*request(), ("content-length", "x")]),
    "pseudo header in trailers": _trailers([("x", "y"), (":path", "/service/Check")]),
    "capitals in trailers": _trailers([("X", "y")]),
    "trailers that do not end": _about(
        lambda s: frame(HEADERS, END_HEADERS, s, _block([("x", "y")]))
    ),
    "increment of 0 on a stream": _about(lambda s: window_update(s, 0)),
    "window of a stream beyond the largest": _about(lambda s: window_update(s, LARGEST_WINDOW) * 2),
    "padding as long as the data": _about(lambda s: frame(DATA, PADDED, s, b"\4abc")),
    "padding without a length": _about(lambda s: frame(DATA, PADDED, s)),
    "data after the end": _after(lambda s: frame(DATA, 0, s, b"x")),
    "headers after the end": _after(lambda s: frame(HEADERS, _LAST, s, _PLAIN)),
    "headers of an earlier stream": _after(lambda s: frame(HEADERS, _LAST, s - 2, _PLAIN)),
    "reset of wrong size": _after(lambda s: frame(RST_STREAM, 0, s, bytes(3))),
    "data without a stream": _frame(lambda _: frame(DATA, 0, 0, b"x")),
    "data before headers": _frame(lambda s: frame(DATA, 0, s, b"x")),
    "headers without a stream": _frame(lambda _: frame(HEADERS, _LAST, 0, _PLAIN)),
    "headers of a server's stream": _frame(lambda s: frame(HEADERS, _LAST, s + 1, _PLAIN)),
    "headers padded to nothing": _frame(lambda s: frame(HEADERS, _LAST | PADDED, s, b"\xff")),
    "headers within a priority": _frame(lambda s: frame(HEADERS, _LAST | WITH_PRIORITY, s, b"\0")),
    "headers that depend on themselves": _frame(
        lambda s: frame(HEADERS, _LAST | WITH_PRIORITY, s, s.to_bytes(4, "big") + b"\0" + _PLAIN)
    ),
    "headers that are no block": _frame(lambda s: frame(HEADERS, _LAST, s, b"\xff" * 5)),
    "index beyond the table": _frame(lambda s: frame(HEADERS, _LAST, s, _PLAIN + b"\xff\x7f")),
    "index 0": _frame(lambda s: frame(HEADERS, _LAST, s, _PLAIN + b"\x80")),
    "table beyond the largest": _frame(
        lambda s: frame(HEADERS, _LAST, s, b"\x3f\xe2\x1f" + _PLAIN)
    ),
    "size of the table after headers": _frame(_sized_twice),
    "half a block": _frame(lambda s: frame(HEADERS, _LAST, s, _PLAIN[:-3])),
    "wrong Huffman code": _frame(
        lambda s: frame(HEADERS, _LAST, s, _PLAIN + b"\x00\x84\xff\xff\xff\xff\x01x")
    ),
    "headers beyond the largest": _frame(
        lambda s: _raw(
            frame(HEADERS, 0, s, _PLAIN),
            frame(CONTINUATION, 0, s, b"\0\1x\1y" * 2500),
            frame(CONTINUATION, END_HEADERS, s),
        )
    ),
    "another frame within headers": _frame(
        lambda s: frame(HEADERS, 0, s, _PLAIN) + frame(PING, 0, 0, bytes(8))
    ),
    "unknown kind within headers": _frame(lambda s: frame(HEADERS, 0, s, _PLAIN) + frame(77, 0, s)),
    "continuation of another stream": _frame(
        lambda s: frame(HEADERS, 0, s, _PLAIN) + frame(CONTINUATION, END_HEADERS, s + 2)
    ),
    "continuation of nothing": _frame(lambda s: frame(CONTINUATION, END_HEADERS, s, _PLAIN)),
    "reset of a stream that has not begun": _frame(lambda s: rst_stream(s, Code.CANCEL)),
    "reset without a stream": _frame(lambda _: rst_stream(0, Code.CANCEL)),
    "window of a stream that has not begun": _frame(lambda s: window_update(s, 1)),
    "window of wrong size": _frame(lambda _: frame(WINDOW_UPDATE, 0, 0, bytes(5))),
    "increment of 0": _frame(lambda _: window_update(0, 0)),
    "window beyond the largest": _frame(lambda _: window_update(0, LARGEST_WINDOW) * 2),
    "priority of wrong size": _frame(lambda s: frame(PRIORITY, 0, s, bytes(4))),
    "priority on itself": _frame(lambda s: frame(PRIORITY, 0, s, s.to_bytes(4, "big") + b"\0")),
    "settings of wrong size": _frame(lambda _: frame(SETTINGS, 0, 0, bytes(5))),
    "settings of a stream": _frame(lambda s: frame(SETTINGS, 0, s)),
    "acknowledgement with settings": _frame(lambda _: frame(SETTINGS, ACK, 0, bytes(6))),
    "push of 2": _frame(lambda _: _setting(Setting.ENABLE_PUSH, 2)),
    "first window beyond the largest": _frame(
        lambda _: _setting(Setting.INITIAL_WINDOW_SIZE, LARGEST_WINDOW + 1)
    ),
    "frames below the least": _frame(lambda _: _setting(Setting.MAX_FRAME_SIZE, LARGEST_FRAME - 1)),
    "ping of wrong size": _frame(lambda _: frame(PING, 0, 0, bytes(7))),
    "ping of a stream": _frame(lambda s: frame(PING, 0, s, bytes(8))),
    "goaway of a stream": _frame(lambda s: frame(GOAWAY, 0, s, bytes(8))),
    "short goaway": _frame(lambda _: frame(GOAWAY, 0, 0, bytes(7))),
    "promise": _frame(lambda s: frame(PUSH_PROMISE, END_HEADERS, s, bytes(4) + _PLAIN)),
    "frame beyond the largest": _about(lambda s: frame(DATA, 0, s, bytes(LARGEST_FRAME + 1))),
    "another preface": _preface,
    "no settings first": _no_settings,
    FLIPPED: _nothing,
    "padding": _pad,
    "flags that a ping does not have": _frame(lambda _: frame(PING, 0xFE, 0, bytes(8))),
}
