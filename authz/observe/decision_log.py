"""One structured record for each Check: who, through whom, where to, what was decided, how long it took.

Never a token: the record is made of fields picked one by one, and `Secret` does not print.
"""

from collections.abc import Sequence
from typing import Any, assert_never
from weakref import WeakKeyDictionary

import structlog

from authz.config.sections.settings import Decisions
from authz.core.decision import Deny
from authz.core.errors import AuthzError, EntraError, Unfulfilled
from authz.core.event import (
    Called,
    Decided,
    Event,
    Exchanged,
    LookedUp,
    Prefetched,
    Repeated,
    SecretRejected,
    SecretSent,
)
from authz.core.exchange import AgentIdentity, TokenExchange, asker_of, client_of
from authz.core.grant import NoToken
from authz.core.outcome import Granted
from authz.core.record import CheckRecord
from authz.core.route import EgressRoute
from authz.core.scopes import resource_of
from authz.observe.logging import head_of, headed, heads_are_used, write_lines, write_record

_log = structlog.get_logger(__name__)


class DecisionLog:
    """An observer that writes decision records.

    Args:
        which: Which decisions to log; may be changed at any time.
    """

    def __init__(self, which: Decisions) -> None:
        self.which = which
        self._heads: WeakKeyDictionary[Granted, bytes] = WeakKeyDictionary()

    @property
    def reads_records(self) -> bool:
        """Whether it writes about repeated answers: each is an allowance, and was logged when it was made."""
        return self.which is Decisions.ALL

    def observe(self, event: Event) -> None:
        """Write what an event says, if it is one for the log."""
        match event:
            case Decided(record):
                self._write_decision(record)
            case Repeated(records=records):
                self._write_repeats(records)
            case Exchanged():
                _write_exchange(event)
            case Called(outcome=AuthzError() as error):
                # Before each call a decision was logged.
                _log.warning(
                    "call failed",
                    route=event.route,
                    reason=error.reason.value,
                    detail=error.detail,
                    ms=_milliseconds(event.seconds),
                )
            case Prefetched():
                # A failed exchange has its own record.
                _log.debug("prefetch", route=event.route, outcome=event.outcome)
            case Called() | LookedUp() | SecretSent() | SecretRejected():
                pass
            case _ as unreachable:
                assert_never(unreachable)

    def _write_decision(self, record: CheckRecord) -> None:
        if record.fault is not None:
            # A defect of ours is always logged, with its traceback.
            _log.error("check failed", exc_info=record.fault, **fields_of(record))
        elif self._wants(record):
            ours = isinstance(record.error, Unfulfilled)
            write_record("warning" if ours else "info", "check", fields_of(record))

    def _write_repeats(self, records: Sequence[CheckRecord]) -> None:
        if not self.reads_records:
            return
        if heads_are_used():
            write_lines("info", [self._line(record) for record in records])
            return
        for record in records:
            write_record("info", "check", fields_of(record))

    def _line(self, record: CheckRecord) -> bytes:
        """Return the line of a repeated answer. What is the same each time is made once."""
        granted = record.outcome
        assert isinstance(granted, Granted)
        head = self._heads.get(granted)
        if head is None:
            head = self._heads[granted] = head_of("info", "check", settled_fields(record))
        return headed(head, passing_fields(record), at=record.at)

    def _wants(self, record: CheckRecord) -> bool:
        match self.which:
            case Decisions.ALL | Decisions.MADE:
                return True
            case Decisions.DENIED:
                return isinstance(record.decision, Deny)
            case Decisions.NONE:
                return False
            case _ as unreachable:
                assert_never(unreachable)


def _write_exchange(event: Exchanged) -> None:
    """Log an exchange that was really carried out: what Entra was asked, and its answer."""
    fields, error = _asked(event.exchange), event.error
    if event.route is not None:
        fields["route"] = event.route
    fields["ms"] = _milliseconds(event.seconds)
    if error is None:
        _log.debug("exchange", **fields)
        return
    fields |= {"reason": error.reason.value, "detail": error.detail}
    if isinstance(error, EntraError) and error.code is not None:
        fields["entra_code"] = error.code
    _log.warning("exchange failed", **fields)


def fields_of(record: CheckRecord) -> dict[str, Any]:
    """Return what is told of a Check: fields picked one by one, leaving out what there is not."""
    fields, trace = settled_fields(record) | passing_fields(record), record.trace
    if trace is not None:
        if trace.principal_cache is not None:
            fields["verify_ms"] = _milliseconds(trace.verify_seconds)
        if trace.token_cache is not None:
            fields["exchange_ms"] = _milliseconds(trace.exchange_seconds)
    return fields


def settled_fields(record: CheckRecord) -> dict[str, Any]:
    """Return what is told of the decision, and is the same each time the answer is repeated."""
    fields: dict[str, Any] = {"decision": record.decision.label}
    if isinstance(record.decision, Deny):
        fields |= _denial(record, record.decision)
    _add_route(fields, record)
    _add_principal(fields, record)
    if record.request.peer is not None:
        fields["peer"] = record.request.peer
    if record.principal_cache is not None:
        fields["principal_cache"] = record.principal_cache.value
    if record.token_cache is not None:
        fields["token_cache"] = record.token_cache.value
    return fields


def passing_fields(record: CheckRecord) -> dict[str, Any]:
    """Return what is told of this very request, and how long it took."""
    request = record.request
    fields: dict[str, Any] = {
        "method": request.method,
        "host": request.host,
        # Not the query: it is the place where applications put what should not be logged.
        "path": request.path.partition("?")[0],
        "ms": _milliseconds(record.seconds),
    }
    if record.tool:
        fields["tool"] = record.tool
    if request.request_id:
        fields["request_id"] = request.request_id
    if request.traceparent and (trace_id := request.trace_id):
        fields["trace_id"] = trace_id
    return fields


def _denial(record: CheckRecord, denial: Deny) -> dict[str, Any]:
    fields: dict[str, Any] = {"reason": denial.reason.value}
    if record.error is not None and record.error.detail:
        fields["detail"] = record.error.detail
    if isinstance(record.error, EntraError) and record.error.code is not None:
        fields["entra_code"] = record.error.code
    if isinstance(record.error, EntraError) and isinstance(record.route, EgressRoute):
        # What nobody has consented to, or what Entra does not give.
        fields |= _asked_for(record.route)
    return fields


def _asked_for(route: EgressRoute) -> dict[str, Any]:
    """Return the scopes that were asked for; empty for a route without a token."""
    if isinstance(route.grant, NoToken):
        return {}
    return {"scopes": " ".join(route.grant.target.scopes)}


def _add_route(fields: dict[str, Any], record: CheckRecord) -> None:
    route = record.route
    if route is None:
        return
    fields["direction"] = "egress" if isinstance(route, EgressRoute) else "inbound"
    fields["route"] = route.name
    if record.rule:
        fields["rule"] = record.rule
    if isinstance(route, EgressRoute):
        fields["flow"] = route.flow.value
        if route.stands_in:
            fields["fallback"] = True
        if route.agent is not None:
            fields["agent"] = route.agent.client_id
        if record.target is not None:
            fields["scopes"] = " ".join(record.target.scopes)
            fields["resource"] = resource_of(record.target.scopes[0])


def _add_principal(fields: dict[str, Any], record: CheckRecord) -> None:
    principal = record.principal
    if principal is None:
        return
    fields["subject"] = principal.subject.object_id
    fields["subject_type"] = principal.subject.type.value
    fields["tenant"] = principal.subject.tenant_id
    fields["actor"] = principal.actor.client_id
    if principal.token_id:
        fields["uti"] = principal.token_id


def _asked(exchange: TokenExchange) -> dict[str, Any]:
    """Return what was asked of Entra: as whom, by the names of the configuration, and for what."""
    asker, client = asker_of(exchange), client_of(exchange)
    fields: dict[str, Any] = {
        "flow": exchange.flow.value,
        "client": client.name,
        "client_id": client.client_id,
    }
    if isinstance(asker, AgentIdentity):
        fields |= {"agent": asker.name, "agent_identity": asker.client_id}
    return fields | {"scopes": list(exchange.target.scopes)}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
