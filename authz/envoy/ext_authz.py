"""The ext_authz door: `envoy.service.auth.v3.CheckRequest` in, `CheckResponse` out. Nothing is decided.

Decoding is total: what Envoy left out is simply empty. How a denial looks is `authz.envoy.problem`.
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from typing import Any, Final, assert_never, cast

import grpc
from google.protobuf.struct_pb2 import Struct

from authz._pb.base_pb2 import HeaderValue, HeaderValueOption
from authz._pb.external_auth_pb2 import (
    CheckRequest as WireRequest,
)
from authz._pb.external_auth_pb2 import (
    CheckResponse as WireResponse,
)
from authz._pb.external_auth_pb2 import (
    DeniedHttpResponse,
    OkHttpResponse,
)
from authz._pb.http_status_pb2 import HttpStatus
from authz._pb.status_pb2 import Status
from authz.core.decision import Allow, Deny
from authz.core.policy import EgressRoute
from authz.core.request import CheckRequest
from authz.core.secret import Secret
from authz.envoy.problem import OK, describe
from authz.ports import Check, CheckRecord, Timer

SERVICE: Final = "envoy.service.auth.v3.Authorization"
OWN_PREFIX: Final = "x-authz-"
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_OVERWRITE: Final = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD


def decode(wire: WireRequest, *, peer: str | None = None) -> CheckRequest:
    """Translate Envoy's question. `peer` is the SPIFFE id that the connection proved."""
    attributes = wire.attributes
    http = attributes.request.http
    headers = http.headers
    # Envoy joins repeated headers by a comma; the bearer grammar has none, so a pair is refused.
    authorization = headers.get("authorization")
    trace = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return CheckRequest(
        method=http.method,
        host=http.host,
        path=http.path,
        authorization=None if authorization is None else Secret(authorization),
        own_headers=tuple(name for name in headers if name.startswith(OWN_PREFIX)),
        direction=attributes.context_extensions.get("authz.direction"),
        route=attributes.context_extensions.get("authz.route"),
        peer=peer,
        source_principal=attributes.source.principal or None,
        request_id=headers.get("x-request-id", ""),
        trace_id=trace[1] if trace else "",
    )


def encode(record: CheckRecord) -> WireResponse:
    """Translate our answer. Its facts become dynamic metadata, for Envoy's access log."""
    decision = record.decision
    metadata = _metadata(tuple(facts(record)))
    match decision:
        case Allow():
            headers = [_set(name, value) for name, value in decision.headers]
            if decision.authorization is not None:
                headers.append(_set("authorization", f"Bearer {decision.authorization.reveal()}"))
            return WireResponse(
                status=Status(code=OK),
                ok_response=OkHttpResponse(headers=headers, headers_to_remove=decision.remove),
                dynamic_metadata=metadata,
            )
        case Deny():
            problem = describe(decision, request_id=record.request.request_id)
            # Always `denied_response`, also where it was us or Entra who failed. `error_response`
            # would count as an error in Envoy's statistics, but Envoys before 1.37 turn it into a bare
            # 403 without `Retry-After`, and with `failure_mode_allow` it would let the request go on,
            # with the user's token.
            return WireResponse(
                status=Status(code=problem.rpc_code, message=decision.reason.value),
                denied_response=DeniedHttpResponse(
                    status=HttpStatus(code=problem.http_status),
                    headers=[_set(name, value) for name, value in problem.headers],
                    body=problem.body,
                ),
                dynamic_metadata=metadata,
            )
        case _ as unreachable:
            assert_never(unreachable)


@lru_cache(maxsize=1024)
def _metadata(told: tuple[tuple[str, str], ...]) -> Struct:
    """Build the metadata once for each combination; routes and reasons are few."""
    metadata = Struct()
    for name, value in told:
        metadata.fields[name].string_value = value
    return metadata


def facts(record: CheckRecord) -> Iterator[tuple[str, str]]:
    """Tell what was decided, in words from closed sets and the configuration."""
    match record.decision:
        case Allow():
            yield "decision", "allow"
        case Deny(reason=reason):
            yield "decision", "deny"
            yield "reason", reason.value
        case _ as unreachable:
            assert_never(unreachable)
    if record.route is not None:
        yield "route", record.route.name
    if isinstance(record.route, EgressRoute):
        yield "flow", record.route.flow.value


def _set(name: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=_OVERWRITE)


class ExtAuthz:
    """The servicer: decodes, asks, encodes.

    Args:
        check: Decides.
        timer: Monotonic seconds, the clock of deadlines.
        default_timeout: Seconds a Check may take when Envoy gives no deadline.
        margin: Seconds before Envoy's own deadline at which our answer must stand, so that the caller
            gets our 503 and not Envoy's bare 403.
        peers_have_names: Whether connections prove a SPIFFE id by a client certificate.
    """

    def __init__(
        self,
        check: Check,
        *,
        timer: Timer,
        default_timeout: float,
        margin: float,
        peers_have_names: bool,
    ) -> None:
        self._check = check
        self._timer = timer
        self._default_timeout = default_timeout
        self._margin = margin
        self._peers_have_names = peers_have_names
        self._under_way = 0
        self._last_arrival = timer()

    async def serve(
        self, wire: WireRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> WireResponse:
        """Answer one Check."""
        self._under_way += 1
        self._last_arrival = self._timer()
        try:
            request = decode(wire, peer=spiffe_id(context) if self._peers_have_names else None)
            # The stubs leave out that there is no remaining time without a deadline.
            remaining = cast("float | None", context.time_remaining())
            budget = self._default_timeout if remaining is None else remaining - self._margin
            record = await self._check(request, deadline=self._timer() + min(budget, _LONGEST))
            return encode(record)
        finally:
            self._under_way -= 1

    def is_quiet(self, seconds: float) -> bool:
        """Whether no Check is under way and none has arrived for some seconds."""
        return not self._under_way and self._timer() - self._last_arrival >= seconds

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to register with a server."""
        serve: Callable[..., Awaitable[WireResponse]] = self.serve
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Check": grpc.unary_unary_rpc_method_handler(
                    serve,
                    request_deserializer=WireRequest.FromString,
                    response_serializer=WireResponse.SerializeToString,
                )
            },
        )


_LONGEST: Final = 300.0


def spiffe_id(context: "grpc.aio.ServicerContext[Any, Any]") -> str | None:
    """Return the SPIFFE id of the peer's verified certificate, if it has exactly one."""
    names = context.auth_context().get("x509_subject_alternative_name", ())
    ids = [name for name in names if name.startswith(b"spiffe://")]
    return ids[0].decode("ascii", "replace") if len(ids) == 1 else None
