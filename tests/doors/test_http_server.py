"""Requests over HTTP are bounded before anything of ours sees them: in bytes, in time, in number."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs

from authz.doors import http_protocol, http_server
from authz.doors.http_server import HttpServer
from support.programs.holdings import descriptors
from support.programs.stack import until

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LARGE: Final = 24 * 1024**2
GET: Final = b"GET / HTTP/1.1\r\nhost: localhost\r\n"


async def _answer(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def _unread(_: Request) -> Response:
    """Answer without having read the body."""
    return PlainTextResponse("unread")


async def _large(_: Request) -> Response:
    """Answer with more than sockets on the way take."""
    return PlainTextResponse("x" * LARGE)


@asynccontextmanager
async def connected(address: str = "127.0.0.1:0", **bounds: int | None) -> AsyncIterator[Wire]:
    """Serve, and connect."""
    async with serving(address, **bounds) as server:
        reader, writer = await connect(server, address)
        yield reader, writer
        writer.close()


@asynccontextmanager
async def serving(address: str = "127.0.0.1:0", **bounds: int | None) -> AsyncIterator[HttpServer]:
    """Serve."""
    routes = [
        Route("/", _answer, methods=["GET", "POST"]),
        Route("/unread", _unread, methods=["POST"]),
        Route("/large", _large),
    ]
    server = HttpServer(address, Starlette(routes=routes), **{"most_body": None, **bounds})  # type: ignore[arg-type]
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def connect(server: HttpServer, address: str = "127.0.0.1:0") -> Wire:
    """Connect once more."""
    host = "::1" if address.startswith("[") else "127.0.0.1"
    return await asyncio.open_connection(host, server.port)


async def test_a_socket_that_is_removed_again_and_again_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    """Its connections stay for as long as they are used; its listener does not."""
    file = tmp_path / "door.sock"
    async with serving(f"unix:{file}") as server:
        wires, held = [], []
        for _ in range(6):
            wires.append(await asyncio.open_unix_connection(file))
            await ask(wires[-1], GET, b"\r\n")
            file.unlink()
            assert await server.mend() is None
            held.append(descriptors(os.getpid()))
        answers = [await ask(wire, GET, b"\r\n") for wire in wires]
        for _, writer in wires:
            writer.close()

    assert ["HTTP/1.1 200 OK"] * 6 == [answer.decode().strip() for answer in answers]
    # Both ends of a connection each time.
    assert [2] * 5 == [after - before for before, after in pairwise(held)]


async def ask(wire: Wire, *parts: bytes) -> bytes:
    """Send a request and return the answer's status line."""
    reader, writer = wire
    writer.write(b"".join(parts))
    line = await reader.readline()
    length = 0
    while (header := await reader.readline()) != b"\r\n":
        if header.lower().startswith(b"content-length:"):
            length = int(header.split(b":")[1])
    await reader.readexactly(length)
    return line


async def test_requests_follow_one_another_on_one_connection() -> None:
    """Each with a head of its own up to the bound, and a body that may be larger."""
    async with connected() as wire:
        padding = b"x-padding: " + b"x" * 60_000 + b"\r\n"
        for _ in range(3):
            assert b" 200 " in await ask(wire, GET, padding, b"\r\n")
        body = b"x" * 200_000
        assert b" 200 " in await ask(wire, post(b"/", 200_000), body)
        assert b" 200 " in await ask(wire, GET, b"\r\n")


async def test_requests_that_come_together_are_answered_in_order() -> None:
    """Pipelined ones (RFC 9112 section 9.3.2)."""
    async with connected() as wire:
        assert b" 200 " in await ask(wire, (GET + b"\r\n") * 2)
        assert b" 200 " in await ask(wire)


@pytest.mark.parametrize("endless", [b"x-header: ", b"GET /", GET, b"x" * 10])
async def test_a_head_without_end_is_refused(endless: bytes) -> None:
    """In one header, in the target, in many headers, or in what is no HTTP at all."""
    async with connected() as (reader, writer):
        more = b"x-more: y\r\n" * 1000 if endless == GET else b"x" * 10_000
        writer.write(endless if endless != b"x-header: " else GET + endless)
        for _ in range(20):
            writer.write(more)
        line = await reader.readline()
        assert line.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


async def test_the_second_request_is_bounded_as_the_first() -> None:
    """What was counted for one does not count for the next, and the next is counted."""
    async with connected() as wire:
        assert b" 200 " in await ask(wire, GET, b"\r\n")
        reader, writer = wire
        writer.write(GET)
        for _ in range(20):
            writer.write(b"x-more: " + b"y" * 10_000 + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("begun", [b"", GET])
async def test_a_head_that_does_not_come_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    """Else idle connections would take every file that the process may open."""
    monkeypatch.setattr(http_protocol, "HEAD_PATIENCE", 0.05)
    async with connected() as (reader, writer):
        writer.write(begun)
        assert b"" == await asyncio.wait_for(reader.read(), 10)


def post(path: bytes, length: int) -> bytes:
    """The head of a request with a body."""
    return b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (path, length)


@pytest.mark.parametrize("begun", [b"", GET, GET + b"\r\n", post(b"/", 100) + b"x"])
async def test_a_probe_is_answered_however_many_are_silent(
    monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    """Without a request, within a head, after an answer, within a body: the longest silent one yields."""
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 20)
    async with serving() as server:
        silent = []
        for _ in range(60):
            reader, writer = await connect(server)
            writer.write(begun)
            if begun.endswith(b"\r\n\r\n"):
                await reader.readline()
            silent.append((reader, writer))
        probe = await connect(server)
        assert b" 200 " in await ask(probe, GET, b"\r\n")
        for _, writer in [*silent, probe]:
            writer.close()


async def test_one_connection_too_many_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a status that says to try again, where every other one waits for its answer from us."""
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 1)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> Response:
        asked.set()
        await answered.wait()
        return PlainTextResponse("at last")

    server = HttpServer("127.0.0.1:0", Starlette(routes=[Route("/", slow)]))
    await server.start()
    first = await connect(server)
    first[1].write(GET + b"\r\n")
    await asked.wait()
    second = await connect(server)

    assert b" 503 " in await second[0].readline()
    answered.set()
    assert b" 200 " in await first[0].readline()
    for _, writer in (first, second):
        writer.close()
    await server.stop()


async def test_bodies_are_bounded_all_together() -> None:
    """Those that never end yield to one that does, with an answer that says to try again."""
    size = 64 * 1024
    async with serving(most_held=8 * size) as server:
        unfinished = []
        for _ in range(20):
            wire = await connect(server)
            wire[1].write(post(b"/", size) + b"x" * (size - 1))
            unfinished.append(wire)
        answers = [asyncio.create_task(reader.read()) for reader, _ in unfinished]
        done: set[asyncio.Task[bytes]] = set()
        while len(done) < 20 - 8:
            ended, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED, timeout=30)
            assert ended - done, len(done)
            done |= ended
            answers = [each for each in answers if each not in done]
        quick = await connect(server)
        assert b" 200 " in await ask(quick, post(b"/", size), b"x" * size)
        for each in answers:
            each.cancel()
        for _, writer in [*unfinished, quick]:
            writer.close()

    for task in done:
        head, _, body = task.result().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head
        assert 503 == json.loads(body)["status"]


async def test_answers_that_nobody_reads_are_bounded_all_together() -> None:
    """Who does not read an answer yields to who does."""
    get = b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with serving(most_held=2 * LARGE) as server:
        unread = []
        for _ in range(6):
            wire = await connect(server)
            # The reader of asyncio takes 128 KiB and no more, as long as nobody reads.
            wire[1].write(get)
            unread.append(wire)
        reader, writer = await connect(server)
        writer.write(get)
        line = await reader.readline()
        body = await reader.readuntil(b"\r\n\r\n")
        whole = await reader.readexactly(LARGE)
        for _, each in [*unread, (reader, writer)]:
            each.close()

    assert b" 200 " in line
    assert b"content-length" in body
    assert LARGE == len(whole)


async def test_a_body_of_more_than_the_bound_is_refused_before_it_comes() -> None:
    """By its length alone."""
    async with connected(most_body=100) as wire:
        assert b" 200 " in await ask(wire, post(b"/", 100), b"x" * 100)
        assert b" 413 " in await ask(wire, post(b"/", 101))


@pytest.mark.parametrize("path", [b"/", b"/unread"])
async def test_a_body_that_does_not_come_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    """With 408, or without a further word where an answer was given already."""
    monkeypatch.setattr(http_protocol, "BODY_PATIENCE", 0.05)
    async with connected() as (reader, writer):
        writer.write(post(path, 100) + b"x")
        answer = await asyncio.wait_for(reader.read(), 20)

    assert (b"HTTP/1.1 408 " in answer) == (path == b"/")
    assert (b"HTTP/1.1 200 " in answer) == (path == b"/unread")


async def test_a_body_for_which_the_application_waits_is_given_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client's time does not run while nobody reads: it is we who keep it waiting."""
    # Long enough for the part that is read ahead to arrive on a busy machine.
    monkeypatch.setattr(http_protocol, "BODY_PATIENCE", 0.3)
    length = 2 * 1024**2

    async def late(request: Request) -> Response:
        timer = request.app.state.timer
        for _ in range(10):
            # Longer than the patience, by the same clock.
            await asyncio.sleep(0.05)
        timer.append(True)
        monkeypatch.setattr(http_protocol, "BODY_PATIENCE", 60.0)
        return PlainTextResponse(str(len(await request.body())))

    app = Starlette(routes=[Route("/", late, methods=["POST"])])
    app.state.timer = []
    server = HttpServer("127.0.0.1:0", app, most_body=None)
    await server.start()
    wire = await connect(server)
    line = await ask(wire, post(b"/", length), b"x" * length)
    wire[1].close()
    await server.stop()

    assert b" 200 " in line
    assert [True] == app.state.timer


async def test_a_client_that_hangs_up_is_one_quiet_line() -> None:
    """No traceback for what anybody can do."""
    async with serving() as server:
        with capture_logs() as logged:
            _, writer = await connect(server)
            writer.write(post(b"/", 100) + b"x")
            await writer.drain()
            await asyncio.sleep(0)
            writer.close()
            await until(lambda: logged)

    assert [("info", "request not read to its end")] == [
        (record["log_level"], record["event"]) for record in logged
    ]


async def test_a_body_that_comes_with_its_head_is_no_head() -> None:
    """The first request of a connection, in one piece and larger than a head may be."""
    async with connected() as wire:
        length = 2 * http_protocol.MOST_HEAD_BYTES
        assert b" 200 " in await ask(wire, post(b"/", length) + b"x" * length)


async def test_every_address_is_of_both_versions_of_ip() -> None:
    """`[::]`, as `http://+:5000` of the sidecar means it."""
    server = HttpServer("[::]:0", Starlette(routes=[Route("/", _answer)]))
    await server.start()
    for host in ("127.0.0.1", "::1"):
        wire = await asyncio.open_connection(host, server.port)
        assert b" 200 " in await ask(wire, GET, b"\r\n")
        wire[1].close()
    await server.stop()
