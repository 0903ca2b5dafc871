"""The Check door and frames at random: whatever comes, it is told one error or goes on as it should."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.doors.envoy.http2.frames import (
    ACK,
    DATA,
    DEFAULT_WINDOW,
    END_STREAM,
    PING,
    Code,
    Setting,
    frame,
    rst_stream,
    settings,
    window_update,
)
from support.peers.check_door_peer import (
    LAST,
    REQUEST,
    Peer,
    block,
    call,
    end_all,
    headers,
    message,
)

FRAME = st.builds(
    frame,
    st.integers(0, 10),
    st.integers(0, 255),
    st.sampled_from([0, 1, 1, 3, 5, 7, 2, 2**31 - 1]),
    st.one_of(
        st.binary(max_size=64),
        st.sampled_from(
            [block(*REQUEST), message(b"hello"), bytes(4), bytes(5), bytes(6), bytes(8)]
        ),
    ),
)
PART = st.one_of(FRAME, st.sampled_from([1, 3, 5, 7, 9]).map(call), st.binary(max_size=30))


@given(parts=st.lists(PART, max_size=30), cut=st.integers(1, 200))
def test_no_bytes_do_any_harm(parts: list[bytes], cut: int) -> None:
    """Whatever a peer sends: it is told one error, or the connection goes on as it should."""

    async def drive() -> None:
        peer = Peer()
        data = b"".join(parts)
        peer.send(*(data[at : at + cut] for at in range(0, len(data), cut)))
        code = peer.end()
        assert code is not Code.INTERNAL_ERROR
        await end_all()
        assert peer.connection._session.is_idle

    asyncio.run(drive())


def ordinary(chance: random.Random, count: int) -> bytes:
    """Return frames that a client may send, in an order that none would: nearly all keep to the rules."""
    parts: list[bytes] = []
    last, begun = -1, []
    for _ in range(count):
        known = chance.randrange(1, last + 1, 2) if last > 0 else 1
        match chance.randrange(9):
            case 0 | 1:
                last += 2
                parts.append(call(last, chance.choice([b"hello", b"wait", b"", bytes(3000)])))
            case 2:
                last += 2
                begun.append(last)
                parts.append(headers(last))
            case 3 if begun:
                part = chance.choice([b"", b"\0", bytes(4), bytes(100)])
                parts.append(frame(DATA, 0, chance.choice(begun), part))
            case 4 if begun:
                ended = begun.pop(chance.randrange(len(begun)))
                rest = frame(DATA, END_STREAM, ended, message(b"hello"))
                parts.append(chance.choice([rest, headers(ended, ("x", "y"), flags=LAST)]))
            case 5 if last > 0:
                parts.append(rst_stream(known, Code.CANCEL))
            case 6:
                window = chance.choice([0, 1, 100, DEFAULT_WINDOW, 10**6])
                parts.append(settings({Setting.INITIAL_WINDOW_SIZE: window}))
            case 7 if last > 0:
                parts.append(window_update(chance.choice([0, known]), chance.randrange(1, 1000)))
            case _:
                parts.append(frame(PING, chance.choice([0, ACK]), 0, bytes(8)))
                parts.append(frame(chance.randrange(10, 256), 0xFF, known, bytes(9)))
    return b"".join(parts)


@pytest.mark.parametrize("seed", range(40))
async def test_a_connection_that_goes_on_answers(seed: int) -> None:
    """After whatever came: a further call has its answer as soon as there is room, and nothing is held."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    peer = Peer()
    data, cut = ordinary(chance, 150), chance.choice([1, 7, 50, 1000, 10**6])
    peer.send(*(data[at : at + cut] for at in range(0, len(data), cut)))
    peer.echo.let.set()
    if not peer.wire.closed:
        peer.send(settings({Setting.INITIAL_WINDOW_SIZE: 10**6}), window_update(0, 10**6))
        assert peer.is_well()
    await end_all()

    assert peer.connection._session.is_idle
