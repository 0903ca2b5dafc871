"""The `baggage` header: our member is found however it is spelled, and foreign ones stay as they are."""

import re
from typing import Final
from urllib.parse import quote, unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.baggage import MAX_BYTES, MAX_MEMBERS, MEMBER, Baggage, mentions_own
from authz.core.secret import Secret
from support.properties import thorough

VALUE: Final = "v" * 43
SPELLINGS: Final = st.one_of(
    st.just(MEMBER),
    st.just(MEMBER.upper()),
    st.just(f" {MEMBER}\t"),
    st.just(f"+{MEMBER}+"),
    st.just(quote(MEMBER, safe="").replace("-", "%2D")),
    st.lists(st.booleans(), min_size=len(MEMBER), max_size=len(MEMBER)).map(
        lambda which: "".join(
            f"%{ord(letter):02x}" if encoded else letter
            for letter, encoded in zip(MEMBER, which, strict=True)
        )
    ),
)
TEXT: Final = st.text(st.characters(codec="utf-8", exclude_characters=","), max_size=30)
FOREIGN: Final = TEXT.filter(lambda text: not ours(text))
PROPERTIES: Final = st.sampled_from(["", ";p", "; p = q;r"])


def ours(member: str) -> bool:
    """Whether a library that decodes, trims and ignores case would take a member for ours."""
    return unquote_plus(re.split("[=;]", member)[0]).strip().casefold() == MEMBER


def parse(header: str) -> Baggage:
    """Take a header apart."""
    return Baggage.parse(Secret(header))


@thorough
@given(st.lists(st.tuples(SPELLINGS, TEXT, PROPERTIES) | FOREIGN, max_size=8))
def test_members_of_ours_are_found_however_they_are_spelled(
    members: list[tuple[str, str, str] | str],
) -> None:
    """What app libraries would take for ours is taken out, and everything else is kept."""
    own = [
        f"{key}={value}{rest}" for key, value, rest in (m for m in members if isinstance(m, tuple))
    ]
    foreign = [member.strip() for member in members if isinstance(member, str)]
    header = ",".join(m if isinstance(m, str) else f"{m[0]}={m[1]}{m[2]}" for m in members)
    found = parse(header)

    assert [member.strip() for member in own] == [member.reveal() for member in found.own]
    assert tuple(member for member in foreign if member) == found.foreign
    assert not own or mentions_own(Secret(header))


@thorough
@given(st.text(max_size=200))
def test_no_text_breaks_it(header: str) -> None:
    """And what goes on has no member of ours in it, whoever reads it."""
    kept = parse(header).without_own()

    assert kept is None or not any(ours(member) for member in kept.reveal().split(","))


def test_a_header_that_is_not_there_is_empty() -> None:
    """There is nothing to set then."""
    assert Baggage() == Baggage.parse(None)
    assert Baggage().without_own() is None


def test_ours_comes_first_and_others_keep_their_order_and_properties() -> None:
    """Others may cut the end off."""
    found = parse(f"a=1;p=q, b=%20 ,{MEMBER}=old,,c")

    assert f"{MEMBER}={VALUE},a=1;p=q,b=%20,c" == found.with_own(VALUE).reveal()
    kept = found.without_own()
    assert kept is not None
    assert "a=1;p=q,b=%20,c" == kept.reveal()


@pytest.mark.parametrize(
    ("members", "kept"),
    [
        ([f"k{n}=v" for n in range(MAX_MEMBERS - 1)], MAX_MEMBERS - 1),
        ([f"k{n}=v" for n in range(MAX_MEMBERS)], MAX_MEMBERS - 1),
        (["k=" + "x" * (MAX_BYTES - len(MEMBER) - 1 - 43 - 1 - 2)], 1),
        (["k=" + "x" * (MAX_BYTES - len(MEMBER) - 1 - 43 - 1 - 1)], 0),
        (["a=b", "k=" + "é" * (MAX_BYTES // 2), "c=d"], 1),
    ],
    ids=["as many as fit", "one more", "as long as fits", "a byte longer", "bytes, not letters"],
)
def test_with_ours_the_header_stays_within_what_others_must_propagate(
    members: list[str], kept: int
) -> None:
    """Foreign members go first, from the end."""
    header = parse(",".join(members)).with_own(VALUE).reveal()

    assert [f"{MEMBER}={VALUE}", *members[:kept]] == header.split(",")
    assert len(header.encode()) <= MAX_BYTES


@pytest.mark.parametrize("header", ["", "a=b", "authz=1,subject=2"])
def test_baggage_of_others_is_passed_by_quickly(header: str) -> None:
    """Most requests have none of ours."""
    assert not mentions_own(Secret(header))
