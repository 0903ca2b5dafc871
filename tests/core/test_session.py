"""`SessionOwners`: who used a session first, and what is forgotten when there is no more room."""

from typing import Final

import pytest

from authz.core.errors import AmbiguousRequest, ForeignSession
from authz.core.operation import Body
from authz.core.principal import Subject, SubjectType
from authz.core.request import CheckRequest
from authz.core.secret import Secret
from authz.core.session import SessionOwners

ALICE: Final = Subject("tenant", "alice", SubjectType.USER)
BOB: Final = Subject("tenant", "bob", SubjectType.USER)
DESK: Final = "desk"


PATHS: Final = ("/mcp",)


def claim(owners: SessionOwners, session: str, caller: Subject, called: str = DESK) -> None:
    """Use a session."""
    owners.claim(CheckRequest(session=Secret(session)), called, caller, PATHS)


def test_who_uses_a_session_first_has_it() -> None:
    """Whatever else a token of theirs says. Others are refused, as often as they try."""
    owners = SessionOwners(100)
    claim(owners, "s1", ALICE)
    for _ in range(2):
        with pytest.raises(ForeignSession):
            claim(owners, "s1", BOB)
        claim(owners, "s1", Subject("tenant", "alice", SubjectType.APPLICATION))
    with pytest.raises(ForeignSession):
        claim(owners, "s1", Subject("other", "alice", SubjectType.USER))
    claim(owners, "s2", BOB)
    claim(owners, "s1", BOB, called="clerk")

    assert 3 == len(owners)


@pytest.mark.parametrize(
    "session", ["", "a,b", "a, b", "a b", " a", "a\n", "é", "a\x7f", "a!", "!a", "x" * 1025]
)
def test_what_is_not_exactly_one_id_is_refused(session: str) -> None:
    """A server may take the first of two, or the last, and strip off a byte for which Envoy shows !."""
    owners = SessionOwners(100)
    with pytest.raises(AmbiguousRequest):
        claim(owners, session, ALICE)

    assert 0 == len(owners)


def test_ids_of_any_visible_characters_are_taken() -> None:
    """But for the comma and ! (MCP 2025-11-25: 0x21 to 0x7E). Another case is no other id."""
    owners = SessionOwners(100)
    visible = "".join(map(chr, range(0x21, 0x7F))).replace(",", "").replace("!", "")
    claim(owners, visible, ALICE)
    for same in (visible, visible.lower(), visible.upper()):
        with pytest.raises(ForeignSession, match="alice of tenant tenant"):
            claim(owners, same, BOB)


def test_one_caller_forgets_their_own_sessions_only() -> None:
    """Who opens more than a tenth of all has the last ones; what others opened stays theirs."""
    owners = SessionOwners(100)
    claim(owners, "hers", ALICE)
    for number in range(1000):
        claim(owners, f"his{number}", BOB)

    assert 1 + 10 == len(owners)
    with pytest.raises(ForeignSession):
        claim(owners, "hers", BOB)
    with pytest.raises(ForeignSession):
        claim(owners, "his999", ALICE)
    claim(owners, "his0", ALICE)


def test_sessions_used_longest_ago_are_forgotten_first() -> None:
    """Where many callers have some. A bound that is changed counts from the next use on."""
    owners = SessionOwners(20)
    for number in range(20):
        claim(owners, f"s{number}", Subject("tenant", f"user{number}", SubjectType.USER))
    claim(owners, "s0", Subject("tenant", "user0", SubjectType.USER))
    claim(owners, "new", ALICE)

    assert 20 == len(owners)
    with pytest.raises(ForeignSession):
        claim(owners, "s0", BOB)
    claim(owners, "s1", BOB)
    owners.most = 5
    claim(owners, "s1", BOB)
    assert 5 == len(owners)


def test_a_much_smaller_bound_is_reached_in_steps() -> None:
    """A reload may lower it. Nobody waits while thousands are forgotten."""
    owners = SessionOwners(100_000)
    for number in range(200):
        claim(owners, f"s{number}", Subject("tenant", f"user{number}", SubjectType.USER))
    owners.most = 100
    held = []
    for _ in range(20):
        claim(owners, "s199", Subject("tenant", "user199", SubjectType.USER))
        held.append(len(owners))

    assert 200 > held[0] > held[1] > 100
    assert 100 == held[-1]


def test_who_names_no_session_opens_one() -> None:
    """By a message. An Envoy of before may not show the session that is read or ended."""
    owners = SessionOwners(100)
    body = Body(b"", is_whole=True)
    for request in (
        CheckRequest(path="/mcp"),
        CheckRequest(path="/mcp", body=body, outdated=True),
        CheckRequest(path="/card", outdated=True),
    ):
        owners.claim(request, DESK, ALICE, PATHS)
    with pytest.raises(AmbiguousRequest, match="of before"):
        owners.claim(CheckRequest(path="/mcp?x=1", outdated=True), DESK, ALICE, PATHS)

    assert 0 == len(owners)
