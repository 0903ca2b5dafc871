"""`CheckServer`: where the Check door listens, how many connections it has, how they age and drain."""

import asyncio
import contextlib
from pathlib import Path
from typing import Final, cast

import structlog

from authz.doors.envoy.http2.connection import Connection
from authz.doors.envoy.http2.session import Method
from authz.system.unix_socket import Place, SocketPath

_log = structlog.get_logger(__name__)
MOST_CONNECTIONS: Final = 1_000
"""At a time. Further ones are closed at once."""
_BACKLOG: Final = 1024
_LAST_ANSWERS: Final = 1.0
"""Seconds in which calls under way are answered when the server stops."""


class CheckServer:
    """Serves one unary gRPC method on a Unix socket.

    Args:
        path: The socket.
        rpc: `:path` of the method.
        method: What answers.
        mode: Permissions of the socket.
        group: Group that owns it; None leaves it.
        max_age: Seconds after which a connection is asked to go away, so that what it holds ends.
        grace: Seconds that its calls under way have then.
    """

    def __init__(
        self,
        path: Path,
        rpc: str,
        method: Method,
        *,
        mode: int = 0o600,
        group: str | None = None,
        max_age: float = 1800.0,
        grace: float = 30.0,
    ) -> None:
        self._rpc = rpc
        self._method = method
        self._max_age = max_age
        self._grace = grace
        self._socket = SocketPath(path, mode=mode, group=group)
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            OSError: The path cannot be had.
        """
        self._servers.append(await self._listen())

    async def mend(self) -> str | None:
        """Serve at the path again, if the socket there is gone. Connections that there are stay.

        Returns:
            Why nobody can connect; None if that is possible.
        """
        place = self._socket.place()
        if place is Place.OURS or not self._servers:
            return None
        if place is Place.TAKEN:
            return f"another process has taken {self._socket.path}"
        try:
            self._servers.append(await self._listen())
        except OSError as error:
            return f"{self._socket.path} is gone, and cannot be had again: {error}"
        _log.warning("socket was gone, serving at a new one", address=f"unix:{self._socket.path}")
        self._servers.pop(0).close()
        return None

    async def stop(self) -> None:
        """Answer calls under way within a moment, and end."""
        if self._servers:
            self._socket.remove()
        for server in self._servers:
            server.close()
        self._servers.clear()
        for connection in list(self._connections):
            connection.retire()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_ANSWERS):
                await self._empty.wait()
        for connection in list(self._connections):
            connection.abort()
        # The loop closes what was cut in its next round.
        await self._empty.wait()

    async def _listen(self) -> asyncio.Server:
        listener = self._socket.listen(_BACKLOG)
        return await asyncio.get_running_loop().create_unix_server(self._connect, sock=listener)

    def _connect(self) -> asyncio.Protocol:
        if len(self._connections) >= MOST_CONNECTIONS:
            return _Refused()
        connection = Connection(
            self._rpc,
            self._method,
            max_age=self._max_age,
            grace=self._grace,
            gone=self._gone,
        )
        self._connections.add(connection)
        self._empty.clear()
        return connection

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()


class _Refused(asyncio.Protocol):
    """A connection for which there is no place."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()
