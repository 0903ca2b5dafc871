"""An API over real HTTP, which answers as it is told and remembers what it was asked."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

OK = Response(b'{"ok":true}', media_type="application/json")


@dataclass
class Seen:
    """One request that the API got."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class SomeApi:
    """The API: where it is, what it was asked, and what it answers by path."""

    url: str = ""
    ca_file: Path = Path()
    seen: list[Seen] = field(default_factory=list)
    answers: dict[str, Response | Callable[[Seen], Response]] = field(default_factory=dict)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: str) -> list[str]:
        """The values of a header of the last request."""
        return [value for key, value in self.seen[-1].headers if key == name]


async def _serve(request: Request, api: SomeApi) -> Response:
    target = request.scope["raw_path"].decode() + (
        f"?{request.url.query}" if request.url.query else ""
    )
    headers = [(name.decode(), value.decode()) for name, value in request.headers.raw]
    api.seen.append(Seen(request.method, target, headers, await request.body()))
    api.asked.set()
    if request.url.path.endswith("/large"):

        async def large() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 65536

        return StreamingResponse(large())
    if request.url.path.endswith("/silent"):
        await api.over.wait()
    found = api.answers.get(request.url.path, OK)
    return found if isinstance(found, Response) else found(api.seen[-1])


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[SomeApi]:
    """Serve over TLS until the test ends."""
    made = SomeApi()

    async def everything(request: Request) -> Response:
        return await _serve(request, made)

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    made.ca_file = tmp_path / "api-ca.pem"
    authority.cert_pem.write_to_path(str(made.ca_file))
    listener = socket.create_server(("127.0.0.1", 0))
    made.url = f"https://127.0.0.1:{listener.getsockname()[1]}"

    def context(*_: object) -> ssl.SSLContext:
        found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(found)
        return found

    app = Starlette(routes=[Route("/{path:path}", everything, methods=METHODS)])
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ssl_context_factory=context,
        )
    )
    serving = asyncio.create_task(server._serve(sockets=[listener]))
    yield made
    made.over.set()
    server.should_exit = True
    await serving
