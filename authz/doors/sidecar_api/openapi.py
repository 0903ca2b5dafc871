"""The API's OpenAPI document, `/openapi/v1.json`: every endpoint, parameter and status there is."""

from collections.abc import Collection
from typing import Any, Final

from authz import __version__
from authz.config.sections.api import METHODS
from authz.core import grammar
from authz.core.errors import Reason
from authz.doors.problem import FACES
from authz.doors.sidecar_api.parameters import ACQUIRE, OPTIONS, SCOPES, UNSUPPORTED

_GUID: Final = {
    # Or nothing, which counts as absent.
    "type": "string", "pattern": f"^(?:{grammar.GUID})?$",
}  # fmt: skip
_TEXT: Final = {"type": "string"}
_PRINTABLE: Final = {"type": "string", "pattern": f"^{grammar.HEADER_VALUE}$"}
_SWITCH: Final = {"anyOf": [{"type": "boolean"}, {"const": ""}]}
_METHOD: Final = {"type": "string", "pattern": f"^(?:{'|'.join(METHODS)})?$"}
_PARAMETERS: Final[tuple[tuple[str, dict[str, Any], str], ...]] = (
    ("AgentIdentity", _GUID, "Client id of the agent identity that is to act."),
    ("AgentUsername", {"type": "string", "pattern": f"^(?:{grammar.USER_PRINCIPAL_NAME})?$"},
     "The agent's user account by user principal name. Needs AgentIdentity."),
    ("AgentUserId", _GUID, "The agent's user account by object id. Needs AgentIdentity."),
    (SCOPES, {"type": "array", "items": {"type": "string", "pattern": f"^(?:{grammar.SCOPE}(?: {grammar.SCOPE})*)?$"}},
     "Scopes instead of the configured ones. May be repeated."),
    (f"{OPTIONS}RequestAppToken", _SWITCH, "Whether to act as application, without a user."),
    (f"{ACQUIRE}Tenant", _GUID, "Only the tenant of the API's client."),
    (f"{ACQUIRE}Claims", _TEXT, "JSON object: the OpenID Connect claims parameter."),
    (f"{ACQUIRE}ForceRefresh", _SWITCH, "Whether a token from the cache will not do."),
    (f"{ACQUIRE}CorrelationId", _TEXT, "Has no effect: each exchange has an id of its own."),
    (f"{OPTIONS}BaseUrl", _TEXT, "Has no effect: an API is where it is configured to be."),
    (f"{OPTIONS}RelativePath", _TEXT, "Path below the API's base URL, perhaps with a query."),
    (f"{OPTIONS}HttpMethod", _METHOD, "Method of the call."),
    (f"{OPTIONS}AcceptHeader", _PRINTABLE, "Accept header of the call."),
    (f"{OPTIONS}ContentType", _PRINTABLE, "Content type of the call."),
    *((name, _TEXT, "Refused with a value: it names another identity or another kind of token.")
      for name in UNSUPPORTED),
)  # fmt: skip
_NOTE: Final = (
    "Parameter names are case-insensitive; a parameter without a value counts as absent, and of several values "
    "the last one counts. `optionsOverride.ExtraHeaderParameters.<Name>` and "
    "`optionsOverride.ExtraQueryParameters.<Name>` add a header or a query parameter to the call."
)
_ISSUING: Final = (
    Reason.BAD_PARAMETER, Reason.UNKNOWN_API, Reason.MISSING_TOKEN, Reason.INTERACTION_REQUIRED,
    Reason.CONSENT_REQUIRED, Reason.AGENT_NOT_ALLOWED, Reason.OVERRIDE_NOT_ALLOWED,
    Reason.WORKLOAD_NOT_ALLOWED, Reason.EXCHANGE_UNAVAILABLE, Reason.EXCHANGE_THROTTLED,
    Reason.EXCHANGE_MISCONFIGURED, Reason.DEADLINE_EXCEEDED, Reason.INTERNAL,
)  # fmt: skip
_VERIFYING: Final = (
    Reason.MALFORMED_REQUEST, Reason.MISSING_TOKEN, Reason.INVALID_TOKEN, Reason.INSUFFICIENT_SCOPE,
    Reason.ACTOR_NOT_ALLOWED, Reason.SUBJECT_NOT_ALLOWED, Reason.STEP_UP_REQUIRED,
    Reason.KEYS_UNAVAILABLE, Reason.DEADLINE_EXCEEDED, Reason.INTERNAL,
)  # fmt: skip
_ACTING: Final = (Reason.EXCHANGE_REJECTED,)
_CALLING: Final = (
    Reason.REQUEST_TOO_LARGE, Reason.DOWNSTREAM_UNAVAILABLE, Reason.DOWNSTREAM_BUSY,
)  # fmt: skip
_FORBIDDEN: Final = "403"


def document(apis: Collection[str]) -> dict[str, Any]:
    """Return the document.

    Args:
        apis: Names of the APIs that are configured.
    """
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "authz token API",
            "version": __version__,
            "description": "The HTTP API of the Microsoft Entra SDK sidecar.",
        },
        "paths": {
            "/healthz": {"get": _health()},
            "/Validate": {
                "get": _operation(
                    "ValidateAuthorizationHeader",
                    "Validate the caller's token and return its claims.",
                    _schema("ValidateAuthorizationHeaderResult"),
                    _VERIFYING,
                    known=True,
                )
            },
            **_token_paths(apis, "AuthorizationHeader", ("get",), "AuthorizationHeaderResult", ()),
            **_token_paths(
                apis,
                "DownstreamApi",
                ("post", "get", "put", "patch", "delete"),
                "DownstreamApiResult",
                _CALLING,
            ),
            "/openapi/v1.json": {
                "get": {
                    "operationId": "OpenApi",
                    "summary": "This document.",
                    "responses": {
                        "200": {
                            "description": "OK",
                            "content": {"application/json": {"schema": {"type": "object"}}},
                        },
                        _FORBIDDEN: _turned_away(),
                    },
                }
            },
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
            "schemas": _SCHEMAS,
        },
    }


def _token_paths(
    apis: Collection[str],
    name: str,
    methods: tuple[str, ...],
    result: str,
    reasons: tuple[Reason, ...],
) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for kind, known in (("", True), ("Unauthenticated", False)):
        caller = "the caller's token" if known else "no token of the caller"
        verb = "Call an API" if reasons else "Get an Authorization header for an API"
        faults = (*_ISSUING, *reasons, *((*_VERIFYING, *_ACTING) if known else ()))
        operations = {}
        for method in methods:
            operation = _operation(
                f"{name}{kind}" + ("" if method == methods[0] else f"_{method}"),
                f"{verb}, with {caller}.",
                _schema(result),
                faults,
                known=known,
                apis=apis,
            )
            if reasons and method in ("post", "put", "patch"):
                operation["requestBody"] = {
                    "description": "Sent to the API as it is, of whatever media type.",
                    # What generators of clients can make something of; other media types are sent as well.
                    "content": {"application/json": {"schema": {}}},
                }
            operations[method] = operation
        paths[f"/{name}{kind}/{{apiName}}"] = operations
    return paths


def _operation(
    name: str,
    summary: str,
    result: dict[str, Any],
    reasons: tuple[Reason, ...],
    *,
    known: bool,
    apis: Collection[str] = (),
) -> dict[str, Any]:
    by_status: dict[int, list[Reason]] = {}
    for reason in dict.fromkeys((*reasons, Reason.CALLER_NOT_ALLOWED)):
        by_status.setdefault(FACES[reason].http_status, []).append(reason)
    responses: dict[str, Any] = {
        "200": {"description": "OK", "content": {"application/json": {"schema": result}}}
    }
    for status, found in sorted(by_status.items()):
        responses[str(status)] = {
            "description": "; ".join(FACES[reason].title for reason in found),
            "content": {"application/problem+json": {"schema": _schema("ProblemDetails")}},
        }
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": responses}
    if apis:
        operation["description"] = _NOTE
        operation["parameters"] = [
            {
                "name": "apiName",
                "in": "path",
                "required": True,
                "description": "Name of an API: one that is configured, or with scopes any where the "
                "configuration lets requests name any resource.",
                "schema": {"type": "string", "minLength": 1, "examples": sorted(apis)},
            },
            *(
                {"name": name, "in": "query", "description": text, "schema": schema}
                for name, schema, text in _PARAMETERS
            ),
        ]
    if known:
        operation["security"] = [{"bearer": []}]
    return operation


def _health() -> dict[str, Any]:
    def state(text: str) -> dict[str, Any]:
        return {"description": text, "content": {"text/plain": {"schema": {"const": text}}}}

    return {
        "operationId": "Health",
        "summary": "Whether tokens can be verified and asked for.",
        "responses": {"200": state("Healthy"), "503": state("Unhealthy")},
    }


def _turned_away() -> dict[str, Any]:
    return {
        "description": FACES[Reason.CALLER_NOT_ALLOWED].title,
        "content": {"application/problem+json": {"schema": _schema("ProblemDetails")}},
    }


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_SCHEMAS: Final[dict[str, Any]] = {
    "ValidateAuthorizationHeaderResult": {
        "type": "object",
        "required": ["protocol", "token", "claims"],
        "properties": {
            "protocol": {"const": "Bearer"},
            "token": _TEXT,
            "claims": {"type": "object"},
        },
    },
    "AuthorizationHeaderResult": {
        "type": "object",
        "required": ["authorizationHeader"],
        "properties": {"authorizationHeader": {"type": "string", "pattern": "^Bearer "}},
    },
    "DownstreamApiResult": {
        "type": "object",
        "required": ["statusCode", "headers", "content"],
        "properties": {
            "statusCode": {"type": "integer"},
            "headers": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": _TEXT},
            },
            "content": {"type": ["string", "null"]},
            "contentEncoding": {
                "const": "base64",
                "description": "There when the content is no text: then it is base64.",
            },
        },
    },
    "ProblemDetails": {
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail", "reason", "message", "error"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "reason": {"enum": [reason.value for reason in Reason]},
            "message": {"type": "string", "description": "What SDKs of APIs print."},
            "error": {
                "type": "object",
                "description": "The same where other SDKs look for it.",
                "required": ["type", "code", "message"],
                "properties": {"type": _TEXT, "code": _TEXT, "message": _TEXT},
            },
            "retry_after": {"type": "integer", "description": "Seconds."},
            "claims": {"type": "string", "description": "Claims challenge of Entra, JSON."},
            "accepted": {"type": "array", "items": _TEXT},
            "request_id": _TEXT,
        },
    },
}
