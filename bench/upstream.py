"""The upstream server: a plain ASGI application on uvicorn, as an API in Python is.

It checks what it is there for: a request to `/agent` must bring a token (else the answer is 401) which is
not the user's (else 409). Which one that is, the environment says by its digest.
"""

import hashlib
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

GUARDED: Final = "/agent"
DIGEST_VARIABLE: Final = "BENCH_USER_TOKEN_SHA256"
_BODY: Final = b'{"value":"ok"}'
_OK, _MISSING, _OF_THE_USER = 200, 401, 409

Send = Callable[[dict[str, Any]], Awaitable[None]]


def digest(authorization: bytes) -> str:
    """Return how the environment names an `Authorization` value."""
    return hashlib.sha256(authorization).hexdigest()


async def app(scope: dict[str, Any], _: object, send: Send) -> None:
    """Answer an HTTP request."""
    if scope["type"] != "http":
        return
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    authorization = next((value for name, value in headers if name == b"authorization"), b"")
    of_the_user = digest(authorization) == os.environ[DIGEST_VARIABLE]
    status = _OK
    if scope["path"] == GUARDED:
        status = _OF_THE_USER if of_the_user else _OK if authorization else _MISSING
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": _BODY})
