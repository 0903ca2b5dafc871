"""The admin HTTP server: `/livez`, `/readyz`, `/metrics`, `/status`. It shows no secret, changes nothing."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from prometheus_client import CollectorRegistry, exposition
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Readiness = Callable[[], Mapping[str, Any]]
"""Why the service is not ready, by subject; empty when it is."""

Status = Callable[[], Mapping[str, Any]]
"""Facts about what runs, free of secrets."""


class AdminServer:
    """Serves the admin endpoints until it is stopped.

    Args:
        address: `host:port` or `unix:PATH`.
        registry: Gives the registry to expose, anew for each scrape.
        readiness: Why the service is not ready.
        status: Facts about what runs.
    """

    def __init__(
        self,
        address: str,
        *,
        registry: Callable[[], CollectorRegistry],
        readiness: Readiness,
        status: Status,
    ) -> None:
        self._address = address
        self._registry = registry
        self._readiness = readiness
        self._status = status
        app = Starlette(
            routes=[
                Route("/livez", _livez),
                Route("/readyz", self._readyz),
                Route("/metrics", self._metrics),
                Route("/status", self._state),
            ]
        )
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", server_header=False
        )
        self._server = _EmbeddedServer(config)
        self._serving: asyncio.Task[None] | None = None
        self.port: int | None = None

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

    async def _readyz(self, _: Request) -> Response:
        reasons = self._readiness()
        return _json({"ready": not reasons, "missing": reasons}, 503 if reasons else 200)

    async def _metrics(self, request: Request) -> Response:
        encode, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry()), headers={"content-type": content_type})

    async def _state(self, _: Request) -> Response:
        return _json(self._status())


async def _livez(_: Request) -> Response:
    return Response("ok", media_type="text/plain")


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    return Response(
        orjson.dumps(content, option=orjson.OPT_INDENT_2),
        status,
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )


def _listen(address: str) -> socket.socket:
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        if path.is_socket():
            path.unlink()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(128)
        return listener
    host, _, port = address.rpartition(":")
    return socket.create_server((host.strip("[]"), int(port)), backlog=128)


class _EmbeddedServer(uvicorn.Server):
    """A server that leaves signals to the program it is part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
