"""The Check door and frames that no client sends: each rule of RFC 9113, and what breaking it leads to."""

from collections.abc import AsyncIterator
from typing import Final

import hpack
import pytest

from authz.doors.envoy.http2 import calls
from authz.doors.envoy.http2 import connection as door
from authz.doors.envoy.http2.calls import LARGEST_HEADERS, LARGEST_MESSAGE
from authz.doors.envoy.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LARGEST_FRAME,
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
    goaway,
    rst_stream,
    settings,
    settings_of,
    window_update,
)
from authz.doors.envoy.http2.session import MOST_STREAMS
from support.peers.check_door_peer import (
    GREETING,
    LAST,
    REQUEST,
    Peer,
    block,
    call,
    end_all,
    headers,
    message,
)
from support.programs.stack import until


@pytest.fixture(autouse=True)
async def ended() -> AsyncIterator[None]:
    """Each connection ends with its test."""
    yield
    await end_all()


async def test_the_first_frames_say_what_is_taken() -> None:
    """No table of headers, so many streams, and room for whole messages."""
    peer = Peer(greets=False)
    opening, window = peer.send(GREETING)[:2]

    assert SETTINGS == opening[0]
    announced = settings_of(opening[3])
    assert (0, MOST_STREAMS) == (
        announced[Setting.HEADER_TABLE_SIZE],
        announced[Setting.MAX_CONCURRENT_STREAMS],
    )
    assert announced[Setting.INITIAL_WINDOW_SIZE] > LARGEST_MESSAGE
    assert (WINDOW_UPDATE, 0) == (window[0], window[2])
    assert peer.is_well()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 9, 10, 1000])
async def test_bytes_may_come_in_any_portions(size: int) -> None:
    """Preface, heads of frames and payloads alike."""
    peer = Peer(greets=False)
    data = GREETING + b"".join(call(stream, b"x" * stream) for stream in range(1, 40, 2))
    peer.send(*(data[at : at + size] for at in range(0, len(data), size)))

    assert {stream: message(b"x" * stream) for stream in range(1, 40, 2)} == {
        stream: body for stream, (_, body) in peer.answers().items()
    }


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HTTP/1.1\r\nhost: authz\r\n\r\n", Code.PROTOCOL_ERROR),
        (PREFACE + call(1), Code.PROTOCOL_ERROR),
        (PREFACE + frame(PING, 0, 0, bytes(8)), Code.PROTOCOL_ERROR),
    ],
    ids=["HTTP/1.1", "headers first", "a ping first"],
)
async def test_a_connection_begins_as_the_rfc_says(sent: bytes, code: Code) -> None:
    """Section 3.4."""
    peer = Peer(greets=False)
    peer.send(sent)

    assert code == peer.end()


CONNECTION_ERRORS: Final = {
    "a frame beyond the largest": (
        frame(DATA, 0, 1, bytes(LARGEST_FRAME + 1)),
        Code.FRAME_SIZE_ERROR,
    ),
    "data without a stream": (frame(DATA, 0, 0, b"x"), Code.PROTOCOL_ERROR),
    "data before headers": (frame(DATA, 0, 1, b"x"), Code.PROTOCOL_ERROR),
    "padding as long as the data": (
        headers(1) + frame(DATA, PADDED, 1, b"\4abc"),
        Code.PROTOCOL_ERROR,
    ),
    "padding without a length": (headers(1) + frame(DATA, PADDED, 1), Code.PROTOCOL_ERROR),
    "headers without a stream": (headers(0), Code.PROTOCOL_ERROR),
    "headers of a server's stream": (headers(2), Code.PROTOCOL_ERROR),
    "headers of an earlier stream": (call(5) + call(3), Code.STREAM_CLOSED),
    "headers after the end": (call(1) + headers(1), Code.STREAM_CLOSED),
    "headers padded to nothing": (frame(HEADERS, LAST | PADDED, 1, b"\xff"), Code.PROTOCOL_ERROR),
    "headers within a priority": (
        frame(HEADERS, LAST | WITH_PRIORITY, 1, b"\0"),
        Code.FRAME_SIZE_ERROR,
    ),
    "headers that depend on themselves": (
        frame(HEADERS, LAST | WITH_PRIORITY, 1, b"\0\0\0\1\0" + block(*REQUEST)),
        Code.PROTOCOL_ERROR,
    ),
    "headers that are no block": (
        frame(HEADERS, LAST, 1, b"\xff\xff\xff\xff\xff"),
        Code.COMPRESSION_ERROR,
    ),
    "an index beyond the table": (frame(HEADERS, LAST, 1, b"\xc6"), Code.COMPRESSION_ERROR),
    "another frame within headers": (
        headers(1, flags=0) + frame(PING, 0, 0, bytes(8)),
        Code.PROTOCOL_ERROR,
    ),
    "the rest of another stream's headers": (
        headers(1, flags=0) + frame(CONTINUATION, END_HEADERS, 3),
        Code.PROTOCOL_ERROR,
    ),
    "a rest without headers": (frame(CONTINUATION, END_HEADERS, 1), Code.PROTOCOL_ERROR),
    "headers without an end": (
        headers(1, flags=0) + frame(CONTINUATION, 0, 1) * 100,
        Code.ENHANCE_YOUR_CALM,
    ),
    "headers that are too large": (
        frame(HEADERS, 0, 1, bytes(LARGEST_FRAME))
        + frame(CONTINUATION, 0, 1, bytes(LARGEST_FRAME)) * 4,
        Code.ENHANCE_YOUR_CALM,
    ),
    "headers that grow too large": (
        headers(1, ("x", "y" * LARGEST_HEADERS)),
        Code.FRAME_SIZE_ERROR,
    ),
    "a priority without a stream": (frame(PRIORITY, 0, 0, bytes(5)), Code.PROTOCOL_ERROR),
    "a priority of a wrong size": (frame(PRIORITY, 0, 1, bytes(4)), Code.FRAME_SIZE_ERROR),
    "a priority on itself": (frame(PRIORITY, 0, 1, b"\0\0\0\1\0"), Code.PROTOCOL_ERROR),
    "a reset without a stream": (rst_stream(0, Code.CANCEL), Code.PROTOCOL_ERROR),
    "a reset before headers": (rst_stream(1, Code.CANCEL), Code.PROTOCOL_ERROR),
    "a reset of a wrong size": (
        headers(1) + frame(RST_STREAM, 0, 1, bytes(3)),
        Code.FRAME_SIZE_ERROR,
    ),
    "settings of a stream": (frame(SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
    "settings of a wrong size": (frame(SETTINGS, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
    "settings agreed to with settings": (frame(SETTINGS, ACK, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
    "a push that is neither": (settings({Setting.ENABLE_PUSH: 2}), Code.PROTOCOL_ERROR),
    "a window that is too large": (
        settings({Setting.INITIAL_WINDOW_SIZE: 2**31}),
        Code.FLOW_CONTROL_ERROR,
    ),
    "frames that are too small": (settings({Setting.MAX_FRAME_SIZE: 16_383}), Code.PROTOCOL_ERROR),
    "frames that are too large": (settings({Setting.MAX_FRAME_SIZE: 2**24}), Code.PROTOCOL_ERROR),
    "a promise": (frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), Code.PROTOCOL_ERROR),
    "a ping of a stream": (frame(PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "a ping of a wrong size": (frame(PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "an end of a stream": (frame(GOAWAY, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "an end of a wrong size": (frame(GOAWAY, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "no more room": (window_update(0, 0), Code.PROTOCOL_ERROR),
    "too much room": (window_update(0, 2**31 - 1), Code.FLOW_CONTROL_ERROR),
    "room before headers": (window_update(1, 1), Code.PROTOCOL_ERROR),
    "room of a wrong size": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), Code.FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
async def test_what_ends_the_connection(name: str) -> None:
    """The peer is told which rule, and nothing after it is answered."""
    sent, code = CONNECTION_ERRORS[name]
    peer = Peer()
    peer.send(sent + call(101))

    assert code == peer.end()
    assert 101 not in peer.answers()


STREAM_ERRORS: Final = {
    "data after the end": (call(1) + frame(DATA, 0, 1, b"x"), Code.STREAM_CLOSED),
    "no room of a stream": (headers(1) + window_update(1, 0), Code.PROTOCOL_ERROR),
    "too much room of a stream": (
        headers(1) + window_update(1, 2**31 - 1),
        Code.FLOW_CONTROL_ERROR,
    ),
    "headers in the middle": (headers(1) + headers(1, ("x", "y")), Code.PROTOCOL_ERROR),
    "trailers with a path": (
        headers(1) + headers(1, (":path", "/"), flags=LAST),
        Code.PROTOCOL_ERROR,
    ),
    "a name in capitals": (headers(1, *REQUEST, ("Te", "trailers")), Code.PROTOCOL_ERROR),
    "a line within a value": (headers(1, *REQUEST, ("x", "a\r\nb")), Code.PROTOCOL_ERROR),
    "a field of the connection": (
        headers(1, *REQUEST, ("connection", "close")),
        Code.PROTOCOL_ERROR,
    ),
    "another te": (headers(1, *REQUEST, ("te", "gzip")), Code.PROTOCOL_ERROR),
    "two paths": (headers(1, *REQUEST[:4], (":path", "/")), Code.PROTOCOL_ERROR),
    "an unknown pseudo field": (headers(1, *REQUEST[:4], (":status", "200")), Code.PROTOCOL_ERROR),
    "a pseudo field at the end": (headers(1, *REQUEST[1:], REQUEST[0]), Code.PROTOCOL_ERROR),
    "no method": (headers(1, *REQUEST[1:]), Code.PROTOCOL_ERROR),
    "an empty path": (headers(1, *REQUEST[:2], (":path", ""), *REQUEST[3:]), Code.PROTOCOL_ERROR),
    "another length": (
        headers(1, *REQUEST, ("content-length", "4")) + frame(DATA, END_STREAM, 1, message(b"")),
        Code.PROTOCOL_ERROR,
    ),
    "a length that is none": (headers(1, *REQUEST, ("content-length", "4x")), Code.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", STREAM_ERRORS)
async def test_what_ends_a_stream(name: str) -> None:
    """Others on the connection are answered."""
    sent, code = STREAM_ERRORS[name]
    peer = Peer()
    peer.send(sent)

    assert {1: code} == peer.resets()
    assert peer.is_well()


REFUSED: Final = {
    "another method": (headers(1, (":method", "GET"), *REQUEST[1:], flags=LAST), ("405", None)),
    "no gRPC": (headers(1, *REQUEST[:5], flags=LAST), ("415", None)),
    "another path": (
        headers(1, *REQUEST[:2], (":path", "/x"), *REQUEST[3:], flags=LAST),
        ("200", "12"),
    ),
    "no message": (headers(1, flags=LAST), ("200", "13")),
    "half a message": (
        headers(1) + frame(DATA, END_STREAM, 1, message(b"abc")[:-1]),
        ("200", "13"),
    ),
    "two messages": (headers(1) + frame(DATA, END_STREAM, 1, message(b"a") * 2), ("200", "13")),
    "a compressed one": (headers(1) + frame(DATA, END_STREAM, 1, b"\1\0\0\0\1x"), ("200", "12")),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused(name: str) -> None:
    """With the status of HTTP, or that of gRPC."""
    sent, (status, rpc) = REFUSED[name]
    peer = Peer()
    peer.send(sent)

    fields, _ = peer.answers()[1]
    assert (status, rpc) == (fields[":status"], fields.get("grpc-status"))
    assert [] == peer.echo.asked
    assert peer.is_well()


async def test_a_call_may_come_in_any_frames() -> None:
    """Headers that go on, padding, a priority, empty data, trailers; unknown kinds are passed over."""
    peer = Peer()
    fields, body = block(*REQUEST), message(b"hello")
    peer.send(
        frame(HEADERS, PADDED | WITH_PRIORITY, 1, b"\2\0\0\0\3\x10" + fields[:3] + b"\0\0")
        + frame(CONTINUATION, 0, 1, fields[3:9])
        + frame(CONTINUATION, END_HEADERS, 1, fields[9:])
        + frame(99, 0xFF, 1, b"?")
        + frame(DATA, 0, 1)
        + frame(DATA, PADDED, 1, b"\1" + body[:4] + b"\0")
        + frame(PRIORITY, 0, 7, bytes(5))
        + frame(DATA, 0, 1, body[4:])
        + headers(1, ("x-checksum", "1"), flags=LAST)
    )

    assert message(b"hello") == peer.answers()[1][1]


async def test_answers_wait_for_room() -> None:
    """Of their stream and of the connection; the settings change that of streams that there are."""
    peer = Peer(greets=False)
    peer.send(PREFACE + settings({Setting.INITIAL_WINDOW_SIZE: 3}))
    peer.send(call(1, b"abcdefgh"))
    sent = [what for kind, _, _, what in peer.heard if kind == DATA]
    assert [message(b"abcdefgh")[:3]] == sent
    peer.send(window_update(1, 4))
    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 0}))
    assert 1 not in peer.answers()
    peer.send(window_update(1, 2), window_update(1, 2), window_update(1, 100))
    assert message(b"abcdefgh") == peer.answers()[1][1]

    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 10**6}))
    large = bytes(DEFAULT_WINDOW)
    peer.send(
        *(
            frame(DATA, 0, 3, part) if part else headers(3)
            for part in (b"", *_parts(message(large)))
        )
    )
    peer.send(frame(DATA, END_STREAM, 3))
    assert 3 not in peer.answers()
    peer.send(window_update(0, 100))
    assert message(large) == peer.answers()[3][1]


def _parts(data: bytes) -> list[bytes]:
    return [data[at : at + LARGEST_FRAME] for at in range(0, len(data), LARGEST_FRAME)]


async def test_the_window_for_bodies_is_opened_again() -> None:
    """However many calls one connection carries."""
    peer = Peer()
    for stream in range(1, 200, 2):
        body = message(bytes(LARGEST_MESSAGE // 2))
        peer.send(headers(stream), *(frame(DATA, 0, stream, part) for part in _parts(body)))
        peer.send(
            frame(DATA, END_STREAM, stream),
            window_update(0, len(body)),
            window_update(stream, len(body)),
        )
        assert peer.end() is None
    opened = sum(
        int.from_bytes(what, "big") for kind, _, _, what in peer.heard if kind == WINDOW_UPDATE
    )

    assert opened > 40 * LARGEST_MESSAGE


async def test_more_streams_than_there_is_room_for_are_refused() -> None:
    """They may come again later; those that wait are answered."""
    peer = Peer()
    numbers = range(1, 2 * MOST_STREAMS, 2)
    for stream in numbers:
        peer.send(call(stream, b"wait"))
    peer.send(call(2 * MOST_STREAMS + 1, b"more"))
    assert {2 * MOST_STREAMS + 1: Code.REFUSED_STREAM} == peer.resets()
    peer.echo.let.set()
    await until(lambda: peer.wire.written.count(calls.TRAILERS) == MOST_STREAMS)


async def test_what_was_on_its_way_to_a_stream_that_was_cut_is_passed_over() -> None:
    """The rest of a message that is too large, with trailers."""
    peer = Peer()
    huge = b"\0" + (LARGEST_MESSAGE + 1).to_bytes(4, "big")
    peer.send(headers(1) + frame(DATA, 0, 1, huge))
    assert "8" == peer.answers()[1][0]["grpc-status"]
    peer.send(frame(DATA, 0, 1, bytes(5000)) + headers(1, ("x", "y"), flags=LAST))

    assert {1: Code.NO_ERROR} == peer.resets()
    assert peer.is_well()


async def test_pings_are_answered() -> None:
    """With what they contain."""
    assert [(PING, ACK, 0, b"12345678")] == Peer().send(frame(PING, 0, 0, b"12345678"))


async def test_the_end_is_announced_in_two_steps() -> None:
    """Calls that were on their way are answered; those after the second step are the next connection's."""
    peer = Peer()
    peer.send(call(1, b"wait"))
    peer.connection.retire()
    peer.read()
    first, ping = peer.heard[-2:]
    assert (GOAWAY, 2**31 - 1) == (first[0], int.from_bytes(first[3][:4], "big"))
    peer.send(call(3, b"on its way"))
    peer.send(frame(PING, ACK, 0, ping[3]))
    assert (GOAWAY, 3) == (peer.heard[-1][0], int.from_bytes(peer.heard[-1][3][:4], "big"))
    assert not peer.wire.closed
    peer.send(call(5, b"too late"))
    peer.echo.let.set()
    await until(lambda: peer.wire.closed)
    peer.read()

    assert {1: message(b"wait"), 3: message(b"on its way")} == {
        stream: body for stream, (_, body) in peer.answers().items()
    }
    assert [b"wait", b"on its way"] == peer.echo.asked


async def test_a_peer_that_says_goodbye_has_its_answers() -> None:
    """Then the connection is closed."""
    peer = Peer()
    peer.send(call(1, b"wait") + goaway(0, Code.NO_ERROR))
    assert not peer.wire.closed
    peer.echo.let.set()
    await until(lambda: peer.wire.closed)
    peer.read()

    assert message(b"wait") == peer.answers()[1][1]


@pytest.mark.parametrize("name", ["HANDSHAKE_PATIENCE", "IDLE_PATIENCE"])
async def test_connections_without_use_are_closed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not greet, and one that asks nothing."""
    monkeypatch.setattr(door, name, 0.01)
    peer = Peer(greets=name == "IDLE_PATIENCE", grace=0.01)

    await until(lambda: peer.wire.closed)


async def test_an_old_connection_is_closed_after_its_grace() -> None:
    """Also one whose peer does not answer."""
    peer = Peer(max_age=0.01, grace=0.01)
    peer.send(call(1, b"wait"))

    await until(lambda: peer.wire.closed)


async def test_while_the_peer_does_not_read_nothing_is_read() -> None:
    """Answers would fill the memory."""
    peer = Peer()
    peer.connection.pause_writing()
    paused = peer.wire.reading
    peer.connection.resume_writing()

    assert (False, True) == (paused, peer.wire.reading)


async def test_a_table_is_read_until_the_peer_has_heard_that_there_is_none() -> None:
    """And blocks that need one are not taken for one another."""
    peer = Peer(greets=False)
    encoder = hpack.Encoder()
    peer.send(GREETING)
    for stream in (1, 3, 5):
        fields = bytes(encoder.encode([*REQUEST, ("grpc-timeout", "1S")]))
        peer.send(
            frame(HEADERS, END_HEADERS, stream, fields)
            + frame(DATA, END_STREAM, stream, message(b""))
        )
    peer.send(frame(SETTINGS, ACK, 0))
    encoder.header_table_size = 0
    for stream in (7, 9, 11):
        fields = bytes(encoder.encode([*REQUEST, ("grpc-timeout", f"{stream}S")]))
        peer.send(
            frame(HEADERS, END_HEADERS, stream, fields)
            + frame(DATA, END_STREAM, stream, message(b""))
        )
    assert {1, 3, 5, 7, 9, 11} == peer.answers().keys()
    encoder.header_table_size = 4096
    peer.send(frame(HEADERS, LAST, 13, bytes(encoder.encode(list(REQUEST)))))

    assert Code.COMPRESSION_ERROR == peer.end()
