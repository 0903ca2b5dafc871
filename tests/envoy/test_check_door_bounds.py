"""What one peer of the Check door can take from the others: time, memory, places. Each has its bound."""

import asyncio
import gc
import socket
import sys
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from authz.doors.envoy.http2.connection import CLOSING_PATIENCE
from authz.doors.envoy.http2.frames import (
    ACK,
    DATA,
    END_STREAM,
    SETTINGS,
    Code,
    Setting,
    frame,
    rst_stream,
    settings,
    window_update,
)
from authz.doors.envoy.http2.server import CheckServer
from authz.doors.envoy.http2.session import MOST_STREAMS, Session
from support.peers.check_door_peer import (
    CHECK,
    GREETING,
    REQUEST,
    Echo,
    Peer,
    call,
    end_all,
    headers,
    message,
)
from support.programs.stack import until

STREAMS: Final = range(1, 2 * MOST_STREAMS, 2)


@pytest.fixture(autouse=True)
async def _ends() -> AsyncIterator[None]:
    yield
    await end_all()


def _steps(peer: Peer, sent: bytes) -> int:
    """Return how many functions are called while some frames are taken."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        peer.connection.data_received(sent)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("window", [0, 1], ids=["no room on any", "no room on the connection"])
async def test_more_room_is_no_work_for_streams_that_do_not_need_it(window: int) -> None:
    """However many streams there are: the others would wait meanwhile."""
    peer, updates = Peer(), 50
    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 65_535 * window}))
    peer.send(b"".join(call(stream, b"x" * 1000) for stream in STREAMS))

    assert _steps(peer, window_update(0, 1) * updates) < 100 * updates
    assert peer.end() is None
    assert len(peer.connection._session._streams) > 1000


async def test_settings_are_work_for_all_streams_and_may_not_come_again_and_again() -> None:
    """A hundred times; a client sends them once."""
    peer = Peer()
    peer.send(settings({}) * 99)
    assert peer.end() is None
    peer.send(settings({}))

    assert Code.ENHANCE_YOUR_CALM == peer.end()


async def test_of_one_frame_the_last_value_of_a_setting_counts() -> None:
    """Its earlier values are work for nobody."""
    peer = Peer()
    values = b"".join(settings({Setting.INITIAL_WINDOW_SIZE: size})[9:] for size in (0, 65_535, 4))
    peer.send(frame(SETTINGS, 0, 0, values), call(1))

    assert [b"\0\0\0\0"] == [what for kind, _, _, what in peer.heard if kind == DATA]


async def test_answers_go_out_in_their_order_as_room_comes() -> None:
    """Byte by byte, each as a whole in the end; one whose own stream has no room holds up nobody."""
    peer = Peer()
    large = b"x" * (65_535 // 5 - 5)
    peer.send(*(call(stream, large) for stream in (1, 3, 5, 7, 9)))
    peer.send(*(call(stream) for stream in (11, 13, 15)))
    assert {1, 3, 5, 7, 9} == set(peer.answers())
    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 0}), window_update(13, 100))
    peer.send(*(window_update(0, 1) for _ in range(10)))
    assert {1, 3, 5, 7, 9, 13} == set(peer.answers())
    peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 65_535}))
    peer.send(*(window_update(0, 1) for _ in range(20)))

    assert [message(b"hello")] * 3 == [peer.answers()[stream][1] for stream in (11, 13, 15)]


async def test_an_answer_that_nobody_wants_any_more_takes_no_room() -> None:
    """It waited for some when its stream was cut."""
    peer = Peer()
    large = b"x" * (65_535 // 5 - 5)
    peer.send(*(call(stream, large) for stream in (1, 3, 5, 7, 9)), call(11), call(13))
    peer.send(rst_stream(11, Code.CANCEL))
    heard = peer.send(window_update(0, 10))

    assert {13} == {stream for _, _, stream, _ in heard}
    assert message(b"hello") == peer.answers()[13][1]


async def test_a_cancelled_answer_that_is_wanted_is_an_error() -> None:
    """Nobody is left without an answer."""
    peer = Peer()
    peer.send(call(1, b"wait"))
    task = peer.connection._session._streams[1].task
    assert task is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: not peer.connection._session._streams)
    peer.read()

    assert "13" == peer.answers()[1][0]["grpc-status"]


async def test_a_large_body_of_what_is_no_call_is_refused_as_that() -> None:
    """In one frame and in several."""
    peer = Peer()
    fields = [("content-type", "text/plain") if n == "content-type" else (n, v) for n, v in REQUEST]
    peer.send(headers(1, *fields), frame(DATA, 0, 1, b"aaaaaaa"), frame(DATA, END_STREAM, 1, b"b"))

    assert "415" == peer.answers()[1][0][":status"]


async def test_what_came_of_a_body_is_not_held_while_its_answer_is_awaited() -> None:
    """The message is the method's by then."""
    peer = Peer()
    peer.send(call(1, b"wait"))

    assert not peer.connection._session._streams[1].body


async def test_a_connection_is_freed_when_it_ends(tmp_path: Path) -> None:
    """At once: full collections are rare, and each connection remembers blocks of headers."""
    server = CheckServer(tmp_path / "c.sock", CHECK, Echo())
    await server.start()
    gc.disable()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, str(tmp_path / "c.sock"))
            await loop.sock_sendall(client, GREETING + frame(SETTINGS, ACK, 0) + call(1))
            await until(lambda: any(each._session._last for each in server._connections))
            alive = [
                weakref.ref(part) for each in server._connections for part in (each, each._session)
            ]
        await until(lambda: not server._connections)

        await until(lambda: [each() for each in alive] == [None, None])
    finally:
        gc.enable()
        await server.stop()


async def test_a_peer_that_does_not_read_its_last_answers_loses_them() -> None:
    """Its place is somebody else's soon."""
    peer = Peer()
    loop = asyncio.get_running_loop()
    peer.connection.eof_received()
    left = [timer.when() - loop.time() for timer in peer.connection._timers]

    assert peer.wire.closed
    assert CLOSING_PATIENCE >= min(left) > CLOSING_PATIENCE - 1


def test_frames_of_each_kind_have_a_handler() -> None:
    """RFC 9113 section 6 has ten."""
    assert 10 == len(Session._HANDLERS)
