"""The ext_authz door: `envoy.service.auth.v3.CheckRequest` in, `CheckResponse` out. Nothing is decided.

Decoding is total: what Envoy left out is simply empty. How a denial looks is `authz.doors.problem`.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple, assert_never, cast
from weakref import WeakKeyDictionary

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from authz._pb.attribute_context_pb2 import AttributeContext
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
from authz.config.rendered import MARK
from authz.core.decision import Allow, Deny, Reply
from authz.core.errors import Reason
from authz.core.grant import Delegated, NoToken
from authz.core.operation import Body
from authz.core.outcome import Granted
from authz.core.record import CheckRecord
from authz.core.request import Authorization, CheckRequest
from authz.core.route import EgressRoute
from authz.core.rules.overriding import SESSION
from authz.core.scopes import resource_of
from authz.core.secret import Secret
from authz.doors.envoy.header_names import odd_names
from authz.doors.envoy.workload_identity import source_id, spiffe_id
from authz.doors.problem import FACES, OK, PERMISSION_DENIED, describe, detail_of
from authz.ports import Checks, Decide, Timer

SERVICE: Final = "envoy.service.auth.v3.Authorization"
_PARTIAL: Final = "x-envoy-auth-partial-body"
"""Header in which Envoy's filter says whether it has cut the body off."""
LEAST_TTL: Final = 0.001
"""Seconds that are worth telling Envoy's edge cache: it counts in milliseconds."""
EDGE_VERSION: Final = "4"
"""Version of the metadata that Envoy's edge cache understands (`edge_cache.lua`)."""
_OVERWRITE: Final = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD


def decode(
    wire: WireRequest,
    *,
    peer: str | None = None,
    believes_source: bool = True,
    gives_handles: bool = True,
    has_rules: bool = True,
    outdated: bool = False,
) -> CheckRequest:
    """Translate Envoy's question.

    Args:
        wire: The question.
        peer: SPIFFE id that the connection proved.
        believes_source: Whether Envoy's word for who its client is counts at all.
        gives_handles: Whether apps receive references in `baggage`. Other headers that carry baggage
            are named then.
        has_rules: Whether some route has rules. Headers by which servers read another request count then.
        outdated: Whether Envoy was rendered from another configuration than ours.
    """
    attributes = wire.attributes
    http = attributes.request.http
    headers, extensions = http.headers, attributes.context_extensions
    # Envoy joins repeated headers by a comma; the bearer grammar has none, so a pair is refused.
    authorization, baggage = headers.get("authorization"), headers.get("baggage")
    odd = odd_names(headers)
    return CheckRequest(
        http.method,
        http.host,
        http.path,
        None if authorization is None else Authorization(authorization),
        None if baggage is None else Secret(baggage),
        headers.get("x-request-id", ""),
        headers.get("traceparent", ""),
        extensions.get("authz.direction"),
        extensions.get("authz.route"),
        peer,
        source_id(attributes.source) if believes_source else None,
        odd.own_and_carriers if gives_handles else odd.own,
        extensions.get("authz.edge") == EDGE_VERSION,
        outdated,
        odd.overriding if has_rules else "",
        extensions.get("authz.edge.rules") == EDGE_VERSION,
        _body(http) if has_rules and http.raw_body else None,
        Secret(headers[SESSION]) if has_rules and SESSION in headers else None,
    )


def _body(http: AttributeContext.HttpRequest) -> Body:
    """Return what Envoy has sent of a body."""
    headers, content = http.headers, http.raw_body
    # Envoy sets the header itself, whatever the client sent.
    whole = headers.get(_PARTIAL) == "false" and http.size in (-1, len(content))
    return Body(
        content,
        whole,
        headers.get("content-type", ""),
        headers.get("content-encoding", ""),
        headers.get("mcp-method"),
        headers.get("mcp-name"),
    )


def encode(record: CheckRecord) -> WireResponse:
    """Translate our answer. Its facts become dynamic metadata, for Envoy's access log and edge cache."""
    decision = record.decision
    match decision:
        case Allow():
            metadata = _metadata(tuple(facts(record)))
            if record.edge_ttl >= LEAST_TTL:
                metadata = _with_edge(metadata, decision, record)
            headers = [_set(name, value) for name, value in decision.headers]
            if decision.authorization is not None:
                headers.append(_set("authorization", f"Bearer {decision.authorization.reveal()}"))
            if decision.baggage is not None:
                headers.append(_set("baggage", decision.baggage.reveal()))
            return WireResponse(
                status=Status(code=OK),
                ok_response=OkHttpResponse(headers=headers, headers_to_remove=decision.remove),
                dynamic_metadata=metadata,
            )
        case Deny():
            detail = _detail(record, decision.reason)
            problem = describe(
                decision,
                request_id=record.request.request_id,
                detail=detail,
                message_id=record.message_id,
            )
            # For clients of gRPC, which take no body. Hosts are many, and fill no cache.
            make = _metadata if detail == FACES[decision.reason].detail else _struct
            metadata = make((*facts(record), ("detail", detail)))
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
        case Reply():
            # By any code but OK Envoy sends this answer to its client, whatever its HTTP status.
            return WireResponse(
                status=Status(code=PERMISSION_DENIED, message=decision.label),
                denied_response=DeniedHttpResponse(
                    status=HttpStatus(code=decision.status),
                    headers=[_set(name, value) for name, value in decision.headers],
                    body=decision.body,
                ),
                dynamic_metadata=_metadata(tuple(facts(record))),
            )
        case _ as unreachable:
            assert_never(unreachable)


def _struct(fields: tuple[tuple[str, str], ...]) -> Struct:
    metadata = Struct()
    for name, value in fields:
        metadata.fields[name].string_value = value
    return metadata


_metadata: Final = lru_cache(maxsize=1024)(_struct)
"""Build the metadata once for each combination; routes and reasons are few."""


def _with_edge(facts: Struct, decision: Allow, record: CheckRecord) -> Struct:
    """Add what Envoy's edge cache needs to repeat an allowance, to an Envoy that has one.

    The headers that we set are named only. Their values, a token among them, the cache reads from the
    request that we changed, so that no token is in metadata, which access logs may print.
    """
    route = record.route
    assert route is not None
    changed = [name for name, _ in decision.headers]
    if decision.authorization is not None:
        changed.append("authorization")
    if decision.baggage is not None:
        changed.append("baggage")
    metadata = Struct()
    metadata.CopyFrom(facts)
    edge = metadata.fields["edge"].struct_value
    # Each value has a kind: Envoy 1.40 aborts where a script reads one that has none.
    # Rounded down: nothing may be repeated longer than it holds.
    edge["ttl_ms"] = int(record.edge_ttl * 1000)
    edge["parts"] = "authorization" if route.reads_authorization else ""
    edge.get_or_create_list("set").extend(changed)
    edge.get_or_create_list("remove").extend(decision.remove)
    if record.edge_epoch:
        edge["epoch"] = record.edge_epoch
    return metadata


def facts(record: CheckRecord) -> Iterator[tuple[str, str]]:
    """Tell what was decided, in words from closed sets and the configuration."""
    yield "decision", record.decision.label
    if isinstance(record.decision, Deny):
        yield "reason", record.decision.reason.value
    route = record.route
    if route is None:
        return
    yield "route", route.name
    if record.rule:
        yield "rule", record.rule
    if isinstance(route, EgressRoute):
        yield "flow", route.flow.value
        if record.rule and record.target is not None:
            yield "scopes", " ".join(record.target.scopes)
            yield "resource", resource_of(record.target.scopes[0])


def _detail(record: CheckRecord, reason: Reason) -> str:
    route = record.route
    grant = route.grant if isinstance(route, EgressRoute) else None
    has_token = not isinstance(grant, NoToken)
    sources = grant.sources if isinstance(grant, Delegated) else ()
    return detail_of(
        reason,
        record.request.host,
        has_token=has_token,
        sources=sources,
        has_authorization=record.request.authorization is not None,
    )


def _set(name: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=_OVERWRITE)


class _Prepared(NamedTuple):
    """The bytes of an answer, which hold a token, and the `edge_ttl` that they name."""

    reply: bytes
    edge_ttl: float

    def __repr__(self) -> str:
        return "_Prepared(***)"


class Replies:
    """Answers as they go over the wire. That of an allowance is made once, and lives as long as it does."""

    def __init__(self) -> None:
        self._prepared: WeakKeyDictionary[Granted, _Prepared] = WeakKeyDictionary()

    def of(self, record: CheckRecord) -> bytes:
        """Return the bytes of an answer."""
        granted = record.outcome
        if not isinstance(granted, Granted):
            return encode(record).SerializeToString()
        prepared = self._prepared.get(granted)
        # Near its end an answer tells Envoy's cache a shorter time each time.
        if prepared is None or prepared.edge_ttl != record.edge_ttl:
            made = encode(record).SerializeToString()
            prepared = self._prepared[granted] = _Prepared(made, record.edge_ttl)
        return prepared.reply


class ExtAuthz:
    """The servicer: decodes, asks, encodes.

    Args:
        checks: Decides.
        timer: Monotonic seconds, the clock of deadlines.
        default_timeout: Seconds a Check may take when Envoy gives no deadline.
        margin: Seconds before Envoy's own deadline at which our answer must stand, so that the caller
            gets our 503 and not Envoy's bare 403.
        peers_have_names: Whether connections prove a SPIFFE id by a client certificate.
        believes_source: Whether Envoy's word for who its client is counts at all.
        note_mark: Is given the mark of what Envoy was rendered from, and says whether that is not ours.
    """

    def __init__(
        self,
        checks: Checks,
        *,
        timer: Timer,
        default_timeout: float,
        margin: float,
        peers_have_names: bool,
        believes_source: bool,
        note_mark: Callable[[str | None], bool] = lambda _: False,
    ) -> None:
        self._checks = checks
        self._note_mark = note_mark
        self._timer = timer
        self._default_timeout = default_timeout
        self._margin = margin
        self._peers_have_names = peers_have_names
        self._believes_source = believes_source
        self._replies = Replies()
        self._under_way = 0
        self._last_arrival = timer()

    async def serve(self, raw: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
        """Answer one Check that came through grpcio."""
        peer = spiffe_id(context) if self._peers_have_names else None
        try:
            request = self._read(raw, peer)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        record = self._checks.repeat(request)
        if record is not None:
            return self._replies.of(record)
        # The stubs leave out that there is no remaining time without a deadline.
        remaining = cast("float | None", context.time_remaining())
        return await self._decided(request, remaining, self._checks.decider())

    def answer(self, message: bytes, timeout: float | None) -> bytes | Coroutine[Any, Any, bytes]:
        """Answer one Check that came through the Check door (`http2`): at once if an answer is known.

        Raises:
            ValueError: It is no CheckRequest.
        """
        request = self._read(message, None)
        record = self._checks.repeat(request)
        if record is not None:
            return self._replies.of(record)
        # It is decided in a task, before whose first step another configuration may be in use.
        return self._decided(request, timeout, self._checks.decider())

    def _read(self, raw: bytes, peer: str | None) -> CheckRequest:
        self._last_arrival = self._timer()
        try:
            wire = WireRequest.FromString(raw)
        except DecodeError:
            raise ValueError("not a CheckRequest") from None
        return decode(
            wire,
            peer=peer,
            believes_source=self._believes_source,
            gives_handles=self._checks.gives_handles,
            has_rules=self._checks.has_rules,
            outdated=self._note_mark(wire.attributes.context_extensions.get(MARK)),
        )

    async def _decided(
        self, request: CheckRequest, remaining: float | None, decide: Decide
    ) -> bytes:
        self._under_way += 1
        try:
            budget = self._default_timeout if remaining is None else remaining - self._margin
            record = await decide(request, deadline=self._timer() + min(budget, _LONGEST))
            return self._replies.of(record)
        finally:
            self._under_way -= 1

    def is_quiet(self, seconds: float) -> bool:
        """Whether no Check is under way and none has arrived for some seconds."""
        return not self._under_way and self._timer() - self._last_arrival >= seconds

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to register with a server."""
        serve: Callable[..., Awaitable[bytes]] = self.serve
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Check": grpc.unary_unary_rpc_method_handler(
                    serve,
                    # `serve` takes and returns bytes.
                    request_deserializer=None,
                    response_serializer=None,
                )
            },
        )


_LONGEST: Final = 300.0
