"""Records as the service makes them, for tests of what doors and observers make of one."""

from collections.abc import Iterable
from typing import Final

from authz.core.decision import Allow, Decision, Deny, Reply
from authz.core.errors import AuthzError
from authz.core.event import Repeated
from authz.core.exchange import Flow
from authz.core.lifetime import Lifetime
from authz.core.moment import NEVER
from authz.core.outcome import Denied, Granted, Outcome, Replied
from authz.core.record import CheckRecord, Trace
from authz.core.request import CheckRequest
from authz.core.route import Route
from support.fakes.clock import START
from support.fakes.routes import route_of

ROUTE: Final = route_of("graph", Flow.AUTONOMOUS, ("graph.example",))
ENDLESS: Final = Lifetime(NEVER, NEVER)


def record_of(
    decision: Decision,
    *,
    route: Route = ROUTE,
    request: CheckRequest | None = None,
    error: AuthzError | None = None,
    fault: Exception | None = None,
    edge_ttl: float = 0.0,
    edge_epoch: str = "",
    seconds: float = 0.0,
) -> CheckRecord:
    """Return the record of a Check that ended so, after some seconds. A denial found no route."""
    outcome: Outcome
    match decision:
        case Allow():
            outcome = Granted(route, decision, ENDLESS)
        case Deny():
            outcome = Denied(decision, error, fault)
        case Reply():
            outcome = Replied(route, decision)
    asked = request or CheckRequest()
    return CheckRecord(asked, outcome, START, seconds, Trace(), edge_ttl, edge_epoch)


def trace_of(record: CheckRecord) -> Trace:
    """Return what was seen on the way to a new decision."""
    assert record.trace is not None
    return record.trace


def repeats_of(records: Iterable[CheckRecord]) -> list[tuple[Granted, float]]:
    """Return what is told of answers that are given again: each, with the seconds that it took.

    Raises:
        TypeError: One of them is no allowance.
    """
    answers = []
    for record in records:
        if not isinstance(record.outcome, Granted):
            raise TypeError("denials are not given again")
        answers.append((record.outcome, record.seconds))
    return answers


def repeated(records: Iterable[CheckRecord]) -> Repeated:
    """Return the event of answers that are given again, as one observer hears of it who reads records."""
    found = tuple(records)
    return Repeated(repeats_of(found), found)
