"""What an injected fault looks like on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from authz_dev.emulator.errors import TokenError
from authz_dev.emulator.faults import Fault

_CHUNK = b"x" * 65_536
_DRIPS = {
    "head": (b"HTTP/1.1 200 OK\r\nx-drip: ", b"x"),
    "chunk": (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1;",
        b"x",
    ),
    "body": (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{",
        b" ",
    ),
}
"""By the part that drips: what comes before at once, and the byte that is repeated."""


class Wire(Protocol):
    """The connection that a request came on."""

    def abort(self, scope: Scope) -> None:
        """Cut it."""

    def write(self, scope: Scope, data: bytes) -> None:
        """Send bytes as they are."""


async def spoil(
    faults: tuple[Fault, ...], request: Request, *, authority: str, now: float, wire: Wire
) -> Response | None:
    """Wait as the latencies say; then the faulty answer, or None to answer as usual (`amended`)."""
    for fault in faults:
        if fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
        elif fault.kind == "error":
            error = TokenError(
                fault.code,
                "(Injected.)",
                suberror=fault.suberror,
                claims=None if fault.claims is None else dict(fault.claims),
            )
            return error_response(
                error, request, authority=authority, now=now, members=fault.members
            )
        elif fault.kind != "members":
            return _FaultyResponse(fault, wire)
    return None


def amended(faults: tuple[Fault, ...], body: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the members that faults put in place of its own."""
    changed = dict(body)
    for fault in faults:
        if fault.kind == "members":
            changed |= fault.members
    return changed


def error_response(
    error: TokenError,
    request: Request,
    *,
    authority: str,
    now: float,
    members: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """A refusal of the token endpoint (RFC 6749, section 5.2) as Entra words it, `members` apart."""
    correlation_id = request.headers.get("client-request-id") or request.state.correlation_id
    body = error.body(authority=authority, correlation_id=correlation_id, now=now)
    return JSONResponse({**body, **(members or {})}, error.status, headers=NOT_STORED)


NOT_STORED = {"cache-control": "no-store, no-cache", "pragma": "no-cache"}


class _FaultyResponse(Response):
    """An answer no correct server would give."""

    def __init__(self, fault: Fault, wire: Wire) -> None:
        self._fault = fault
        self._wire = wire
        super().__init__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault
        if fault.kind == "hang":
            await _until_disconnected(receive)
        elif fault.kind == "down":
            self._wire.abort(scope)
            await _until_disconnected(receive)
        elif fault.kind == "truncated":
            await _start(send, 200, [(b"content-length", b"4096")])
            body = b'{"token_type":"Bearer","expires_in":3599,'
            await send({"type": "http.response.body", "body": body, "more_body": True})
            self._wire.abort(scope)
            await _until_disconnected(receive)
        elif fault.kind == "huge":
            await self._huge(send)
        elif fault.kind == "drip":
            await self._drip(scope, receive)
        elif fault.kind == "heads":
            await self._heads(scope, receive)
        else:
            await _plain(fault)(scope, receive, send)

    async def _drip(self, scope: Scope, receive: Receive) -> None:
        start, drop = _DRIPS[self._fault.part]
        self._wire.write(scope, start)
        left = asyncio.ensure_future(_until_disconnected(receive))
        while not (await asyncio.wait({left}, timeout=self._fault.seconds))[0]:
            self._wire.write(scope, drop)

    async def _heads(self, scope: Scope, receive: Receive) -> None:
        self._wire.write(scope, b"HTTP/1.1 200 OK\r\n")
        for number in range(self._fault.lines):
            name = b"x-filler-%d: " % number
            self._wire.write(scope, name + b"x" * (self._fault.width - len(name)) + b"\r\n")
            # The client may leave at any line; the loop has to see it.
            await asyncio.sleep(0)
        self._wire.write(scope, b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        await _until_disconnected(receive)

    async def _huge(self, send: Send) -> None:
        await _start(send, 200, [])
        await send({"type": "http.response.body", "body": b'{"access_token":"', "more_body": True})
        for _ in range(self._fault.megabytes * 1_048_576 // len(_CHUNK)):
            await send({"type": "http.response.body", "body": _CHUNK, "more_body": True})
        await send({"type": "http.response.body", "body": b'"}'})


def _plain(fault: Fault) -> Response:
    if fault.kind == "redirect":
        return Response(status_code=307, headers={"location": fault.location})
    if fault.kind == "malformed":
        return Response('{"token_type":"Bearer","access_token":', media_type="application/json")
    if fault.kind == "answer":
        body = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
        return Response(body, fault.status, dict(fault.headers), "application/json")
    headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    unavailable = json.dumps({"error": "temporarily_unavailable"})
    return Response(unavailable, fault.status, headers, "application/json")


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [(b"content-type", b"application/json; charset=utf-8"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
