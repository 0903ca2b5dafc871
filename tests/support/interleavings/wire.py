"""`Connections`: a caller's own kept HTTP/1.1 connections, without a pool."""

import asyncio
from dataclasses import dataclass
from typing import Final, Self

Headers = tuple[tuple[str, str], ...]
PATIENCE: Final = 20.0
"""Seconds to wait for an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status; 0 where the connection ended without an answer.
        body: The body.
    """

    status: int
    body: bytes = b""


LOST: Final = Answer(0)


class Connections:
    """One connection to each address; an async context manager."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for __, writer in self._open.values():
            writer.close()

    async def get(self, port: int, target: str, host: str, headers: Headers) -> Answer:
        """Send a GET and return the answer."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        request = f"GET {target} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n".encode("latin-1")
        kept = port in self._open
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._exchange(port, request)
        except (OSError, EOFError, ValueError):
            self._forget(port)
            if not kept:
                return LOST
            # Envoy may have closed it while nobody looked.
            return await self.get(port, target, host, headers)
        return answer

    async def _exchange(self, port: int, request: bytes) -> Answer:
        if port not in self._open:
            self._open[port] = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = self._open[port]
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        if fields.get("connection") == "close":
            self._forget(port)
        return Answer(int(first.split()[1]), body)

    def _forget(self, port: int) -> None:
        if port in self._open:
            self._open.pop(port)[1].close()
