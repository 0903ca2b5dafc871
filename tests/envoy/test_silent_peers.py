"""The gRPC door and those who connect and say nothing: they go, and there is a bound for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from authz.doors.envoy import grpc_server as door
from authz.doors.envoy.grpc_server import GrpcServer, ServerSettings

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[int]:
    """Serve on a port."""

    async def echo(raw: bytes, _: Any) -> bytes:
        return raw

    handler = grpc.method_handlers_generic_handler(
        "test", {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    )
    server = GrpcServer(ServerSettings("127.0.0.1:0", **settings), [handler])
    await server.start()
    assert server.port is not None
    try:
        yield server.port
    finally:
        await server.stop()


async def ended(wire: Wire) -> bool:
    """Wait for the end of a connection."""
    reader, writer = wire
    async with asyncio.timeout(30):
        try:
            while await reader.read(4096):
                pass
        except ConnectionError:
            pass
    writer.close()
    return True


@pytest.mark.parametrize("said", [b"", PREFACE, PREFACE + SETTINGS])
async def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """Nothing at all, no settings, or no call."""
    monkeypatch.setattr(door, "HANDSHAKE_PATIENCE", 0.2)
    monkeypatch.setattr(door, "IDLE_PATIENCE", 0.2)
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        assert await ended((reader, writer))


async def test_one_connection_too_many_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And there is a place again when a silent one has gone."""
    monkeypatch.setattr(door, "HANDSHAKE_PATIENCE", 3600.0)
    async with serving(max_connections=3) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await ended(await asyncio.open_connection("127.0.0.1", port))
        for _, writer in silent:
            writer.close()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary("/test/Echo")
            assert b"x" == await call(b"x", timeout=30, wait_for_ready=True)
