"""`Shares`: everybody's own places, whatever the others take."""

from collections import Counter
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.shares import Shares

HOLDERS: Final = ("a", "b", "c")


def _fill(shares: Shares, holder: str) -> int:
    """Take as many places as the holder gets; return how many those are."""
    count = 0
    while shares.take(holder):
        count += 1
    return count


def test_a_single_holder_gets_everything() -> None:
    """Where there is nobody to protect, nothing is kept back."""
    assert 16 == _fill(Shares(16, holders=1), "a")


@pytest.mark.parametrize(
    ("total", "holders", "least", "guaranteed", "rest"),
    [
        (16, 2, 2, 4, 8),
        (16, 3, 2, 2, 10),
        (16, 100, 2, 2, 8),
        (1, 2, 1, 1, 0),
        (1000, 10, 16, 50, 500),
        (16, 0, 2, 16, 0),
    ],
)
def test_half_of_the_places_is_divided_and_the_rest_is_shared(
    total: int, holders: int, least: int, guaranteed: int, rest: int
) -> None:
    """With many holders the smallest share counts, and there are more places."""
    shares = Shares(total, holders=holders, least=least)

    assert (guaranteed, rest) == (shares.guaranteed, shares.rest)
    assert guaranteed * max(1, holders) + rest == shares.total


def test_one_holder_takes_at_most_half_of_the_rest() -> None:
    """The next one then gets half of what is left beside its own share."""
    shares = Shares(16, holders=2)

    assert [4 + 4, 4 + 2] == [_fill(shares, "a"), _fill(shares, "b")]
    assert [8, 6, 0] == [shares.taken(holder) for holder in ("a", "b", "stranger")]


def test_a_place_that_is_given_back_can_be_taken_again() -> None:
    """Of the rest and of the holder's own share."""
    shares = Shares(16, holders=2)
    taken = _fill(shares, "a")
    for _ in range(taken):
        shares.give_back("a")

    assert 0 == shares.taken("a")
    assert taken == _fill(shares, "a")


@given(
    total=st.integers(1, 20),
    steps=st.lists(st.tuples(st.sampled_from(HOLDERS), st.booleans()), max_size=60),
)
def test_whatever_others_do_a_holder_has_its_share(
    total: int, steps: list[tuple[str, bool]]
) -> None:
    """After any sequence of takings and returns, each gets what is guaranteed, within the total."""
    shares = Shares(total, holders=len(HOLDERS))
    taken: Counter[str] = Counter()
    for holder, takes in steps:
        if takes:
            taken[holder] += shares.take(holder)
        elif taken[holder]:
            shares.give_back(holder)
            taken[holder] -= 1
    for holder in HOLDERS:
        taken[holder] += _fill(shares, holder)

    assert all(taken[holder] >= shares.guaranteed for holder in HOLDERS)
    assert taken.total() <= shares.total
    assert taken == Counter({holder: shares.taken(holder) for holder in HOLDERS})
