"""The bodies of the API's answers: JSON that nobody stores, and problems (RFC 9457)."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.responses import Response

from authz.core.decision import Deny
from authz.core.errors import AgentNotAllowed, AuthzError, BadOverride, MissingToken
from authz.doors.problem import NO_USER_HERE, NOT_ENTRAS, OF_ANOTHER_AGENT, describe

_JSON: Final = "application/json"
_NEVER_STORED: Final = {
    "cache-control": "no-cache, no-store, must-revalidate",
    "expires": "0",
    "pragma": "no-cache",
}


def answer(content: Mapping[str, Any]) -> Response:
    """Return a 200."""
    return Response(orjson.dumps(content), media_type=_JSON, headers=_NEVER_STORED)


def refusal(error: AuthzError, *, request_id: str = "") -> Response:
    """Return what an error looks like."""
    return problem(Deny.because(error), request_id=request_id, detail=detail_of(error))


def problem(denial: Deny, *, request_id: str = "", detail: str | None = None) -> Response:
    """Return what a denial looks like; `detail` in place of the reason's own."""
    found = describe(denial, request_id=request_id, detail=detail)
    return Response(found.body, found.http_status, headers=dict(found.headers))


def detail_of(error: AuthzError | None) -> str | None:
    """Return what a caller may know of an error beyond its reason, if there is something."""
    match error:
        case BadOverride():
            # It speaks of the caller's own parameters, and of nobody's token.
            return error.detail
        case AgentNotAllowed(by_entra=True):
            return NOT_ENTRAS
        case AgentNotAllowed(of_another=True):
            return OF_ANOTHER_AGENT
        case MissingToken(taken_nowhere=True):
            return NO_USER_HERE
        case _:
            return None


def payload_of(token: str) -> Any:
    """Return the claims of a token that was verified: they are there, and are an object."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
