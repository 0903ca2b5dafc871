"""How far the machine's clock is from Entra's: what an answer's `Date` says, and how often the log does."""

from email.utils import formatdate
from typing import Any

import pytest
from structlog.testing import capture_logs

from authz.entra.server_clock import ServerClock
from support.fakes.clock import Clock as Epoch

NOON = 1_800_000_000.0


def heard(clock: Epoch, server_clock: ServerClock, seconds: float, **more: str) -> float | None:
    """Let the clock be so many seconds ahead of an answer, and return the difference that is found."""
    clock.advance(NOON + seconds - clock())
    server_clock.note({"date": formatdate(NOON, usegmt=True), **more})
    return server_clock.difference


@pytest.mark.parametrize("seconds", [0.0, 0.9, -1.0, 1.9])
def test_a_second_or_two_is_no_difference(seconds: float) -> None:
    """`Date` has no fractions, and an answer takes its time."""
    clock = Epoch(NOON)

    assert 0.0 == heard(clock, ServerClock(clock), seconds)


@pytest.mark.parametrize(
    "headers",
    [{}, {"date": ""}, {"date": "yesterday"}, {"date": "Wed, 99 Foo 2026 99:99:99 GMT"}],
)
def test_an_answer_without_a_date_says_nothing(headers: dict[str, str]) -> None:
    """What was known before stays."""
    clock = Epoch(NOON)
    server_clock = ServerClock(clock)
    heard(clock, server_clock, 30.0)
    server_clock.note(headers)

    assert 30.0 == server_clock.difference


def test_the_age_of_an_answer_counts() -> None:
    """An answer that a cache held for ten minutes does not make a right clock ten minutes fast."""
    clock = Epoch(NOON)

    assert 0.0 == heard(clock, ServerClock(clock), 600.0, age="600")
    assert 600.0 == heard(clock, ServerClock(clock), 600.0, age="²")


def test_the_log_says_it_once_for_each_change() -> None:
    """Not with each fetch of keys, nor for a drift of seconds; and again where it went further."""
    clock = Epoch(NOON)
    server_clock = ServerClock(clock)
    with capture_logs() as logs:
        for seconds in (0, 59, 600, 601, 640, 900, -120, -121, 5, 2):
            heard(clock, server_clock, seconds)

    assert [
        ("clock differs", 600),
        ("clock differs", 900),
        ("clock differs", -120),
        ("clock agrees again", 5),
    ] == [(line["event"], line["seconds"]) for line in logs]


def test_another_instance_does_not_say_it_again() -> None:
    """A new configuration begins with what the one before it knew."""
    clock = Epoch(NOON)
    before, after = ServerClock(clock), ServerClock(clock)
    heard(clock, before, 600)
    with capture_logs() as logs:
        after.adopt(before)
        known: Any = after.difference
        heard(clock, after, 601)

    assert (600.0, []) == (known, logs)
