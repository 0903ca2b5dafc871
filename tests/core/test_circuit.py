"""`Circuit`: opened by an endpoint that keeps failing, and by nothing else; closed by its first answer."""

from collections.abc import Hashable
from typing import Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from authz.core.circuit import (
    FAILURES,
    FIRST_PAUSE,
    HEAD_START,
    LONGEST_PAUSE,
    MOST_FAILING,
    SPAN,
    WHILE_PROBING,
    WINDOW,
    Attempt,
    Circuit,
    CircuitOpen,
    CircuitState,
)
from authz.core.errors import Reason
from support.fakes.properties import thorough

LONG: Final = 10.0
"""Seconds that a call may take."""


def begin(circuit: Circuit, now: float, question: Hashable = "fresh") -> Attempt:
    """Begin a call."""
    return circuit.begin(now, question, ends=now + LONG)


def fail(circuit: Circuit, now: float, question: Hashable = None) -> None:
    """Carry out a call that fails now, by default for somebody whom nobody knows."""
    question = object() if question is None else question
    circuit.failed(begin(circuit, now, question), now, question)


def opened() -> Circuit:
    """Return a circuit that opened at the second `SPAN`."""
    circuit = Circuit()
    for number in range(FAILURES):
        fail(circuit, SPAN * number / (FAILURES - 1))
    return circuit


def refusal(circuit: Circuit, now: float, question: Hashable = "fresh") -> float | None:
    """Return after how many seconds to ask again; None if one may ask now."""
    try:
        circuit.check(now, question)
    except CircuitOpen as error:
        return error.retry_after
    return None


def test_failures_in_a_row_open_it() -> None:
    """Nobody asks until the pause is over, and every refusal says when that is."""
    circuit = opened()

    assert CircuitState.OPEN is circuit.state
    assert [FIRST_PAUSE, 0.25] == [
        refusal(circuit, SPAN),
        refusal(circuit, SPAN + FIRST_PAUSE - 0.25),
    ]
    with pytest.raises(CircuitOpen) as caught:
        begin(circuit, SPAN)
    assert Reason.EXCHANGE_UNAVAILABLE is caught.value.reason


def test_an_answer_in_between_leaves_it_closed() -> None:
    """Failures count only as long as there is nothing else."""
    circuit = Circuit()
    for number in range(5 * FAILURES):
        fail(circuit, SPAN * number)
        if number % (FAILURES - 1):
            circuit.succeeded()

    assert CircuitState.CLOSED is circuit.state


def test_a_short_disturbance_leaves_it_closed() -> None:
    """However many calls it meets."""
    circuit = Circuit()
    for number in range(100):
        fail(circuit, 5.0 + SPAN * number / 101)
    before = circuit.state
    fail(circuit, 5.0 + SPAN)

    assert [CircuitState.CLOSED, CircuitState.OPEN] == [before, circuit.state]


def test_calls_that_hang_count_from_their_beginning() -> None:
    """Three that hung side by side have shown enough."""
    circuit = Circuit()
    for number, attempt in enumerate([begin(circuit, 0.0) for _ in range(FAILURES)]):
        circuit.failed(attempt, SPAN, number)

    assert CircuitState.OPEN is circuit.state


def test_failures_of_long_ago_do_not_count() -> None:
    """An endpoint that nobody asks is not made ill by one failure now and another one in an hour."""
    circuit = Circuit()
    for number in range(5 * FAILURES):
        fail(circuit, (WINDOW + 1) * number)

    assert (CircuitState.CLOSED, 1) == (circuit.state, circuit.failures)


def test_the_failures_of_one_user_open_nothing() -> None:
    """They may be about the user; those of others count beside them (law 8)."""
    circuit = Circuit()
    for number in range(20):
        fail(circuit, SPAN * number, "alice")
    alone = circuit.state
    fail(circuit, SPAN * 20, "bob")
    fail(circuit, SPAN * 21, "carol")

    assert [CircuitState.CLOSED, CircuitState.OPEN] == [alone, circuit.state]


def test_one_call_at_a_time_tries_the_endpoint() -> None:
    """The first one after the pause; others are refused for a second."""
    circuit = opened()
    now = SPAN + FIRST_PAUSE
    begin(circuit, now)

    assert CircuitState.HALF_OPEN is circuit.state
    assert WHILE_PROBING == refusal(circuit, now)


def test_an_answer_to_the_probe_closes_it() -> None:
    """And all is as it was at first."""
    circuit = opened()
    now = SPAN + FIRST_PAUSE
    begin(circuit, now)
    circuit.succeeded()
    after = circuit.state
    fail(circuit, now)

    assert [CircuitState.CLOSED] * 2 == [after, circuit.state]
    assert (1, FIRST_PAUSE, None) == (circuit.failures, circuit.pause, refusal(circuit, now))


def test_a_probe_that_fails_opens_it_for_twice_as_long() -> None:
    """Up to a longest pause."""
    circuit, now, pauses = opened(), SPAN, []
    for _ in range(6):
        pause = refusal(circuit, now)
        assert pause is not None
        pauses.append(pause)
        now += pause
        fail(circuit, now)

    assert [1.0, 2.0, 4.0, 8.0, LONGEST_PAUSE, LONGEST_PAUSE] == pauses


def test_a_late_answer_closes_it_and_a_late_failure_changes_nothing() -> None:
    """Of calls that began before it opened: the one shows that the endpoint is well, the other is known."""
    circuit = Circuit()
    late = begin(circuit, 0.0)
    for number in range(FAILURES):
        fail(circuit, SPAN * number)
    now = SPAN * FAILURES
    circuit.failed(late, now, "late")
    unchanged = circuit.state, circuit.pause
    circuit.succeeded()

    assert (CircuitState.OPEN, FIRST_PAUSE) == unchanged
    assert CircuitState.CLOSED is circuit.state


@pytest.mark.parametrize("is_told", [True, False])
def test_a_probe_that_shows_nothing_leaves_its_place_to_the_next_call(is_told: bool) -> None:
    """Whether it says so, or never ends."""
    circuit = opened()
    now = SPAN + FIRST_PAUSE
    probe = begin(circuit, now)
    if is_told:
        circuit.abandoned(probe)
    else:
        now += LONG
    may_ask = refusal(circuit, now)
    begin(circuit, now)

    assert (None, WHILE_PROBING) == (may_ask, refusal(circuit, now))


def test_a_call_that_shows_nothing_changes_nothing() -> None:
    """It never reached the endpoint."""
    circuit = Circuit()
    circuit.abandoned(begin(circuit, 0.0))

    assert CircuitState.CLOSED is circuit.state


def test_who_failed_leaves_the_probe_to_others() -> None:
    """The failures may be about that user, whose probes would keep it open."""
    circuit = Circuit()
    for number, user in enumerate(("a", "b", "c")):
        fail(circuit, SPAN * number / 2, user)
    due = SPAN + FIRST_PAUSE
    refused = refusal(circuit, due, "a")
    begin(circuit, due, "d")
    circuit.succeeded()

    assert HEAD_START == refused
    assert refusal(circuit, due, "a") is None


def test_who_failed_probes_where_nobody_else_does() -> None:
    """A little later; and a probe that fails is remembered as well."""
    circuit = Circuit()
    for number, user in enumerate(("a", "b", "c")):
        fail(circuit, SPAN * number / 2, user)
    due = SPAN + FIRST_PAUSE + HEAD_START
    assert refusal(circuit, due, "a") is None
    circuit.failed(begin(circuit, due, "d"), due, "d")
    next_one = due + 2 * FIRST_PAUSE

    assert [None, HEAD_START] == [refusal(circuit, next_one, user) for user in ("e", "d")]


def test_those_who_failed_are_remembered_up_to_a_bound() -> None:
    """The oldest one is forgotten."""
    circuit = Circuit()
    flying = [begin(circuit, 0.0) for _ in range(MOST_FAILING + 1)]
    for number, attempt in enumerate(flying):
        circuit.failed(attempt, SPAN * number / MOST_FAILING, f"user {number}")

    due = SPAN + FIRST_PAUSE
    assert [None, HEAD_START] == [refusal(circuit, due, f"user {n}") for n in (0, MOST_FAILING)]


def test_after_a_calm_it_is_closed() -> None:
    """Nobody knows any more whether the endpoint fails, so everybody asks, and no alert lasts for ever."""
    circuit = opened()
    now = SPAN + FIRST_PAUSE + WINDOW
    states = [circuit.is_open(moment) for moment in (SPAN, now - 0.1, now)]
    attempts = [begin(circuit, now) for _ in range(2)]

    assert [True, True, False] == states
    assert CircuitState.CLOSED is circuit.state
    assert 2 == len(attempts)


class CircuitMachine(RuleBasedStateMachine):
    """Any calls at any times: at most one probe, never shut for longer than the longest pause."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit()
        self.now = 1000.0
        self.flying: list[Attempt] = []

    @rule(seconds=st.floats(0.0, 12.0))
    def wait(self, seconds: float) -> None:
        """Time passes, and calls that are over by then are forgotten."""
        self.now += seconds
        self.flying = [attempt for attempt in self.flying if attempt.ends > self.now]

    @rule(question=st.sampled_from("abcdef"))
    def call(self, question: str) -> None:
        """Somebody asks."""
        wait = refusal(self.circuit, self.now, question)
        if wait is None:
            self.flying.append(begin(self.circuit, self.now, question))
        else:
            assert 0.0 < wait <= LONGEST_PAUSE + HEAD_START
            assert self.circuit.state is not CircuitState.CLOSED

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), outcome=st.sampled_from(["answer", "failure", "nothing"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        """A call ends."""
        attempt = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        if outcome == "answer":
            self.circuit.succeeded()
            assert CircuitState.CLOSED is self.circuit.state
        elif outcome == "failure":
            self.circuit.failed(attempt, self.now, data.draw(st.sampled_from("abcdef")))
        else:
            self.circuit.abandoned(attempt)

    @invariant()
    def there_is_always_a_way_back(self) -> None:
        """Once the longest pause and a probe are over, somebody may ask."""
        self.circuit.check(self.now + LONG + LONGEST_PAUSE, "fresh")


CircuitMachine.TestCase.settings = thorough
TestCircuit = CircuitMachine.TestCase
