"""What an injected fault looks like on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from authz.emulator.errors import TokenError
from authz.emulator.faults import Fault

Abort = Callable[[Scope], None]
"""Cuts the connection a request came on."""

_CHUNK = b"x" * 65_536


async def spoil(
    faults: tuple[Fault, ...], request: Request, *, authority: str, now: float, abort: Abort
) -> Response | None:
    """Wait as the latencies say; then the faulty answer, or None to answer as usual."""
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
            return error_response(error, request, authority=authority, now=now)
        else:
            return _FaultyResponse(fault, abort)
    return None


def error_response(
    error: TokenError, request: Request, *, authority: str, now: float
) -> JSONResponse:
    """A refusal of the token endpoint (RFC 6749, section 5.2) as Entra words it."""
    correlation_id = request.headers.get("client-request-id") or request.state.correlation_id
    body = error.body(authority=authority, correlation_id=correlation_id, now=now)
    return JSONResponse(body, error.status, headers=NOT_STORED)


NOT_STORED = {"cache-control": "no-store, no-cache", "pragma": "no-cache"}


class _FaultyResponse(Response):
    """An answer no correct server would give."""

    def __init__(self, fault: Fault, abort: Abort) -> None:
        self._fault = fault
        self._abort = abort
        super().__init__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault
        if fault.kind == "hang":
            await _until_disconnected(receive)
        elif fault.kind == "down":
            self._abort(scope)
            await _until_disconnected(receive)
        elif fault.kind == "truncated":
            await _start(send, 200, [(b"content-length", b"4096")])
            body = b'{"token_type":"Bearer","expires_in":3599,'
            await send({"type": "http.response.body", "body": body, "more_body": True})
            self._abort(scope)
            await _until_disconnected(receive)
        elif fault.kind == "huge":
            await self._huge(send)
        else:
            await _plain(fault)(scope, receive, send)

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
    headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    body = json.dumps({"error": "temporarily_unavailable"})
    return Response(body, fault.status, headers, "application/json")


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [(b"content-type", b"application/json; charset=utf-8"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
