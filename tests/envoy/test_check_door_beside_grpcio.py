"""The Check door and grpcio's server hear the same bytes (`support.beside_grpcio`). A long run is a command.

`make fuzz` sends a million frames.
"""

from pathlib import Path
from typing import Final

import pytest

from authz.doors.envoy.http2.frames import Code
from support.beside_grpcio.comparison import INTENDED, Way, differences
from support.beside_grpcio.conversations import conversation
from support.beside_grpcio.corpus import kept, outcomes
from support.beside_grpcio.exchange import Heard, Outcome
from support.beside_grpcio.mutations import FLIPPED, MUTATIONS
from support.beside_grpcio.oddities import ODDITIES
from support.beside_grpcio.run import Report, run, serving
from support.beside_grpcio.speaker import Asked, Conversation

QUICK: Final = 4_000
MANY: Final = 20_000
ANSWERED: Final = Outcome({":status": "200", "grpc-status": "0"}, b"\0\0\0\0\1x", ended=True)
REFUSED: Final = Outcome({":status": "200", "grpc-status": "13"}, ended=True)


def _assert_is_good(report: Report) -> None:
    assert not report.found
    assert report.outcomes["answered", "answered"] > report.conversations
    assert report.outcomes["connection ended", "connection ended"]


async def test_what_grpcio_answers_is_answered_and_what_it_refuses_is_refused(
    tmp_path: Path,
) -> None:
    """Unless a reason is listed: random conversations, of which a tenth break a rule."""
    _assert_is_good(await run(tmp_path, seed=1, frames=QUICK))


@pytest.mark.thorough
async def test_many_conversations_end_alike(tmp_path: Path) -> None:
    """Others, and more of them."""
    _assert_is_good(await run(tmp_path, seed=1_000_000, frames=MANY))


async def test_kept_conversations_end_as_they_did(tmp_path: Path) -> None:
    """Each broken rule, each odd call and each step: at our server as written down, and beside grpcio's."""
    async with serving(tmp_path) as servers:
        for each in kept():
            ours, _, found = await servers.converse(each.said)
            assert [] == [one for one in found if one.reason is None], each.about
            assert (each.ended, each.outcomes) == (ours.ended, outcomes(each.said, ours)), (
                each.about
            )


def test_each_way_to_break_a_rule_is_kept() -> None:
    """And each odd call. A flipped bit is left out: its place decides what it breaks."""
    assert {*MUTATIONS, *ODDITIES} - {FLIPPED} <= {each.about for each in kept()}


def test_reasons_are_of_what_is_tried() -> None:
    """No reason is left of what is said no longer."""
    assert {about for about, _ in INTENDED} <= {*MUTATIONS, *ODDITIES}


def test_equal_seeds_are_equal_conversations() -> None:
    """So that a finding can be repeated."""
    assert conversation(7) == conversation(7)
    assert conversation(7) != conversation(8)


@pytest.mark.parametrize(
    ("ours", "theirs", "way"),
    [
        (REFUSED, ANSWERED, Way.STRICTER),
        (ANSWERED, REFUSED, Way.LAXER),
        (ANSWERED, Outcome(ANSWERED.fields, b"\0\0\0\0\1y", ended=True), Way.OTHER),
        (Outcome(reset=Code.INTERNAL_ERROR), REFUSED, Way.DEFECT),
        (Outcome({"grpc-message": "defect"}, ended=True), REFUSED, Way.DEFECT),
    ],
    ids=["stricter", "laxer", "other", "an internal error", "a defect"],
)
def test_a_difference_is_seen(ours: Outcome, theirs: Outcome, way: Way) -> None:
    """Of a call that keeps to the rules."""
    said = Conversation(streams={1: Asked("another", ANSWERED.body, whole=True)})

    assert [way] == [each.way for each in differences(said, Heard({1: ours}), Heard({1: theirs}))]


@pytest.mark.parametrize("ours", [REFUSED, Outcome(ANSWERED.fields, b"\0\0\0\0\1y", ended=True)])
def test_an_ordinary_call_has_its_echo(ours: Outcome) -> None:
    """Even where grpcio does the same."""
    said = Conversation(streams={1: Asked("ordinary", ANSWERED.body, whole=True)})

    assert [Way.DEFECT] == [
        each.way for each in differences(said, Heard({1: ours}), Heard({1: ours}))
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "way"),
    [
        (Heard(code=1), Heard(), Way.STRICTER),
        (Heard(), Heard(closed=True), Way.LAXER),
        (Heard(silent=True), Heard(), Way.SILENT),
        (Heard(code=Code.INTERNAL_ERROR), Heard(code=1), Way.DEFECT),
    ],
    ids=["stricter", "laxer", "silent", "an internal error"],
)
def test_a_different_end_is_seen(ours: Heard, theirs: Heard, way: Way) -> None:
    """Of the connection."""
    assert [way] == [each.way for each in differences(Conversation(), ours, theirs)]


@pytest.mark.parametrize("ends", ["call", "connection"])
def test_which_error_is_told_is_a_servers_choice(ends: str) -> None:
    """For the call, or for the connection."""
    said = Conversation(streams={1: Asked(whole=True)}, mutation="no :path", victim=1)
    one, other = Heard({1: Outcome(reset=1)}), Heard(code=9)
    ours, theirs = (one, other) if ends == "call" else (other, one)

    assert [] == differences(said, ours, theirs)
