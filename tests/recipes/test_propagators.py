"""What real propagators make of callers' baggage: behind authz they find our member, and no other."""

import asyncio
from collections import Counter
from typing import Final

import pytest

from recipes.agents import require_environment
from recipes.propagators import NUMBER, Attack, attack, node, on_egress, python, read, users

pytestmark = pytest.mark.recipes

SEED: Final = 20261129
PROGRAMS: Final = {"python": python, "node": node}
SHOWN: Final = 500
"""How many spellings show that they are read as a member of ours where nobody takes them away."""


@pytest.fixture(scope="module")
def attacked() -> Attack:
    """Requests, as they were sent and as they arrive."""
    return asyncio.run(attack(SEED, NUMBER))


@pytest.mark.parametrize("language", PROGRAMS)
def test_propagators_find_the_callers_handle_and_no_other(language: str, attacked: Attack) -> None:
    """In every spelling; and what they send on is the caller's call."""
    require_environment()
    found = read(PROGRAMS[language](), attacked.arrived)
    wrong = [
        (lines, name, finding)
        for lines, findings in zip(attacked.sent, found, strict=True)
        for name, finding in findings.items()
        if not users(finding) <= {attacked.own} or on_egress(finding) not in (attacked.own, None)
    ]
    w3c = {on_egress(finding) for one in found for name, finding in one.items() if "w3c" in name}

    assert [] == wrong[:3]
    assert {attacked.own} == w3c


@pytest.mark.parametrize("language", PROGRAMS)
def test_without_authz_many_spellings_would_name_the_other_user(
    language: str, attacked: Attack
) -> None:
    """For each propagator there are some, so that the test above shows something."""
    require_environment()
    found = read(PROGRAMS[language](), attacked.sent[:SHOWN])
    named = Counter(
        name
        for findings in found
        for name, finding in findings.items()
        if attacked.victim in users(finding)
    )

    assert set(found[0]) == set(named)
    assert sum(named.values()) > SHOWN / 2
