"""How long an allowance holds: one row for each thing that it may rest on."""

from dataclasses import replace
from typing import Any, Final

import pytest

from authz.core.exchange import IssuedToken
from authz.core.lifetime import LOOK_AGAIN, ONCE, Lifetime, lifetime, usable_until
from authz.core.moment import NEVER, Moment
from authz.core.secret import Secret
from authz.core.subject import Reference
from support.fakes.clock import START, at
from support.fakes.principals import principal

NOW: Final = at(START)
MARGIN: Final = 60.0


def after(seconds: float) -> Moment:
    """So many seconds from now, by both clocks."""
    return NOW.later(seconds)


def token(ends: float, refresh: float) -> IssuedToken:
    """A token by its end and the time from which a successor is due, in seconds from now."""
    return IssuedToken(Secret("issued"), after(ends), after(refresh))


def reference(ends: float, renew: float) -> Reference:
    """A reference by its end and the time from which another is given."""
    return Reference(Secret("r"), after(ends), after(renew))


@pytest.mark.parametrize(
    ("rests_on", "ends", "reuse_until"),
    [
        ({}, NEVER, NEVER),
        ({"expires": 100}, after(100), after(100)),
        ({"token": token(3600, 1800)}, after(3540), after(1800)),
        ({"token": token(3600, 3600)}, after(3540), after(3540)),
        ({"token": token(3600, 0)}, after(3540), Moment(after(3540).wall, NOW.steady + LOOK_AGAIN)),
        ({"token": token(60.5, -1)}, after(0.5), after(0.5)),
        ({"token": token(3600, 1800), "expires": 100}, after(100), after(100)),
        ({"token": token(3600, 1800), "subject_ends": after(90)}, after(90), after(90)),
        ({"expires": 100, "subject_ends": after(90)}, after(90), after(90)),
        ({"expires": 1000, "reference": reference(600, 300)}, after(600), after(300)),
        ({"expires": 200, "reference": reference(600, 300)}, after(200), after(200)),
        ({"expires": -10}, after(-10), after(-10)),
    ],
)
def test_an_allowance_ends_with_the_first_thing_that_it_rests_on(
    rests_on: dict[str, Any], ends: Moment, reuse_until: Moment
) -> None:
    """And is not reused past the time at which a successor should be fetched."""
    expires = rests_on.pop("expires", None)
    caller = None if expires is None else replace(principal(), expires_at=START + expires)
    found = lifetime(NOW, principal=caller, margin=MARGIN, **{"token": None, **rests_on})

    assert Lifetime(ends, reuse_until) == found


@pytest.mark.parametrize(
    ("ends", "most", "seconds"),
    [(after(100), 30.0, 30.0), (after(10), 30.0, 10.0), (after(-1), 30.0, 0.0), (NEVER, 0.0, 0.0)],
)
def test_envoys_cache_repeats_an_answer_no_longer_than_it_holds(
    ends: Moment, most: float, seconds: float
) -> None:
    """Nor longer than configured."""
    assert seconds == Lifetime(ends, ends).at_edge(most, NOW)


def test_what_is_allowed_once_is_not_repeated() -> None:
    """At any time and by either clock."""
    assert 0.0 == ONCE.at_edge(30.0, NOW)
    assert ONCE.reuse_until.has_come(NOW)


def test_a_token_is_handed_out_until_the_margin_before_its_end() -> None:
    """So that it still lives when the API looks at it."""
    assert after(540) == usable_until(token(600, 300), MARGIN)
