"""`HttpServer`: an ASGI application served inside this process, on an address of the configuration."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

_BACKLOG: Final = 1024
_EVERY_ADDRESS: Final = "::"


class HttpServer:
    """Serves an application until it is stopped.

    Args:
        address: `host:port` or `unix:PATH`. `[::]` takes connections of IPv4 as well.
        app: What to serve.
        keep_alive: Seconds for which an idle connection is kept.
        patience: Seconds that requests under way have when stopping; None for as many as they take.
    """

    def __init__(
        self, address: str, app: ASGIApp, *, keep_alive: int = 5, patience: float | None = None
    ) -> None:
        self._address = address
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            # Who connects is who asks: nobody stands before us whose word would count.
            proxy_headers=False,
            timeout_keep_alive=keep_alive,
            timeout_graceful_shutdown=None if patience is None else ceil(patience),
        )
        self._server = _EmbeddedServer(config)
        self._serving: asyncio.Task[None] | None = None
        self.port: int | None = None
        """Port of a TCP address, once started."""

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            OSError: The address cannot be had.
        """
        listener = _listen(self._address)
        if listener.family != socket.AF_UNIX:
            self.port = listener.getsockname()[1]
        self._serving = asyncio.get_running_loop().create_task(
            self._server.serve(sockets=[listener])
        )

    async def stop(self) -> None:
        """Stop, finishing requests under way."""
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving


def _listen(address: str) -> socket.socket:
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        if path.is_socket():
            path.unlink()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(_BACKLOG)
        return listener
    host, _, port = address.rpartition(":")
    host, number = host.strip("[]"), int(port)
    if host == _EVERY_ADDRESS:
        if not socket.has_dualstack_ipv6():
            return socket.create_server(("0.0.0.0", number), backlog=_BACKLOG)  # noqa: S104 - as told
        return socket.create_server(
            (host, number), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, number), family=family, backlog=_BACKLOG)


class _EmbeddedServer(uvicorn.Server):
    """A server that leaves signals to the program it is part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
