"""The decision record: what it tells, in which style and at which level, and what it never holds."""

import json
from collections.abc import Iterator

import pytest

from authz.config.settings import Decisions
from authz.core.decision import Deny
from authz.core.errors import ExchangeUnavailable, InvalidToken, Reason, TokenFault
from authz.core.request import CheckRequest
from authz.core.secret import Secret
from authz.observe.decision_log import DecisionLog
from authz.observe.logging import configure_logging
from authz.ports import CheckRecord
from support.scene import Scene

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    """JSON at `info`, whatever other tests chose."""
    configure_logging(level="info", style="json")
    yield
    configure_logging(level="info", style="json")


def refused(**changes: object) -> CheckRecord:
    """The record of a Check that was refused."""
    request = CheckRequest(
        method="GET",
        host="graph.microsoft.com",
        path="/v1.0/me?code=private",
        authorization=Secret(f"Bearer {TOKEN}"),
        request_id="r1",
        trace_id="t1",
    )
    values = {"decision": Deny(Reason.INVALID_TOKEN), "error": InvalidToken(TokenFault.EXPIRED)}
    return CheckRecord(request=request, started=1.0, finished=1.25, **(values | changes))  # type: ignore[arg-type]


def written(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """The records on standard output."""
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_a_refusal_is_told_in_full(capfd: pytest.CaptureFixture[str]) -> None:
    """Reason, the detail that the caller does not learn, and what finds the request again."""
    DecisionLog(Decisions.ALL).decided(refused())

    (record,) = written(capfd)
    assert {
        "decision": "deny", "reason": "invalid_token", "detail": "expired", "method": "GET",
        "host": "graph.microsoft.com", "path": "/v1.0/me", "request_id": "r1", "trace_id": "t1",
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
            authorization=Secret(f"Bearer {token}"),
        )
    )  # fmt: skip
    DecisionLog(Decisions.ALL).decided(record)

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
    DecisionLog(Decisions.DENIED).decided(refused(decision=Deny.because(error), error=error))

    assert ["warning"] == [record["level"] for record in written(capfd)]


def test_a_defect_is_logged_even_when_decisions_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    """With its traceback, and without what the request carried."""
    with pytest.raises(ZeroDivisionError) as defect:
        _ = 1 // 0
    DecisionLog(Decisions.NONE).decided(refused(decision=Deny(Reason.INTERNAL), fault=defect.value))

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
    DecisionLog(which).decided(refused())

    assert number == len(written(capfd))


def test_the_console_style_is_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    """The same record, readable, and no token either."""
    configure_logging(level="info", style="console")
    DecisionLog(Decisions.ALL).decided(refused())

    output = capfd.readouterr().out
    assert "invalid_token" in output
    assert TOKEN not in output
