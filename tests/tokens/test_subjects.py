"""References in memory: found for as long as they count, bounded, and never taken for one another."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.errors import UnknownSubject
from authz.core.moment import Moment
from authz.core.secret import Secret
from authz.core.subject import Origin, Reference
from authz.tokens.references import SubjectMemory
from support.fakes.clock import START, at
from support.fakes.properties import brief

CHAT: Final = Origin("chat", "agent-1", None)
LATE: Final = START + 10_000


def memory(
    *, max_entries: int = 100, max_bytes: int = 10**6, max_age: float = 600.0
) -> SubjectMemory:
    """A store of its own."""
    return SubjectMemory(max_entries=max_entries, max_bytes=max_bytes, max_age=max_age)


async def give(
    store: SubjectMemory,
    token: str,
    origin: Origin = CHAT,
    *,
    expires_at: float = LATE,
    now: float = START,
) -> Reference:
    """Return the reference to a token."""
    return await store.give(Secret(token), origin, expires_at=expires_at, now=at(now))


async def found(store: SubjectMemory, reference: Reference, now: float = START) -> str | None:
    """Return the token that a reference stands for."""
    try:
        return (await store.find(reference.secret, at(now))).token.reveal()
    except UnknownSubject:
        return None


async def test_a_reference_stands_for_the_token_it_was_given_for() -> None:
    """It is 256 random bits and has nothing of the token in it."""
    store = memory()
    one, two = await give(store, "one"), await give(store, "two")

    assert ["one", "two"] == [await found(store, one), await found(store, two)]
    assert 43 == len(one.secret)
    assert one.secret != two.secret


async def test_the_same_user_at_the_same_place_gets_the_same_reference() -> None:
    """What is held grows with users, not with requests."""
    store = memory()
    first = await give(store, "one")

    assert first == await give(store, "one", now=START + 299)
    assert 1 == len(store)


@pytest.mark.parametrize(
    "origin",
    [Origin("other", "agent-1", None), Origin("chat", None, None), Origin("chat", "agent-1", "p")],
)
async def test_another_place_gets_a_reference_of_its_own(origin: Origin) -> None:
    """Which counts there and nowhere else."""
    store = memory()
    here, there = await give(store, "one"), await give(store, "one", origin)

    assert here.secret != there.secret
    assert origin == (await store.find(there.secret, at(START))).origin


async def test_halfway_a_new_one_is_given_and_the_old_one_goes_on_to_its_end() -> None:
    """Whoever works with it has at least half of its time."""
    store = memory()
    old = await give(store, "one")
    new = await give(store, "one", now=START + 300)

    assert old.secret != new.secret
    assert (600, 900) == (old.expires_at.steady, new.expires_at.steady)
    assert "one" == await found(store, old, START + 599)
    assert await found(store, old, START + 600) is None
    assert "one" == await found(store, new, START + 600)


async def test_no_reference_outlives_its_token() -> None:
    """And there is no point in another one before."""
    store = memory()
    reference = await give(store, "one", expires_at=START + 100)

    assert at(START + 100) == reference.expires_at == reference.renew_at
    assert reference == await give(store, "one", expires_at=START + 100, now=START + 99)
    assert await found(store, reference, START + 100) is None


async def test_what_makes_room_is_unknown_and_its_user_gets_another() -> None:
    """The least recently used goes. Eviction refuses; it never confuses."""
    store = memory(max_entries=2)
    one, two = await give(store, "one"), await give(store, "two")
    assert store.holds(one.secret, at(START))
    three = await give(store, "three")

    assert ["one", None, "three"] == [await found(store, each) for each in (one, two, three)]
    assert (2, 1) == (len(store), store.evictions)
    assert not store.holds(two.secret, at(START))
    again = await give(store, "two")
    assert two.secret != again.secret
    assert "two" == await found(store, again)


async def test_a_flood_of_users_takes_no_more_than_its_room() -> None:
    """In bytes as well as in number, and what remembers the ends of entries too."""
    store = memory(max_entries=50, max_bytes=10**5)
    for number in range(2000):
        await give(store, f"{number}-{'x' * 1000}", now=START + number / 1000)

    assert 20 < len(store) <= 50
    assert len(store._ends) <= 2 * 50 + 65
    assert store.evictions == 2000 - len(store)


async def test_what_has_ended_is_forgotten_unasked() -> None:
    """Nobody's token stays because nobody came back."""
    store = memory()
    await give(store, "one", expires_at=START + 10)
    last = await give(store, "two", expires_at=START + 20)
    store.sweep(at(START + 9))
    assert 2 == len(store)
    store.sweep(at(START + 10))
    assert 1 == len(store)
    assert "two" == await found(store, last, START + 19)
    store.sweep(at(START + 10_000))

    assert 0 == len(store)


async def test_a_shorter_age_counts_for_the_next_reference() -> None:
    """What was given out keeps its promise."""
    store = memory()
    old = await give(store, "one")
    store.max_age = 10.0
    new = await give(store, "two")

    assert [600, 10] == [old.expires_at.steady, new.expires_at.steady]


ACTION: Final = st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.integers(0, 400))


@brief
@given(st.lists(ACTION, max_size=60), st.integers(1, 4))
async def test_no_reference_ever_stands_for_another(
    actions: list[tuple[int, str, int]], room: int
) -> None:
    """Users, routes and times in any order, with too little room: the right one or none."""
    store, now = memory(max_entries=room), START
    given_out: list[tuple[Reference, str, Origin]] = []
    for user, route, pause in actions:
        now += pause
        store.sweep(at(now))
        origin = Origin(route, None, None)
        given_out.append(
            (await give(store, f"user-{user}", origin, now=now), f"user-{user}", origin)
        )
        for reference, token, place in given_out:
            try:
                subject = await store.find(reference.secret, at(now))
            except UnknownSubject:
                continue
            assert (token, place) == (subject.token.reveal(), subject.origin)
            assert not reference.expires_at.has_come(at(now))
        assert len(store) <= room


@pytest.mark.parametrize("set_by", [-86_400.0, -3600.0, 3600.0])
async def test_a_reference_ends_in_time_whoever_sets_the_wall_clock(set_by: float) -> None:
    """Its age is counted. That of a request on its way does not end early either."""
    store = memory()
    reference = await give(store, "one")
    almost = Moment(START + set_by + 599, 599)
    end = Moment(START + set_by + 600, 600)

    assert store.holds(reference.secret, almost)
    assert not store.holds(reference.secret, end)
    store.sweep(end)
    assert 0 == len(store)


async def test_a_reference_ends_with_its_token_by_either_clock() -> None:
    """When the wall clock says so, and when the time that was left has passed."""
    store = memory()
    one, two = [await give(store, token, expires_at=START + 100) for token in ("one", "two")]

    assert not store.holds(one.secret, Moment(START + 100, 0))
    assert not store.holds(two.secret, Moment(START - 3600, 100))
