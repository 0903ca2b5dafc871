"""The admin HTTP server: `/livez`, `/readyz`, `/metrics`, `/status`. It shows no secret, changes nothing."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, exposition
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz.doors.http_server import HttpServer

Readiness = Callable[[], Mapping[str, Any]]
"""Why the service is not ready, by subject; empty when it is."""

Notices = Callable[[], Mapping[str, Any]]
"""What is wrong while the service is ready all the same, by subject; empty when nothing is."""

Status = Callable[[], Mapping[str, Any]]
"""Facts about what runs, free of secrets."""


class AdminServer(HttpServer):
    """Serves the admin endpoints until it is stopped.

    Args:
        address: `host:port` or `unix:PATH`.
        registry: Gives the registry to expose, for each scrape.
        readiness: Why the service is not ready.
        notices: What else `/readyz` says.
        status: Facts about what runs.
    """

    def __init__(
        self,
        address: str,
        *,
        registry: Callable[[], CollectorRegistry],
        readiness: Readiness,
        status: Status,
        notices: Notices = dict,
    ) -> None:
        self._registry = registry
        self._readiness = readiness
        self._notices = notices
        self._status = status
        routes = [
            Route("/livez", _livez),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
            Route("/status", self._state),
        ]
        super().__init__(address, Starlette(routes=routes))

    async def _readyz(self, _: Request) -> Response:
        reasons = self._readiness()
        answer = {"ready": not reasons, "missing": reasons, **self._notices()}
        return _json(answer, 503 if reasons else 200)

    async def _metrics(self, request: Request) -> Response:
        encode, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
        # With many routes it takes longer than a request may wait.
        content = await asyncio.to_thread(encode, self._registry())
        return Response(content, headers={"content-type": content_type})

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
