"""One structured record for each Check: who, through whom, where to, what was decided, how long it took.

Never a token: the record is made of fields picked one by one, and `Secret` does not print.
"""

from collections.abc import Iterator
from typing import Any

import structlog

from authz.config.settings import Decisions
from authz.core.decision import Allow, Deny
from authz.core.errors import AuthzError, EntraError, Unfulfilled
from authz.core.exchange import Flow
from authz.core.policy import EgressRoute
from authz.ports import CacheName, CacheResult, CheckRecord


class DecisionLog:
    """An observer that writes decision records.

    Args:
        which: Which decisions to log; may be changed at any time.
    """

    def __init__(self, which: Decisions) -> None:
        self.which = which
        self._log = structlog.get_logger("authz.decisions")

    def decided(self, record: CheckRecord) -> None:
        """Write the record of one Check."""
        if record.fault is not None:
            # A defect of ours is always logged, with its traceback.
            self._log.error("check failed", exc_info=record.fault, **dict(_fields(record)))
            return
        allowed = isinstance(record.decision, Allow)
        if self.which is Decisions.NONE or (allowed and self.which is Decisions.DENIED):
            return
        ours = isinstance(record.error, Unfulfilled)
        write = self._log.warning if ours else self._log.info
        write("check", **dict(_fields(record)))

    def looked_up(self, cache: CacheName, result: CacheResult) -> None:
        """Look-ups are part of the record."""

    def exchanged(self, flow: Flow, error: AuthzError | None, seconds: float) -> None:
        """Log an exchange that was really carried out: what Entra was asked, and its answer."""
        fields: dict[str, Any] = {"flow": flow.value, "ms": _milliseconds(seconds)}
        if error is None:
            self._log.debug("exchange", **fields)
            return
        fields |= {"reason": error.reason.value, "detail": error.detail}
        if isinstance(error, EntraError) and error.code is not None:
            fields["entra_code"] = error.code
        self._log.warning("exchange failed", **fields)


def _fields(record: CheckRecord) -> Iterator[tuple[str, Any]]:
    """Pick what is told of a Check, leaving out what there is not."""
    parts = (_outcome, _route, _principal, _request, _durations)
    return (field for part in parts for field in part(record) if field[1] is not None)


def _outcome(record: CheckRecord) -> Iterator[tuple[str, Any]]:
    yield "decision", "allow" if isinstance(record.decision, Allow) else "deny"
    if isinstance(record.decision, Deny):
        yield "reason", record.decision.reason.value
    if record.error is not None:
        yield "detail", record.error.detail or None
        yield "entra_code", record.error.code if isinstance(record.error, EntraError) else None


def _route(record: CheckRecord) -> Iterator[tuple[str, Any]]:
    route = record.route
    if route is not None:
        yield "direction", record.direction
        yield "route", route.name
    if isinstance(route, EgressRoute):
        yield "flow", route.flow.value
        yield "agent", route.agent.client_id if route.agent is not None else None


def _principal(record: CheckRecord) -> Iterator[tuple[str, Any]]:
    principal = record.principal
    if principal is not None:
        yield "subject", principal.subject.object_id
        yield "subject_type", principal.subject.type.value
        yield "tenant", principal.subject.tenant_id
        yield "actor", principal.actor.client_id
        yield "uti", principal.token_id or None


def _request(record: CheckRecord) -> Iterator[tuple[str, Any]]:
    request = record.request
    yield "peer", request.peer
    yield "method", request.method
    yield "host", request.host
    # Not the query: it is the place where applications put what should not be logged.
    yield "path", request.path.partition("?")[0]
    yield "request_id", request.request_id or None
    yield "trace_id", request.trace_id or None


def _durations(record: CheckRecord) -> Iterator[tuple[str, Any]]:
    yield "ms", _milliseconds(record.finished - record.started)
    if record.principal_cache is not None:
        yield "verify_ms", _milliseconds(record.verify_seconds)
        yield "principal_cache", record.principal_cache.value
    if record.token_cache is not None:
        yield "exchange_ms", _milliseconds(record.exchange_seconds)
        yield "token_cache", record.token_cache.value


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
