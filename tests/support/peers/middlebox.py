"""`Middlebox`: an HTTP proxy (CONNECT) that can forget the connections it has, without a word to either side.

What is sent on a forgotten connection is confirmed by the kernel and goes nowhere, as with a gateway that has
lost its state. New connections work.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Middlebox:
    """Counts the connections that it has passed on.

    Attributes:
        port: Where it listens, on loopback.
        connected: Connections so far.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connected = 0
        self._forgotten: set[int] = set()

    def forget(self) -> None:
        """Pass nothing on any more of the connections that there are."""
        self._forgotten = set(range(self.connected))

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        number, self.connected = self.connected, self.connected + 1
        with suppress(asyncio.IncompleteReadError, OSError):
            head = await reader.readuntil(b"\r\n\r\n")
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await asyncio.gather(
                self._pass(number, reader, back), self._pass(number, there, writer)
            )

    async def _pass(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if number not in self._forgotten:
                    writer.write(data)
                    await writer.drain()
        writer.close()


@asynccontextmanager
async def middlebox() -> AsyncIterator[Middlebox]:
    """Run one through the block."""
    box = Middlebox()
    server = await asyncio.start_server(box.handle, "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
