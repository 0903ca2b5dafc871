"""Requests over HTTP are bounded before anything of ours sees them: in bytes, in time, in number."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from authz import http_server
from authz.http_server import HttpServer

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GET: Final = b"GET / HTTP/1.1\r\nhost: localhost\r\n"


async def _answer(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


@asynccontextmanager
async def connected(address: str = "127.0.0.1:0") -> AsyncIterator[Wire]:
    """Serve, and connect."""
    server = HttpServer(address, Starlette(routes=[Route("/", _answer, methods=["GET", "POST"])]))
    await server.start()
    host = "::1" if address.startswith("[") else "127.0.0.1"
    reader, writer = await asyncio.open_connection(host, server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await server.stop()


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
        post = GET.replace(b"GET", b"POST") + b"content-length: 200000\r\n\r\n"
        assert b" 200 " in await ask(wire, post, body)
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
    monkeypatch.setattr(http_server, "HEAD_PATIENCE", 0.05)
    async with connected() as (reader, writer):
        writer.write(begun)
        assert b"" == await asyncio.wait_for(reader.read(), 10)


async def test_one_connection_too_many_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a status that says to try again."""
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 1)
    async with connected() as wire:
        assert b" 503 " in await ask(wire, GET, b"\r\n")


async def test_every_address_is_of_both_versions_of_ip() -> None:
    """`[::]`, as `http://+:5000` of the sidecar means it."""
    server = HttpServer("[::]:0", Starlette(routes=[Route("/", _answer)]))
    await server.start()
    for host in ("127.0.0.1", "::1"):
        wire = await asyncio.open_connection(host, server.port)
        assert b" 200 " in await ask(wire, GET, b"\r\n")
        wire[1].close()
    await server.stop()
