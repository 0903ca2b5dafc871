"""The decision record: what it tells, in which style and at which level, and what it never holds."""

import datetime as dt
import json
from collections.abc import Iterator

import pytest

from authz.config.sections.settings import Decisions
from authz.core.errors import (
    AuthzError,
    ConsentRequired,
    ExchangeUnavailable,
    InvalidToken,
    TokenFault,
)
from authz.core.event import Decided, Exchanged
from authz.core.exchange import AppToken
from authz.core.outcome import Denied
from authz.core.record import CheckRecord
from authz.core.request import Authorization, CheckRequest
from authz.observe.decision_log import DecisionLog
from authz.observe.logging import configure_logging
from support.fakes.exchanges import BLUEPRINT_CLIENT, GRAPH, on_behalf_of
from support.fakes.records import record_of, repeated
from support.fakes.scene import Scene
from support.fakes.tenant import AGENT, BLUEPRINT

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    """JSON at `info`, whatever other tests chose."""
    configure_logging(level="info", style="json")
    yield
    configure_logging(level="info", style="json")


def refused(error: AuthzError | None = None, *, fault: Exception | None = None) -> CheckRecord:
    """The record of a Check that was refused."""
    request = CheckRequest(
        method="GET",
        host="graph.microsoft.com",
        path="/v1.0/me?code=private",
        authorization=Authorization(f"Bearer {TOKEN}"),
        request_id="r1",
        traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
    )
    cause = fault or error or InvalidToken(TokenFault.EXPIRED)
    decision = Denied.because(cause).decision
    error = None if fault else error or InvalidToken(TokenFault.EXPIRED)
    return record_of(decision, request=request, error=error, fault=fault, seconds=0.25)


def written(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """The records on standard output."""
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_a_refusal_is_told_in_full(capfd: pytest.CaptureFixture[str]) -> None:
    """Reason, the detail that the caller does not learn, and what finds the request again."""
    DecisionLog(Decisions.ALL).observe(Decided(refused()))

    (record,) = written(capfd)
    assert {
        "decision": "deny", "reason": "invalid_token", "detail": "expired", "method": "GET",
        "host": "graph.microsoft.com", "path": "/v1.0/me", "request_id": "r1", "trace_id": TRACE,
        "ms": 250.0, "event": "check", "level": "info",
    } == {name: value for name, value in record.items() if name != "timestamp"}  # fmt: skip
    assert str(record["timestamp"]).endswith("Z")


async def test_an_allowed_check_names_who_and_through_whom(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Subject, actor, agent, flow and cache results; and of the token only its id."""
    scene = Scene()
    token = scene.tenant.user_token()
    record = await scene.check(
        CheckRequest(
            host="api.example", direction="egress", route="on_behalf_of",
            authorization=Authorization(f"Bearer {token}"),
        )
    )  # fmt: skip
    DecisionLog(Decisions.ALL).observe(Decided(record))

    output = capfd.readouterr().out
    told = json.loads(output)
    assert ("allow", "egress", "on_behalf_of", "user") == (
        told["decision"], told["direction"], told["flow"], told["subject_type"],
    )  # fmt: skip
    assert {"subject", "tenant", "actor", "agent", "uti", "token_cache", "principal_cache"} <= set(
        told
    )
    assert token not in output


def test_our_own_failures_are_warnings(capfd: pytest.CaptureFixture[str]) -> None:
    """Who filters by level sees what operators must look at."""
    error = ExchangeUnavailable("down")
    DecisionLog(Decisions.DENIED).observe(Decided(refused(error)))

    assert ["warning"] == [record["level"] for record in written(capfd)]


def test_a_defect_is_logged_even_when_decisions_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    """With its traceback, and without what the request carried."""
    with pytest.raises(ZeroDivisionError) as defect:
        _ = 1 // 0
    DecisionLog(Decisions.NONE).observe(Decided(refused(fault=defect.value)))

    output = capfd.readouterr().out
    assert "ZeroDivisionError" in json.loads(output)["exception"]
    assert TOKEN not in output


@pytest.mark.parametrize(
    ("which", "level", "number"),
    [
        (Decisions.ALL, "info", 1),
        (Decisions.DENIED, "info", 1),
        (Decisions.NONE, "info", 0),
        (Decisions.ALL, "error", 0),
    ],
)
def test_what_is_logged_can_be_chosen(
    which: Decisions, level: str, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """By kind of decision, and by level."""
    configure_logging(level=level, style="json")
    DecisionLog(which).observe(Decided(refused()))

    assert number == len(written(capfd))


def test_the_console_style_is_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    """The same record, readable, and no token either."""
    configure_logging(level="info", style="console")
    DecisionLog(Decisions.ALL).observe(Decided(refused()))

    output = capfd.readouterr().out
    assert "invalid_token" in output
    assert TOKEN not in output


async def _repeated(scene: Scene, *requests: CheckRequest) -> list[CheckRecord]:
    """Ask the first, and then all of them."""
    await scene.check(requests[0])
    return [await scene.check(request) for request in requests]


async def test_a_repeated_answer_is_told_like_the_first(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Who, through whom and where to are the same; what is particular to the request is its own."""
    scene, log = Scene(), DecisionLog(Decisions.ALL)
    first = scene.request("egress", "on_behalf_of", scene.tenant.user_token(), request_id="r1")
    again = first._replace(
        method="POST", path="/b?code=private", host="b.example", request_id="r2",
        traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
    )  # fmt: skip
    repeats = await _repeated(scene, first, again, again._replace(request_id="", traceparent="x"))
    log.observe(Decided(scene.observer.records[0]))
    log.observe(repeated(repeats))

    checked, one, two, three = written(capfd)
    passing = {"method", "path", "host", "request_id", "trace_id", "ms", "timestamp"}
    durations = {"verify_ms", "exchange_ms"}
    caches = {"principal_cache": "hit", "token_cache": "hit"}
    settled = {key: value for key, value in checked.items() if key not in passing | durations}
    for record in (one, two, three):
        told = {key: value for key, value in record.items() if key not in passing}
        assert settled | caches == told
    assert ("GET", "/", "r1") == (one["method"], one["path"], one["request_id"])
    assert ("POST", "/b", "b.example", "r2", TRACE) == (
        two["method"], two["path"], two["host"], two["request_id"], two["trace_id"],
    )  # fmt: skip
    assert not {"request_id", "trace_id"} & three.keys()
    assert repeats[0].at == dt.datetime.fromisoformat(str(one["timestamp"])).timestamp()


async def test_a_repeated_answer_is_told_to_people_as_well(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In the readable style nothing is prepared."""
    configure_logging(level="info", style="console")
    scene, log = Scene(), DecisionLog(Decisions.ALL)
    log.observe(repeated(await _repeated(scene, scene.request("egress", "autonomous", None))))

    (line,) = capfd.readouterr().out.splitlines()
    assert "token_cache=hit" in line


@pytest.mark.parametrize("which", [Decisions.NONE, Decisions.DENIED, Decisions.MADE])
async def test_a_repeated_answer_is_told_only_where_allowances_are(
    capfd: pytest.CaptureFixture[str], which: Decisions
) -> None:
    """There are no repeated denials."""
    scene, log = Scene(), DecisionLog(which)
    log.observe(repeated(await _repeated(scene, scene.request("egress", "autonomous", None))))

    assert [] == written(capfd)


async def test_an_allowance_is_told_when_it_is_made(capfd: pytest.CaptureFixture[str]) -> None:
    """Not when it is given again, whichever way; a denial is made anew each time."""
    scene, log = Scene(), DecisionLog(Decisions.MADE)
    allowed = scene.request("egress", "autonomous", None)
    for request in (allowed, allowed, scene.request("egress", "nowhere", None)):
        for record in (await scene.check(request), await scene.check(request)):
            log.observe(repeated([record]) if record.repeated else Decided(record))

    assert ["allow", "deny", "deny"] == [record["decision"] for record in written(capfd)]


async def test_a_repeated_answer_below_the_level_is_not_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Levels hold for prepared records too."""
    configure_logging(level="warning", style="json")
    scene, log = Scene(), DecisionLog(Decisions.ALL)
    log.observe(repeated(await _repeated(scene, scene.request("egress", "autonomous", None))))

    assert [] == written(capfd)


@pytest.mark.parametrize("route", ["graph", None])
def test_a_failed_exchange_says_as_whom_and_for_what(
    capfd: pytest.CaptureFixture[str], route: str | None
) -> None:
    """Client, agent and scopes, the route if it was for one; nothing of the user's token."""
    error = ConsentRequired("AADSTS65001", code=65001)
    DecisionLog(Decisions.NONE).observe(Exchanged(on_behalf_of(TOKEN), error, 0.25, route))

    (record,) = written(capfd)
    assert {
        "flow": "on_behalf_of",
        "client": "blueprint",
        "client_id": BLUEPRINT,
        "agent": "agent",
        "agent_identity": AGENT,
        "scopes": ["https://graph.microsoft.com/.default"],
        **({} if route is None else {"route": route}),
        "ms": 250.0,
        "reason": "consent_required",
        "detail": "AADSTS65001",
        "entra_code": 65001,
        "event": "exchange failed",
        "level": "warning",
    } == {name: value for name, value in record.items() if name != "timestamp"}


def test_an_application_that_is_no_agent_has_none_in_the_record(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It asks for itself."""
    exchange = AppToken(BLUEPRINT_CLIENT, GRAPH)
    error = ExchangeUnavailable("no answer")
    DecisionLog(Decisions.NONE).observe(Exchanged(exchange, error, 0.25, "app"))

    (record,) = written(capfd)
    assert {"client", "client_id"} == record.keys() & {
        "client",
        "client_id",
        "agent",
        "agent_identity",
    }
