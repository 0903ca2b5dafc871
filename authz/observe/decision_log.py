"""One structured record for each Check: who, through whom, where to, what was decided, how long it took.

Never a token: the record is made of fields picked one by one, and `Secret` does not print.
"""

from typing import Any

import structlog

from authz.config.settings import Decisions
from authz.core.decision import Allow, Deny
from authz.core.errors import AuthzError, EntraError, Unfulfilled
from authz.core.exchange import Flow
from authz.core.policy import EgressRoute
from authz.observe.logging import write_record
from authz.ports import CacheName, CacheResult, CheckRecord

_log = structlog.get_logger(__name__)


class DecisionLog:
    """An observer that writes decision records.

    Args:
        which: Which decisions to log; may be changed at any time.
    """

    def __init__(self, which: Decisions) -> None:
        self.which = which

    def decided(self, record: CheckRecord) -> None:
        """Write the record of one Check."""
        if record.fault is not None:
            # A defect of ours is always logged, with its traceback.
            _log.error("check failed", exc_info=record.fault, **fields_of(record))
            return
        allowed = isinstance(record.decision, Allow)
        if self.which is Decisions.NONE or (allowed and self.which is Decisions.DENIED):
            return
        ours = isinstance(record.error, Unfulfilled)
        write_record("warning" if ours else "info", "check", fields_of(record))

    def looked_up(self, cache: CacheName, result: CacheResult) -> None:
        """Look-ups are part of the record."""

    def exchanged(self, flow: Flow, error: AuthzError | None, seconds: float) -> None:
        """Log an exchange that was really carried out: what Entra was asked, and its answer."""
        fields: dict[str, Any] = {"flow": flow.value, "ms": _milliseconds(seconds)}
        if error is None:
            _log.debug("exchange", **fields)
            return
        fields |= {"reason": error.reason.value, "detail": error.detail}
        if isinstance(error, EntraError) and error.code is not None:
            fields["entra_code"] = error.code
        _log.warning("exchange failed", **fields)


def fields_of(record: CheckRecord) -> dict[str, Any]:
    """Return what is told of a Check: fields picked one by one, leaving out what there is not."""
    request = record.request
    fields: dict[str, Any] = {"decision": "allow"}
    if isinstance(record.decision, Deny):
        fields = _denial(record, record.decision)
    _add_route(fields, record)
    _add_principal(fields, record)
    fields["method"] = request.method
    fields["host"] = request.host
    # Not the query: it is the place where applications put what should not be logged.
    fields["path"] = request.path.partition("?")[0]
    if request.peer is not None:
        fields["peer"] = request.peer
    if request.request_id:
        fields["request_id"] = request.request_id
    if request.trace_id:
        fields["trace_id"] = request.trace_id
    fields["ms"] = _milliseconds(record.finished - record.started)
    if record.principal_cache is not None:
        fields["verify_ms"] = _milliseconds(record.verify_seconds)
        fields["principal_cache"] = record.principal_cache.value
    if record.token_cache is not None:
        fields["exchange_ms"] = _milliseconds(record.exchange_seconds)
        fields["token_cache"] = record.token_cache.value
    return fields


def _denial(record: CheckRecord, denial: Deny) -> dict[str, Any]:
    fields: dict[str, Any] = {"decision": "deny", "reason": denial.reason.value}
    if record.error is not None and record.error.detail:
        fields["detail"] = record.error.detail
    if isinstance(record.error, EntraError) and record.error.code is not None:
        fields["entra_code"] = record.error.code
    return fields


def _add_route(fields: dict[str, Any], record: CheckRecord) -> None:
    route = record.route
    if route is None:
        return
    fields["direction"] = "egress" if isinstance(route, EgressRoute) else "inbound"
    fields["route"] = route.name
    if isinstance(route, EgressRoute):
        fields["flow"] = route.flow.value
        if route.agent is not None:
            fields["agent"] = route.agent.client_id


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


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
