"""`Throttle`: an application is held back when Entra's 429 cannot be about one user, and not for longer."""

from typing import Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from authz.core.circuit import HEAD_START, WHILE_PROBING, Attempt
from authz.core.errors import Reason
from authz.core.throttle import (
    FORGOTTEN_AFTER,
    MOST_QUESTIONS,
    PROBE_EVERY,
    ApplicationThrottled,
    Throttle,
)
from support.fakes.properties import thorough

LONG: Final = 10.0
"""Seconds that a call may take."""


def begin(throttle: Throttle, now: float, question: str = "fresh") -> Attempt:
    """Begin a call, which must be allowed."""
    throttle.check(now, question)
    attempt = Attempt(now, now + LONG)
    throttle.begin(attempt)
    return attempt


def refuse(throttle: Throttle, now: float, question: str, seconds: float = 30.0) -> None:
    """Carry out a call that is answered 429 now."""
    throttle.refused(begin(throttle, now, question), now, seconds=seconds, question=question)


def held(seconds: float = 30.0) -> Throttle:
    """Return a throttle that is held from second 0 on."""
    throttle = Throttle()
    for question in ("alice", "bob", "carol"):
        refuse(throttle, 0.0, question, seconds)
    return throttle


def refusal(throttle: Throttle, now: float, question: str = "fresh") -> float | None:
    """Return after how many seconds to ask again; None if one may ask now."""
    try:
        throttle.check(now, question)
    except ApplicationThrottled as error:
        return error.retry_after
    return None


def test_the_429_of_two_users_holds_nobody_else_back() -> None:
    """However often it comes: it may be about these users."""
    throttle = Throttle()
    for second in range(6):
        refuse(throttle, float(second), ["alice", "bob"][second % 2])

    assert not throttle.is_held(6.0)
    assert refusal(throttle, 6.0) is None


def test_the_429_of_a_third_user_holds_the_application_back() -> None:
    """Nobody asks until the later time that Entra named, and each refusal says how long that is."""
    throttle = Throttle()
    refuse(throttle, 0.0, "alice", 20.0)
    refuse(throttle, 0.0, "bob", 50.0)
    refuse(throttle, 1.0, "carol", 30.0)

    assert [49.0, 0.5, None] == [refusal(throttle, now) for now in (1.0, 49.5, 50.0)]
    with pytest.raises(ApplicationThrottled) as caught:
        throttle.check(2.0, "dave")
    assert Reason.EXCHANGE_THROTTLED is caught.value.reason


def test_a_429_whose_time_is_over_does_not_count() -> None:
    """Users who are throttled at different times are users."""
    throttle = Throttle()
    refuse(throttle, 0.0, "alice", 5.0)
    refuse(throttle, 4.0, "bob", 5.0)
    refuse(throttle, 5.0, "carol", 5.0)

    assert not throttle.is_held(5.0)


def test_an_answer_in_between_shows_that_users_were_meant() -> None:
    """The application was served after the 429."""
    throttle = Throttle()
    refuse(throttle, 0.0, "alice")
    refuse(throttle, 0.0, "bob")
    throttle.answered(begin(throttle, 1.0))
    refuse(throttle, 2.0, "carol")

    assert not throttle.is_held(2.0)


def test_the_answer_to_an_earlier_call_shows_nothing() -> None:
    """It began when Entra may not have throttled yet."""
    throttle = Throttle()
    earlier = begin(throttle, 0.0)
    refuse(throttle, 1.0, "alice")
    refuse(throttle, 1.0, "bob")
    throttle.answered(earlier)
    refuse(throttle, 2.0, "carol")
    throttle.answered(earlier)

    assert throttle.is_held(2.0)


def test_calls_that_were_under_way_prolong_it() -> None:
    """Entra named a later time to one of them."""
    throttle = Throttle()
    late = begin(throttle, 0.0)
    for question in ("alice", "bob", "carol"):
        refuse(throttle, 0.0, question, 10.0)
    throttle.refused(late, 1.0, seconds=20.0, question="dave")

    assert [20.0, None] == [refusal(throttle, now) for now in (1.0, 21.0)]


def test_one_probe_decides_when_the_time_is_over() -> None:
    """Others wait for its answer, and then all are served."""
    throttle = held()
    probe = begin(throttle, 30.0)
    during = refusal(throttle, 30.5)
    throttle.answered(probe)

    assert WHILE_PROBING == during
    assert refusal(throttle, 30.6) is None
    assert throttle.is_idle(30.6)


def test_a_probe_that_is_refused_holds_it_back_for_as_long_as_it_was_told_then() -> None:
    """Also where that is a shorter time than the one before."""
    throttle = held(100.0)
    throttle.refused(begin(throttle, 60.0), 60.0, seconds=7.0, question="dave")

    assert [7.0, None] == [refusal(throttle, now) for now in (60.0, 67.0)]


def test_who_was_refused_leaves_the_probe_to_others() -> None:
    """It may be throttled alone, and would hold the application back by each probe."""
    throttle = held(10.0)
    refused = [refusal(throttle, now, "alice") for now in (10.0, 10.0 + HEAD_START)]
    probe = begin(throttle, 11.0, "dave")
    throttle.answered(probe)

    assert [HEAD_START, None] == refused
    assert refusal(throttle, 11.1, "alice") is None
    assert throttle.is_idle(11.1)


def test_who_was_refused_asks_where_nobody_else_does() -> None:
    """A little later, and the answer counts."""
    throttle = held(10.0)
    refuse(throttle, 10.0 + HEAD_START, "alice", 5.0)

    assert 5.0 == refusal(throttle, 10.0 + HEAD_START)


def test_questions_that_are_remembered_are_bounded() -> None:
    """The oldest one is forgotten, and may be a probe."""
    throttle = Throttle()
    flying = [begin(throttle, 0.0) for _ in range(MOST_QUESTIONS + 1)]
    for number, call in enumerate(flying):
        throttle.refused(call, 0.0, seconds=10.0, question=f"user {number}")

    assert [None, HEAD_START] == [refusal(throttle, 10.0, f"user {number}") for number in (0, 1)]


def test_a_long_time_is_probed_once_a_minute() -> None:
    """These users may be meant, and not the application."""
    throttle = held(3600.0)
    before = refusal(throttle, PROBE_EVERY - 1)
    probe = begin(throttle, PROBE_EVERY)
    during = refusal(throttle, PROBE_EVERY)
    throttle.answered(probe)

    assert [3600.0 - PROBE_EVERY + 1, 3600.0 - PROBE_EVERY] == [before, during]
    assert refusal(throttle, PROBE_EVERY) is None


def test_a_probe_without_an_answer_leaves_its_place_to_the_next_call() -> None:
    """Whether it says so, or is not heard of any more."""
    throttle = held()
    throttle.abandoned(begin(throttle, 30.0))
    begin(throttle, 31.0)

    assert WHILE_PROBING == refusal(throttle, 32.0)
    assert refusal(throttle, 31.0 + LONG) is None


def test_other_calls_without_an_answer_change_nothing() -> None:
    """They show nothing."""
    throttle = Throttle()
    call = begin(throttle, 0.0)
    for question in ("alice", "bob", "carol"):
        refuse(throttle, 0.0, question)
    throttle.abandoned(call)

    assert 29.0 == refusal(throttle, 1.0)


def test_after_a_calm_nobody_asks_first() -> None:
    """All may ask, and what was refused long ago does not count."""
    throttle = held(10.0)
    now = 10.0 + FORGOTTEN_AFTER
    begin(throttle, now)

    assert refusal(throttle, now) is None
    assert throttle.is_idle(now)
    refuse(throttle, now, "carol")
    assert not throttle.is_held(now)
    assert not throttle.is_idle(now)


class ThrottleMachine(RuleBasedStateMachine):
    """Any calls at any times: at most one probe, and always a way back."""

    def __init__(self) -> None:
        super().__init__()
        self.throttle = Throttle()
        self.now = 1000.0
        self.flying: list[Attempt] = []

    @rule(seconds=st.floats(0.0, 70.0))
    def wait(self, seconds: float) -> None:
        """Time passes, and calls that are over by then are forgotten."""
        self.now += seconds
        self.flying = [attempt for attempt in self.flying if attempt.ends > self.now]

    @rule(question=st.sampled_from("abcde"))
    def call(self, question: str) -> None:
        """Somebody asks."""
        wait = refusal(self.throttle, self.now, question)
        if wait is None:
            self.flying.append(begin(self.throttle, self.now, question))
        else:
            assert 0.0 < wait < 3600.1 + HEAD_START
            assert self.throttle.is_held(self.now)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), outcome=st.sampled_from(["answer", "429", "nothing"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        """A call ends."""
        attempt = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        if outcome == "answer":
            self.throttle.answered(attempt)
        elif outcome == "429":
            seconds = data.draw(st.sampled_from([1.0, 30.0, 3600.0]))
            question = data.draw(st.sampled_from("abcde"))
            self.throttle.refused(attempt, self.now, seconds=seconds, question=question)
        else:
            self.throttle.abandoned(attempt)

    @invariant()
    def there_is_always_a_way_back(self) -> None:
        """Once a minute has passed and a probe is over, somebody may ask."""
        self.throttle.check(self.now + LONG + PROBE_EVERY, "fresh")


ThrottleMachine.TestCase.settings = thorough
TestThrottle = ThrottleMachine.TestCase
