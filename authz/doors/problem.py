"""How each `Reason` looks on the wire: status codes, challenge, problem body. The only such table.

The body is a problem (RFC 9457) with the members that SDKs of APIs print (section 3.2 allows further ones):
`error.message` (OpenAI's, Azure's; Microsoft Graph's wants `error.code` too) and `message` (Anthropic's).
"""

import base64
import re
from collections.abc import Collection
from dataclasses import dataclass
from math import ceil
from typing import Final

import orjson

from authz.core.baggage import MEMBER
from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.core.policy import LONGEST_AUTHORITY
from authz.core.subject import PLACEHOLDER, SubjectSource

OK: Final = 0
INVALID_ARGUMENT: Final = 3
PERMISSION_DENIED: Final = 7
NOT_FOUND: Final = 5
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16
"""gRPC status codes (google.rpc.Code); any but OK makes Envoy refuse."""

_DENIED: Final = -32003
"""Code of JSON-RPC, of those that are the server's own (JSON-RPC 2.0, section 5.1), and none of MCP's."""
SERVICE_UNAVAILABLE: Final = 503
DEFAULT_RETRY_AFTER: Final = 1.0
"""Seconds, where neither Entra nor we know better: every 503 says when to try again."""


@dataclass(frozen=True, slots=True)
class Face:
    """What a caller sees of a reason.

    Attributes:
        http_status: Status of the denial.
        rpc_code: Code of the CheckResponse.
        title: One sentence, the same for each occurrence (RFC 9457).
        detail: What the caller can do about it.
        challenge: `error` of the Bearer challenge (RFC 6750 section 3.1); empty text for a bare
            challenge; None for no challenge at all.
    """

    http_status: int
    rpc_code: int
    title: str
    detail: str
    challenge: str | None = None


FACES: Final[dict[Reason, Face]] = {
    Reason.MALFORMED_REQUEST: Face(
        400, INVALID_ARGUMENT, "Malformed request",
        "Send exactly one Authorization header of the form 'Bearer <token>'.", "invalid_request",
    ),
    Reason.MISSING_TOKEN: Face(
        401, UNAUTHENTICATED, "Missing token",
        "Send a bearer token in the Authorization header.", "",
    ),
    Reason.INVALID_TOKEN: Face(
        401, UNAUTHENTICATED, "Invalid token",
        "The token is expired, malformed, or was not issued for this service. Get a new one.",
        "invalid_token",
    ),
    Reason.TOKEN_TOO_LARGE: Face(
        431, INVALID_ARGUMENT, "Token too large",
        "The token is longer than is accepted. A new one will not be shorter: tell the operator, or have it issued "
        "with fewer roles or groups.",
    ),
    Reason.INTERACTION_REQUIRED: Face(
        401, UNAUTHENTICATED, "Interaction required",
        "The user must sign in again with the claims of the challenge.", "insufficient_claims",
    ),
    Reason.STEP_UP_REQUIRED: Face(
        401, UNAUTHENTICATED, "Step-up required",
        "The user must sign in again with the claims of the challenge.", "insufficient_claims",
    ),
    Reason.CONSENT_REQUIRED: Face(
        401, UNAUTHENTICATED, "Consent required",
        "The user or an administrator must consent to what the agent asks for.",
        "insufficient_claims",
    ),
    Reason.EXCHANGE_REJECTED: Face(
        401, UNAUTHENTICATED, "Token not accepted for exchange",
        "Entra did not accept the user's token. Sign in again.", "invalid_token",
    ),
    Reason.AMBIGUOUS_SUBJECT: Face(
        400, INVALID_ARGUMENT, "Ambiguous subject",
        "The request refers to a user twice, or in an unknown form. Send what was received, unchanged.",
        "invalid_request",
    ),
    Reason.UNKNOWN_SUBJECT: Face(
        401, UNAUTHENTICATED, "Unknown subject",
        "The reference to the user has ended or is not known. The user must call again.",
        "invalid_token",
    ),
    Reason.FOREIGN_SUBJECT: Face(
        403, PERMISSION_DENIED, "Foreign subject",
        "The reference to the user was given to another workload, or for another agent.",
    ),
    Reason.UNKNOWN_ROUTE: Face(
        403, PERMISSION_DENIED, "Unknown route",
        "No route is configured for this destination, or Envoy's configuration is older than authz's. An operator "
        "must add the route, or render Envoy's configuration again.",
    ),
    Reason.TUNNEL_REFUSED: Face(
        403, PERMISSION_DENIED, "Tunnel refused",
        "In TLS of the app's own no token can be replaced. Call http:// instead, which goes out over TLS; or an "
        "operator lets Envoy end the app's TLS, or allows tunnels to this destination.",
    ),
    Reason.RULE_DENIED: Face(
        403, PERMISSION_DENIED, "Denied by rule",
        "The rules of this route do not allow this request: its method and path, or the tool that it calls. An operator "
        "must allow it.",
    ),
    Reason.AMBIGUOUS_REQUEST: Face(
        400, INVALID_ARGUMENT, "Ambiguous request",
        "The request can be read in more than one way. Send the path in its plain form, without //, /../, ; or encoded "
        "letters and slashes; no header or parameter that names another method or path; to an MCP server one message "
        "of plain JSON.",
    ),
    Reason.FOREIGN_SESSION: Face(
        # A server answers so for a session that it does not have, and clients must open another one (MCP).
        404, NOT_FOUND, "Session not found",
        "No session of this caller has this id. Open a new one.",
    ),
    Reason.INSUFFICIENT_SCOPE: Face(
        403, PERMISSION_DENIED, "Insufficient scope",
        "The token holds none of the accepted scopes or roles.", "insufficient_scope",
    ),
    Reason.ACTOR_NOT_ALLOWED: Face(
        403, PERMISSION_DENIED, "Actor not allowed",
        "The calling application is not among those that may call.",
    ),
    Reason.SUBJECT_NOT_ALLOWED: Face(
        403, PERMISSION_DENIED, "Subject not allowed",
        "This route does not serve this kind of identity (user, agent's user account, application or agent identity).",
    ),
    Reason.WORKLOAD_NOT_ALLOWED: Face(
        403, PERMISSION_DENIED, "Workload not allowed",
        "This workload may not act as the agent of this route.",
    ),
    Reason.AGENT_NOT_ALLOWED: Face(
        403, PERMISSION_DENIED, "Agent not allowed",
        "The configuration does not let callers name this agent identity or user account.",
    ),
    Reason.OVERRIDE_NOT_ALLOWED: Face(
        403, PERMISSION_DENIED, "Override not allowed",
        "The configuration does not let requests to this endpoint change what is configured.",
    ),
    Reason.CALLER_NOT_ALLOWED: Face(
        403, PERMISSION_DENIED, "Caller not allowed",
        "Programs of the same machine may call, by a name that only this machine has.",
    ),
    Reason.BAD_PARAMETER: Face(
        400, INVALID_ARGUMENT, "Bad parameter", "A parameter is not what it should be.",
    ),
    Reason.UNKNOWN_API: Face(
        404, NOT_FOUND, "Unknown API", "No API of this name is configured.",
    ),
    Reason.METHOD_NOT_ALLOWED: Face(
        405, INVALID_ARGUMENT, "Method not allowed",
        "The answer to this method can show the request's token. Use another method.",
    ),
    Reason.REQUEST_TOO_LARGE: Face(
        413, INVALID_ARGUMENT, "Request too large", "The body is larger than the service takes.",
    ),
    Reason.DOWNSTREAM_BUSY: Face(
        503, UNAVAILABLE, "Too many calls to APIs", "Try again after the stated time.",
    ),
    Reason.DOWNSTREAM_UNAVAILABLE: Face(
        502, UNAVAILABLE, "API unavailable",
        "The API could not be reached, took too long, or answered with more than the service takes.",
    ),
    Reason.APP_UNAVAILABLE: Face(
        502, UNAVAILABLE, "Agent unavailable",
        "The agent could not be reached, or did not answer.",
    ),
    Reason.AUTHZ_UNAVAILABLE: Face(
        503, UNAVAILABLE, "Authorization service unavailable",
        "Nobody has decided on this request, and nothing was sent. Try again after the stated time.",
    ),
    Reason.KEYS_UNAVAILABLE: Face(
        503, UNAVAILABLE, "Signing keys unavailable",
        "The issuer's signing keys could not be fetched yet. Try again.",
    ),
    Reason.EXCHANGE_UNAVAILABLE: Face(
        503, UNAVAILABLE, "Entra unavailable",
        "The token service could not be reached or failed. Try again.",
    ),
    Reason.EXCHANGE_THROTTLED: Face(
        503, UNAVAILABLE, "Entra asks to slow down",
        "The token service throttles these requests. Try again after the stated time.",
    ),
    Reason.EXCHANGE_MISCONFIGURED: Face(
        500, INTERNAL, "Exchange misconfigured",
        "Entra refused the agent's own registration, credential or permissions. Tell the operator.",
    ),
    Reason.DEADLINE_EXCEEDED: Face(
        503, UNAVAILABLE, "Deadline exceeded",
        "The token did not arrive in time. Try again.",
    ),
    Reason.INTERNAL: Face(
        500, INTERNAL, "Internal error",
        "The authorization service failed. Tell the operator.",
    ),
}  # fmt: skip
"""Every reason has a face; a test walks over `Reason` and fails on a gap."""

_UNREAD: Final = (
    "The app could send the user's token in TLS of its own. Call http:// instead, which goes out over TLS and "
    "without Authorization: send an API key in another header, such as x-api-key. Or an operator allows tunnels "
    "to this destination, which needs an app that is given no user's token (forward: placeholder)."
)
"""Detail of `Reason.TUNNEL_REFUSED` for a destination without a token: ending TLS would keep no key."""

_NO_REFERENCE: Final = (
    "This destination takes no user's token: send on what the agent received of its user, unchanged ({}). If that is a "
    "token, an operator lets the agent receive the reference (forward of the inbound route)."
)
"""Detail of `Reason.MISSING_TOKEN` for a route that takes references only, by the headers that carry them."""
_NO_AUTHORIZATION: Final = "This request has no Authorization: send on what the agent received of its user, unchanged ({})."
"""The same, where there is not even a token that the route would not take."""
_CARRIED_BY: Final = {
    SubjectSource.PLACEHOLDER: f"Authorization: Bearer {PLACEHOLDER}…",
    SubjectSource.HANDLE: f"baggage: {MEMBER}=…",
}

NO_USER_HERE: Final = (
    "This endpoint takes no user's token: call /AuthorizationHeader/… (or /DownstreamApi/…) with it, or set "
    "optionsOverride.RequestAppToken=true."
)
"""Detail of `Reason.MISSING_TOKEN` at an endpoint of the HTTP API for callers that send none."""

OF_ANOTHER_AGENT: Final = (
    "The user account is of another agent. Name the agent whose account it is."
)
"""Detail of `Reason.AGENT_NOT_ALLOWED` for an account that is configured for another agent."""

NOT_ENTRAS: Final = (
    "Entra knows no such agent identity of this blueprint, or the user account is of another agent, or of none. Check the ids that the "
    "request names; the log has Entra's answer."
)
"""Detail of `Reason.AGENT_NOT_ALLOWED` where the configuration lets callers name the agent."""

_DESTINATION: Final = "this destination"
_ABOUT_DESTINATIONS: Final = frozenset({Reason.UNKNOWN_ROUTE, Reason.TUNNEL_REFUSED})
_AUTHORITY: Final = re.compile(rf"[A-Za-z0-9._*:\[\]-]{{1,{LONGEST_AUTHORITY}}}", re.ASCII)
"""Host and port as they are written (RFC 3986 section 3.2.2), and no longer than they may be."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A denial ready for the wire: status codes, headers and body (RFC 9457)."""

    http_status: int
    rpc_code: int
    headers: tuple[tuple[str, str], ...]
    body: str


def detail_of(
    reason: Reason,
    authority: str,
    *,
    has_token: bool = True,
    sources: Collection[SubjectSource] = (),
    has_authorization: bool = True,
) -> str:
    """Return the detail of a denial, which names the destination where the reason is about that.

    Args:
        reason: Why.
        authority: Host and port that the request asked for, any text. What is none is not repeated.
        has_token: Whether the destination's route has a token, as far as it is known.
        sources: Where that route finds its user.
        has_authorization: Whether the request has an `Authorization` value.
    """
    if reason is Reason.MISSING_TOKEN and sources and SubjectSource.BEARER not in sources:
        text = _NO_REFERENCE if has_authorization else _NO_AUTHORIZATION
        return text.format(
            " or ".join(_CARRIED_BY[source] for source in sources if source in _CARRIED_BY)
        )
    unread = reason is Reason.TUNNEL_REFUSED and not has_token
    detail = _UNREAD if unread else FACES[reason].detail
    if reason not in _ABOUT_DESTINATIONS or _AUTHORITY.fullmatch(authority) is None:
        return detail
    return detail.replace(_DESTINATION, authority)


def describe(
    denial: Deny,
    *,
    request_id: str = "",
    http_status: int | None = None,
    detail: str | None = None,
    message_id: str | int | None = None,
) -> Problem:
    """Render a denial. Its claims challenge is passed on in header and body.

    Args:
        denial: What to tell.
        request_id: For the caller to quote, if there is one.
        http_status: Status in place of the reason's own.
        detail: Text in place of the reason's own. Never a token.
        message_id: The `id` of the JSON-RPC request that is denied; None for any other. Clients of MCP
            show an error of JSON-RPC only, so the problem is the `data` of one.
    """
    face, reason = FACES[denial.reason], denial.reason.value
    kind, detail = f"urn:authz:reason:{reason}", detail or face.detail
    message = f"{face.title} ({reason}, authz): {detail}"
    status = http_status or face.http_status
    headers = [("content-type", "application/problem+json"), ("cache-control", "no-store")]
    body: dict[str, object] = {
        "type": kind,
        "title": face.title,
        "status": status,
        "detail": detail,
        "reason": reason,
        "message": message,
        "error": {"type": kind, "code": reason, "message": message},
    }
    if face.challenge is not None:
        headers.append(("www-authenticate", _challenge(denial, face)))
    retry_after = denial.retry_after
    if retry_after is None and status == SERVICE_UNAVAILABLE:
        retry_after = DEFAULT_RETRY_AFTER
    if retry_after is not None:
        seconds = max(1, ceil(retry_after))
        headers.append(("retry-after", str(seconds)))
        body["retry_after"] = seconds
    if denial.accepted:
        body["accepted"] = list(denial.accepted)
    if denial.claims is not None:
        body["claims"] = denial.claims
    if request_id:
        body["request_id"] = request_id
    if message_id is not None:
        headers[0] = ("content-type", "application/json")
        failure = {"code": _DENIED, "message": message, "data": body}
        body = {"jsonrpc": "2.0", "id": message_id, "error": failure}
    return Problem(status, face.rpc_code, tuple(headers), orjson.dumps(body).decode())


def _challenge(denial: Deny, face: Face) -> str:
    """Render `WWW-Authenticate`.

    RFC 6750 section 3, and section 5.1 of RFC 9728; `claims` as the Entra page "claims-challenge".
    """
    parts = ['realm="authz"']
    error = face.challenge
    if error == "insufficient_claims" and denial.claims is None:
        # Without a challenge to answer, the standard code is the only one a client understands.
        error = "invalid_token"
    if error:
        parts += [f'error="{error}"', f'error_description="{face.title}"']
    if denial.metadata_url is not None:
        parts.append(f'resource_metadata="{denial.metadata_url}"')
    if denial.ask_for:
        # Clients hand this to Entra, which takes a name alone for a permission of Microsoft Graph.
        parts.append(f'scope="{" ".join(map(_quotable, denial.ask_for))}"')
    if denial.claims is not None:
        parts.append(f'claims="{base64.b64encode(denial.claims.encode()).decode()}"')
    return "Bearer " + ", ".join(parts)


def _quotable(text: str) -> str:
    """Keep what RFC 6749 appendix A.4 allows in a scope: it comes from our own configuration."""
    return "".join(letter for letter in text if "!" <= letter <= "~" and letter not in '"\\')
