"""Calls to Entra through an HTTP proxy: TLS to the end, and no way around it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from authz.core.decision import Allow
from authz.core.errors import Reason
from support.programs.stack import World, denied, issued, stack


class ConnectProxy:
    """A proxy that knows CONNECT and nothing else, and counts what it connects."""

    def __init__(self) -> None:
        self.connected: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b" ", 2)
        assert method == b"CONNECT"
        host, _, port = target.decode().rpartition(":")
        self.connected.append(f"{host}:{port}")
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(_pump(reader, upstream_writer), _pump(upstream_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def running() -> AsyncIterator[tuple[ConnectProxy, int]]:
    """A proxy on a free port."""
    proxy = ConnectProxy()
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0)
    async with server:
        yield proxy, server.sockets[0].getsockname()[1]


async def test_keys_and_tokens_come_through_the_proxy(world: World) -> None:
    """With a proxy configured, everything Entra is asked goes through it."""
    async with running() as (proxy, port):
        document = world.config()
        document["entra"]["proxy"] = f"http://127.0.0.1:{port}"
        async with stack(world, document=document) as service:
            inbound = await service.inbound(world.token())
            token = issued(await service.egress("autonomous"))

        assert isinstance(inbound.decision, Allow)
        assert world.agent["client_id"] == token["appid"]
        assert {world.emulator.authority.removeprefix("https://")} == set(proxy.connected)


async def test_without_the_proxy_there_is_no_way(world: World) -> None:
    """A proxy that is down is not passed by."""
    document = world.config()
    document["entra"]["proxy"] = "http://127.0.0.1:9"
    async with stack(world, document=document, keys=False) as service:
        record = await service.egress("autonomous")

        assert Reason.EXCHANGE_UNAVAILABLE == denied(record)
        assert {} == service.calls
