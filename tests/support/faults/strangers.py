"""Connections of strangers: they say nothing, or begin a request and never end it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

GET: Final = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"
"""The beginning of a head."""


def begun(path: str, length: int, *headers: str) -> bytes:
    """Return a request but for the last byte of its body."""
    lines = (f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {length}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + bytes(length - 1)


class Strangers:
    """Connections to one address.

    Args:
        address: `host:port`, or `unix:PATH`.
        said: What each says at its beginning.
        tls: With it, each speaks TLS.
    """

    def __init__(self, address: str, said: bytes = b"", tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        self._said = said
        self._tls = tls
        self._open: list[_Stranger] = []

    @property
    def staying(self) -> int:
        """How many have not been closed on the other side."""
        return sum(not each.gone for each in self._open)

    @property
    def unsent(self) -> int:
        """Bytes of what the staying ones say that have not left yet."""
        return sum(each.unsent for each in self._open if not each.gone)

    async def come(self, number: int) -> None:
        """Open so many more."""
        for _ in range(number):
            self._open.append(await self._connect())

    async def renew(self) -> None:
        """Open another one for each that was closed on the other side."""
        staying = [each for each in self._open if not each.gone]
        gone = len(self._open) - len(staying)
        self._open = staying
        await self.come(gone)

    def leave(self) -> None:
        """Close them all."""
        for each in self._open:
            each.leave()

    async def _connect(self) -> "_Stranger":
        loop, made = asyncio.get_running_loop(), lambda: _Stranger(self._said)
        if self._address.startswith("unix:"):
            path = self._address.removeprefix("unix:")
            return (await loop.create_unix_connection(made, path))[1]
        host, _, port = self._address.rpartition(":")
        return (await loop.create_connection(made, host, int(port), ssl=self._tls))[1]


class _Stranger(asyncio.Protocol):
    """One of them. What it is answered is not looked at."""

    def __init__(self, said: bytes) -> None:
        self._said = said
        self._transport: asyncio.Transport | None = None
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._said)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True

    @property
    def unsent(self) -> int:
        assert self._transport is not None
        return self._transport.get_write_buffer_size()

    def leave(self) -> None:
        assert self._transport is not None
        self._transport.abort()


@asynccontextmanager
async def strangers(
    address: str, number: int, said: bytes = b"", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Strangers]:
    """Let so many be there through the block."""
    there = Strangers(address, said, tls)
    try:
        await there.come(number)
        yield there
    finally:
        there.leave()
