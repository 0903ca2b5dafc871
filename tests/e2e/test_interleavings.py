"""Random requests of many users through real Envoys while faults come and go: `support.interleavings`.

A long run is a command (`make interleavings`, `make soak`). This is a short one, and the tests of its judge.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any, Final

import jwt
import pytest

from authz.core.errors import Reason
from support.interleavings.cases import Cases, Outcome, Wanted
from support.interleavings.disturbances import LASTING
from support.interleavings.explanations import FLIGHT, REFUSED, Ledger, Whose
from support.interleavings.fleet import Fleet, fleet_of
from support.interleavings.run import Run
from support.interleavings.wire import Answer, Connections

pytestmark = pytest.mark.thorough

SEED: Final = 14
REQUESTS: Final = 2500
DISTURBED: Final = 25


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Three agents of two tenants."""
    with fleet_of(tmp_path, seed=SEED, users=12) as running:
        yield running


async def test_whatever_happens_nobody_acts_for_another_and_every_denial_has_its_cause(
    fleet: Fleet,
) -> None:
    """Reloads, odd answers, files, keys, logs: no denial beyond the fault's own, and alive all the time."""
    run = Run(fleet, SEED, LASTING, longest=1.0)
    report = await run.until(
        lambda seen: seen.requests >= REQUESTS and seen.disturbances.total() >= DISTURBED
    )

    assert ([], [], []) == (report.wrong, report.unexplained, report.complaints)
    assert {"200"} == set(report.probes)
    served = {kind for kind, result in report.outcomes if result == "right"}
    assert {"bearer", "across", "own", "account", "moving", "application for user"} <= served
    refused = {kind for kind, result in report.outcomes if result == "refused"}
    assert {"forged", "foreign reference", "wrong tenant", "no token"} == refused


def token(**claims: object) -> str:
    """Return an unsigned token."""
    return jwt.encode(claims, "", "none")


GOOD: Final = {"appid": "agent", "oid": "user", "tid": "tenant", "idtyp": "user"}
WANTED: Final = Wanted(frozenset({"agent"}), "user", "tenant")


def judged(wanted: Wanted, *lines: tuple[str, str], sent: str = "") -> Outcome:
    """Judge an answer that says what arrived at the API."""
    body = json.dumps({"headers": lines}).encode()
    cases = Cases.__new__(Cases)
    return cases._judge("bearer", Answer(200, body), wanted, Whose(), sent)


@pytest.mark.parametrize(
    "changed", [{"appid": "other"}, {"oid": "other"}, {"tid": "other"}, {"idtyp": "app"}]
)
def test_the_judge_takes_no_other_identity(changed: dict[str, Any]) -> None:
    """Agent, user, tenant, and a user's or an application's own: each alone makes it wrong."""
    right = judged(WANTED, ("authorization", f"Bearer {token(**GOOD)}"))
    wrong = judged(WANTED, ("authorization", f"Bearer {token(**GOOD | changed)}"))

    assert ("right", "wrong") == (right.result, wrong.result)


def test_the_judge_takes_no_other_header() -> None:
    """None, two, the caller's own, one beside a reference, and any at all where nobody may call."""
    good = ("authorization", f"Bearer {token(**GOOD)}")
    outcomes = [
        judged(WANTED),
        judged(WANTED, good, good),
        judged(WANTED, good, sent=token(**GOOD)),
        judged(WANTED, good, ("baggage", "authz-subject=x")),
        judged(Wanted(frozenset(), None, "tenant"), good),
    ]

    assert ["wrong"] * 5 == [outcome.result for outcome in outcomes]


def test_a_fault_explains_its_own_denials_only() -> None:
    """By user, agent and tenant, by reason, and by time."""
    ledger, now = Ledger(), monotonic()
    entry = ledger.begin(Whose(user="alice"), REFUSED)
    unavailable = Reason.EXCHANGE_UNAVAILABLE.value

    def explains(whose: Whose, reason: str, began: float) -> bool:
        return ledger.explains(whose, reason, began, began + 0.1)

    assert explains(Whose(user="alice", agent="desk"), unavailable, now)
    assert not explains(Whose(user="bob"), unavailable, now)
    assert not explains(Whose(user="alice"), Reason.INTERNAL.value, now)
    assert not explains(Whose(user="alice"), unavailable, now - 10)
    entry.ended = now
    assert explains(Whose(user="alice"), unavailable, now + FLIGHT)
    assert not explains(Whose(user="alice"), unavailable, now + FLIGHT + 2)


async def test_the_same_seed_asks_the_same(fleet: Fleet) -> None:
    """Kinds and users of two workers that draw alike."""
    asked = []
    for _ in range(2):
        async with Connections() as wire:
            cases = Cases(fleet, "a caller", wire)
            # A request that has two parts may be denied at the first one.
            asked.append([(await cases.next()).kind.removesuffix(", in") for _ in range(40)])

    assert asked[0] == asked[1]
