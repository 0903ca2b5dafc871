"""Moments by two clocks: whichever clock is wrong, nothing lasts longer than it may."""

import operator
from collections.abc import Callable
from math import inf

import pytest

from authz.core.moment import NEVER, Moment, earliest

NOW = Moment(1000.0, 10.0)


@pytest.mark.parametrize(
    ("now", "has_come"),
    [
        (Moment(1099.9, 109.9), False),
        (Moment(1100.0, 10.0), True),
        (Moment(500.0, 110.0), True),
        (Moment(500.0, 109.9), False),
    ],
    ids=["neither", "wall clock alone", "counted alone", "set back and not yet"],
)
def test_an_end_has_come_as_soon_as_one_clock_says_so(now: Moment, has_come: bool) -> None:
    """A wall clock that is set back prolongs nothing, and one that goes further ends what it says."""
    assert has_come == NOW.later(100.0).has_come(now)


def test_what_we_count_is_not_changed_by_whoever_sets_the_wall_clock() -> None:
    """An hour ahead or back: so many seconds are so many seconds."""
    end = NOW.counted(5.0)

    assert [False, False] == [end.has_come(Moment(wall, 14.9)) for wall in (-2600.0, 4600.0)]
    assert [True, True] == [end.has_come(Moment(wall, 15.0)) for wall in (-2600.0, 4600.0)]


def test_an_end_that_a_token_names_is_counted_as_well() -> None:
    """From the second it names follows how long that is from now."""
    assert Moment(1300.0, 310.0) == NOW.epoch(1300.0)
    assert Moment(900.0, -90.0) == NOW.epoch(900.0)


def test_the_earliest_end_is_so_by_either_clock() -> None:
    """One names the earlier second, the other one the shorter time."""
    assert Moment(1.0, 3.0) == earliest(Moment(1.0, 9.0), Moment(2.0, 3.0), NEVER)


def test_what_is_left_is_the_lesser_of_both() -> None:
    """And less than nothing when it has passed."""
    assert 5.0 == Moment(1005.0, 99.0).left(NOW)
    assert -1.0 == Moment(inf, 9.0).left(NOW)


@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
def test_moments_have_no_order(compare: Callable[[Moment, Moment], bool]) -> None:
    """By which clock? A tuple's order would be that of the one that somebody sets."""
    with pytest.raises(TypeError):
        compare(NOW, NEVER)
