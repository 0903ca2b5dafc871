"""What Envoy answers by itself: when nobody decides, when a destination fails, and to some methods.

Such an answer looks like one of the service's: a problem body with a `reason` (docs/errors.md). Envoy's own
has no body, and the same status whether the service or the destination is away.
"""

import json
from collections.abc import Mapping
from typing import Final

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    AndFilter,
    ExtensionFilter,
    HeaderFilter,
    ResponseFlagFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    Route,
    RouteMatch,
)
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Struct

from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.core.request import Direction
from authz.doors.problem import FACES, INVALID_ARGUMENT, describe
from authz.envoy_config.credentials import REFUSAL_HEADER
from authz.envoy_config.document import packed

REASON_HEADER: Final = "x-authz-reason"
"""Header of these answers, from which the access log has the reason. No other answer keeps one."""

_REQUEST_ID: Final = "%REQ(X-REQUEST-ID)%"

_DENIED: Final = "ext_authz_denied"
_NO_DECISION: Final = "ext_authz_error"
_UNUSABLE_DECISION: Final = "ext_authz_invalid"
_NO_TOKEN: Final = "failed_to_inject_credential"
"""Envoy's `response_code_details`. An answer of the service or of a destination never has one of these."""

_NOT_SENT: Final = ("UF", "UH", "DF", "NC")
"""Envoy's response flags where nothing of the request has left: 503, which says when to try again."""
_NO_TLS: Final = (
    "upstream.transport_failure_reason.contains('TLS') || "
    "response.code_details == 'upstream_reset_before_response_started{remote_connection_failure}'"
)
"""The first: TLS failed, and Envoy says for example `TLS_error:|…:WRONG_VERSION_NUMBER:TLS_error_end`.
The second: the other side closed it during the handshake. One that was refused has a reason of its own."""
_BROKEN: Final = ("UC", "UR", "LR", "UPE")
"""Those where the request was sent, and may have had its effect: 502, which gives no such advice."""

TLS_FAILED: Final = (
    "TLS to the host failed, and nothing was sent: either it has no TLS on this port, or its certificate is not trusted "
    "or is for another name. For plain HTTP the operator writes http:// before the host in the route's hosts; an authority of "
    "one's own is named by authz envoy --upstream-ca."
)
"""What the problem body says of a destination with which TLS failed. The exact reason is in Envoy's log."""

_GRPC: Final = r"application/grpc(\+.*)?"
"""Content types of gRPC. That of gRPC-Web is answered as HTTP."""

_DENIAL: Final = ": ".join(
    f"%DYNAMIC_METADATA(envoy.filters.http.ext_authz:{name})%" for name in ("reason", "detail")
)
"""What the service says of a denial beside the body, which is JSON."""

_REFLECTING: Final = "(?i)(trace|track|debug)"
"""Methods whose answer shows the request: TRACE (RFC 9110 section 9.3.8) and what servers have beside it."""

_METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""What a refusal of a method names as allowed (RFC 9110 section 15.5.6); others pass as well."""


def local_replies(direction: Direction, *, rules: bool, pushed: bool = False) -> LocalReplyConfig:
    """Return how Envoy's own answers look.

    Args:
        direction: Which listener's.
        rules: Whether some route has rules.
        pushed: Whether Envoy holds the tokens of some destinations.
    """
    away, full = (
        (Reason.APP_UNAVAILABLE, Reason.APP_UNAVAILABLE)
        if direction is Direction.INBOUND
        else (Reason.DOWNSTREAM_UNAVAILABLE, Reason.DOWNSTREAM_BUSY)
    )
    mappers = [
        *([_ambiguous_by_grpc()] if rules else []),
        _denial_by_grpc(),
        _mapper(_by_details(_NO_DECISION), Reason.AUTHZ_UNAVAILABLE, 503),
        _mapper(_by_details(_UNUSABLE_DECISION), Reason.INTERNAL, 500),
    ]
    if pushed:
        # Envoy says 401, and the agent would take its own credential for bad. Waiting is what helps, but not
        # where Entra refuses what the service proves itself with, or what the route asks for; nor where the
        # service's configuration has no such route any more, or not for this workload.
        mappers += [
            _mapper(
                _by_expression(
                    f"response.code_details == '{_NO_TOKEN}' && '{REFUSAL_HEADER}' in request.headers && "
                    f"request.headers['{REFUSAL_HEADER}'] == '{reason.value}'"
                ),
                reason,
                FACES[reason].http_status,
            )
            for reason in (
                Reason.EXCHANGE_MISCONFIGURED,
                Reason.UNKNOWN_ROUTE,
                Reason.WORKLOAD_NOT_ALLOWED,
            )
        ]
        mappers.append(_mapper(_by_details(_NO_TOKEN), Reason.EXCHANGE_UNAVAILABLE, 503))
    if direction is Direction.EGRESS:
        failed = AccessLogFilter(
            and_filter=AndFilter(filters=[_by_flags("UF"), _by_expression(_NO_TLS)])
        )
        mappers.append(_mapper(failed, away, 503, detail=TLS_FAILED))
    mappers += [
        _mapper(_by_flags("UO"), full, 503),
        _mapper(_by_flags(*_NOT_SENT), away, 503),
        _mapper(_by_flags(*_BROKEN), away, 502),
        # Its own limit for a health check, or silence.
        _mapper(_by_expression("response.code == 504"), away, 504),
    ]
    return LocalReplyConfig(mappers=mappers)


def unknown_destination(match: RouteMatch) -> Route:
    """Return the route that leads nowhere."""
    return _direct("not-configured", match, Reason.UNKNOWN_ROUTE)


def refused_tunnel(match: RouteMatch) -> Route:
    """Return the route of connections that may not be."""
    return _direct("refused-tunnel", match, Reason.TUNNEL_REFUSED)


def refused_methods() -> Route:
    """Return the route of the methods that nobody may use: their answer would show a token to the agent."""
    matched = StringMatcher(safe_regex=RegexMatcher(regex=_REFLECTING))
    return _direct(
        "refused-method",
        RouteMatch(prefix="/", headers=[HeaderMatcher(name=":method", string_match=matched)]),
        Reason.METHOD_NOT_ALLOWED,
        allow=_METHODS,
    )


def _direct(name: str, match: RouteMatch, reason: Reason, **headers: str) -> Route:
    problem = describe(Deny(reason))
    return Route(
        name=name,
        match=match,
        direct_response=DirectResponseAction(
            status=problem.http_status, body=DataSource(inline_string=problem.body)
        ),
        response_headers_to_add=_headers(dict(problem.headers) | headers),
    )


def _mapper(
    when: AccessLogFilter, reason: Reason, status: int, *, detail: str | None = None
) -> ResponseMapper:
    problem = describe(Deny(reason), request_id=_REQUEST_ID, http_status=status, detail=detail)
    headers = {**dict(problem.headers), REASON_HEADER: reason.value}
    content_type = headers.pop("content-type")
    return ResponseMapper(
        filter=when,
        status_code=status,
        body_format_override=SubstitutionFormatString(
            # Not as text: a request's identifier may be anything, and here Envoy writes it as JSON.
            json_format=Struct.from_dict(json.loads(problem.body)),
            content_type=content_type,
        ),
        headers_to_add=_headers(headers),
    )


def _ambiguous_by_grpc() -> ResponseMapper:
    """Return the same where rules refuse by 400: Envoy makes INTERNAL of that, which blames the server."""
    found = _denial_by_grpc()
    assert found.filter is not None
    assert found.filter.and_filter is not None
    found.filter.and_filter.filters.append(_by_expression("response.code == 400"))
    found.headers_to_add = _headers({"grpc-status": str(INVALID_ARGUMENT)})
    return found


def _denial_by_grpc() -> ResponseMapper:
    """Return how a denial looks to a client of gRPC, which shows its user the body as text.

    Envoy makes `grpc-status` of the status, and `grpc-message` of the body.
    """
    grpc = HeaderMatcher(
        name="content-type", string_match=StringMatcher(safe_regex=RegexMatcher(regex=_GRPC))
    )
    header = AccessLogFilter(header_filter=HeaderFilter(header=grpc))
    return ResponseMapper(
        filter=AccessLogFilter(and_filter=AndFilter(filters=[header, _by_details(_DENIED)])),
        body_format_override=SubstitutionFormatString(
            text_format_source=DataSource(inline_string=_DENIAL)
        ),
    )


def _by_details(details: str) -> AccessLogFilter:
    return _by_expression(f"response.code_details == '{details}'")


def _by_expression(expression: str) -> AccessLogFilter:
    return AccessLogFilter(
        extension_filter=ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel",
            typed_config=packed(ExpressionFilter(expression=expression)),
        )
    )


def _by_flags(*flags: str) -> AccessLogFilter:
    return AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=list(flags)))


def _headers(headers: Mapping[str, str]) -> list[HeaderValueOption]:
    return [
        HeaderValueOption(
            header=HeaderValue(key=name, value=value),
            append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for name, value in headers.items()
    ]
