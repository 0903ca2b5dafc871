"""Caches: bounded, least recently used, and never a second longer than allowed."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import pytest

from authz.core.cache import (
    ENTRY_OVERHEAD,
    BoundedCache,
    FailureCache,
    PrincipalCache,
    RejectionCache,
    TokenCache,
)
from authz.core.errors import ConsentRequired
from authz.core.exchange import IssuedToken
from authz.core.moment import Moment
from authz.core.secret import Secret
from support.fakes.clock import START, at
from support.fakes.principals import principal

MARGIN: Final = 60.0
NOW: Final = at(START)
LATER: Final = NOW.later(100.0)


def _texts(*, max_entries: int = 10, max_bytes: int = 100) -> BoundedCache[str]:
    return BoundedCache(max_entries=max_entries, max_bytes=max_bytes, size_of=len)


def test_an_entry_is_found_until_the_second_it_expires() -> None:
    """At `expires_at` itself the entry is gone, and its memory too."""
    cache = _texts()
    cache.put(b"key", "value", expires_at=LATER, now=NOW)

    assert "value" == cache.get(b"key", LATER.later(-0.001))
    assert cache.get(b"key", LATER) is None
    assert (0, 0) == (len(cache), cache.bytes)


def test_an_expired_value_is_not_held() -> None:
    """What ends now is of no use to anyone."""
    cache = _texts()
    cache.put(b"key", "value", expires_at=NOW, now=NOW)

    assert 0 == len(cache)


def test_an_expired_successor_drops_its_predecessor() -> None:
    """The older answer was replaced, not confirmed."""
    cache = _texts()
    cache.put(b"key", "old", expires_at=LATER, now=NOW)
    cache.put(b"key", "new", expires_at=NOW, now=NOW)

    assert cache.get(b"key", NOW) is None


def test_the_least_recently_used_entry_makes_room() -> None:
    """Looking at an entry keeps it."""
    cache = _texts(max_entries=2)
    cache.put(b"a", "a", expires_at=LATER, now=NOW)
    cache.put(b"b", "b", expires_at=LATER, now=NOW)
    cache.get(b"a", NOW)
    cache.put(b"c", "c", expires_at=LATER, now=NOW)

    assert ["a", None, "c"] == [cache.get(key, NOW) for key in (b"a", b"b", b"c")]
    assert 1 == cache.evictions


def test_for_a_key_that_comes_back_any_entry_makes_room_but_the_one_used_last() -> None:
    """It was evicted of late: more comes round than there is room for."""
    chosen = iter([2, 1])
    cache = BoundedCache[str](
        max_entries=3, max_bytes=100, size_of=len, choose=lambda *_: next(chosen)
    )
    left = []
    for key in (b"a", b"b", b"c", b"d", b"a", b"b", b"x"):
        cache.put(key, "v", expires_at=LATER, now=NOW)
        left.append(b"".join(sorted(cache._entries)))

    # For "d" the oldest, "a"; for "a" the oldest, "b", as the chosen "d" was used last; for "b" the
    # chosen "d"; for "x", which is new, the oldest, "c".
    assert [b"a", b"ab", b"abc", b"bcd", b"acd", b"abc", b"abx"] == left


def hits(keys: Iterable[int], *, places: int, unmeasured: int) -> float:
    """The part of look-ups that are met, of those after the first so many."""
    cache = _texts(max_entries=places, max_bytes=10**9)
    met = []
    for key in keys:
        name = key.to_bytes(8, "big")
        found = cache.get(name, NOW)
        met.append(found is not None)
        if found is None:
            cache.put(name, "v", expires_at=LATER, now=NOW)
    return sum(met[unmeasured:]) / len(met[unmeasured:])


def test_most_of_a_round_that_is_a_fifth_too_large_is_met() -> None:
    """1,200 users in turn, places for 1,000: least recently used alone would meet nobody."""
    assert hits([*range(1200)] * 20, places=1000, unmeasured=12_000) > 0.6


def test_users_who_come_instead_of_others_are_met_as_soon_as_they_have_come() -> None:
    """Whoever is gone makes room for them, and nobody who is there: they are all met at their second call."""
    before, after = range(800), range(1000, 1800)

    assert 1.0 == hits([*before] * 5 + [*after] * 5, places=1000, unmeasured=5 * 800 + 800)


def test_passers_by_leave_those_who_call_often() -> None:
    """Tokens that are used once push each other out."""
    often = [key for number in range(20_000) for key in (number % 500, 10_000 + number)]

    assert hits(often, places=1000 + 1, unmeasured=10_000) > 0.49


def test_as_many_entries_make_room_as_a_large_one_needs() -> None:
    """The bound in bytes holds after each put."""
    cache = _texts(max_bytes=10)
    for key in (b"a", b"b", b"c"):
        cache.put(key, "123", expires_at=LATER, now=NOW)
    cache.put(b"d", "1234567", expires_at=LATER, now=NOW)

    assert [None, None, "123", "1234567"] == [cache.get(k, NOW) for k in (b"a", b"b", b"c", b"d")]
    assert (10, 2) == (cache.bytes, cache.evictions)


def test_a_value_larger_than_the_cache_evicts_nobody() -> None:
    """It is not held, and costs the others nothing."""
    cache = _texts(max_bytes=10)
    cache.put(b"a", "1", expires_at=LATER, now=NOW)
    cache.put(b"b", "12345678901", expires_at=LATER, now=NOW)

    assert ("1", None, 0) == (cache.get(b"a", NOW), cache.get(b"b", NOW), cache.evictions)


def test_a_cache_without_room_holds_nothing() -> None:
    """Zero entries switches a cache off."""
    cache = _texts(max_entries=0)
    cache.put(b"a", "1", expires_at=LATER, now=NOW)

    assert (0, 0) == (len(cache), cache.evictions)


def test_replacing_an_entry_counts_it_once() -> None:
    """Its old bytes are given back."""
    cache = _texts()
    cache.put(b"a", "12345", expires_at=LATER, now=NOW)
    cache.put(b"a", "1", expires_at=LATER, now=NOW)

    assert (1, 1, "1") == (len(cache), cache.bytes, cache.get(b"a", NOW))


def test_what_is_dropped_is_gone_and_may_be_dropped_again() -> None:
    """Dropping is about the outcome; an unknown key has it already."""
    cache = _texts()
    cache.put(b"a", "1", expires_at=LATER, now=NOW)
    cache.drop(b"a")
    cache.drop(b"a")

    assert (None, 0, 0) == (cache.get(b"a", NOW), len(cache), cache.bytes)


def _tokens(*, max_entries: int = 10, max_bytes: int = 10**6) -> TokenCache:
    return TokenCache(max_entries=max_entries, max_bytes=max_bytes, margin=MARGIN)


TOKEN: Final = IssuedToken(Secret("issued"), NOW.later(3600.0), NOW.later(1800.0))


def test_a_token_is_handed_out_until_its_margin() -> None:
    """It must still live when the API looks at it."""
    cache = _tokens()
    cache.put(b"key", TOKEN, subject_expires_at=None, now=NOW)
    end = TOKEN.expires_at.later(-MARGIN)

    assert TOKEN == cache.get(b"key", end.later(-0.001))
    assert cache.get(b"key", end) is None


def test_a_token_is_not_handed_out_once_the_subject_token_expired() -> None:
    """What was issued for the user's token ends with it."""
    cache = _tokens()
    cache.put(b"key", TOKEN, subject_expires_at=LATER.wall, now=NOW)

    assert TOKEN == cache.get(b"key", LATER.later(-0.001))
    assert cache.get(b"key", LATER) is None


def test_a_longer_lived_subject_token_does_not_prolong_a_token() -> None:
    """The earlier of the two ends counts."""
    cache = _tokens()
    cache.put(b"key", TOKEN, subject_expires_at=TOKEN.expires_at.wall * 2, now=NOW)

    assert cache.get(b"key", TOKEN.expires_at.later(-MARGIN)) is None


def test_a_token_that_lives_no_longer_than_its_margin_is_not_held() -> None:
    """It is for this one request."""
    cache = _tokens()
    short = replace(TOKEN, expires_at=NOW.later(MARGIN))
    cache.put(b"key", short, subject_expires_at=None, now=NOW)

    assert 0 == len(cache)


def test_tokens_are_bounded_in_bytes_and_entries() -> None:
    """A token costs its length and an overhead."""
    by_bytes = _tokens(max_bytes=2 * (ENTRY_OVERHEAD + len(TOKEN.secret)))
    by_entries = _tokens(max_entries=2)
    for key in (b"a", b"b", b"c"):
        by_bytes.put(key, TOKEN, subject_expires_at=None, now=NOW)
        by_entries.put(key, TOKEN, subject_expires_at=None, now=NOW)

    assert (2, 1) == (len(by_bytes), by_bytes.evictions)
    assert (2, 1) == (len(by_entries), by_entries.evictions)


def test_a_dropped_token_is_gone() -> None:
    """Entra no longer takes it."""
    cache = _tokens()
    cache.put(b"key", TOKEN, subject_expires_at=None, now=NOW)
    cache.drop(b"key")

    assert cache.get(b"key", NOW) is None


def test_a_failure_stands_for_its_seconds_under_its_own_key() -> None:
    """Nobody else meets it, and it does not outstay its time."""
    cache = FailureCache(max_entries=10)
    failure = ConsentRequired()
    cache.put(b"key", failure, seconds=5.0, now=NOW)

    assert cache.get(b"key", NOW.later(4.999)) is failure
    assert cache.get(b"other", NOW) is None
    assert cache.get(b"key", NOW.later(5.0)) is None


def test_a_failure_of_no_duration_does_not_stand() -> None:
    """Zero seconds means: ask again."""
    cache = FailureCache(max_entries=10)
    cache.put(b"key", ConsentRequired(), seconds=0.0, now=NOW)

    assert 0 == len(cache)


def test_failures_are_bounded() -> None:
    """The newest are kept."""
    cache = FailureCache(max_entries=2)
    for key in (b"a", b"b", b"c"):
        cache.put(key, ConsentRequired(), seconds=5.0, now=NOW)

    assert 2 == len(cache)
    assert cache.get(b"a", NOW) is None


def test_a_dropped_failure_is_gone() -> None:
    """A success makes it untrue."""
    cache = FailureCache(max_entries=2)
    cache.put(b"key", ConsentRequired(), seconds=5.0, now=NOW)
    cache.drop(b"key")

    assert cache.get(b"key", NOW) is None


PRINCIPAL: Final = replace(principal(), expires_at=LATER.wall)
ROUTE: Final = b"e" * 32
TOKEN_DIGEST: Final = b"t" * 32


def _principals(*, max_entries: int = 10, max_bytes: int = 10**6) -> PrincipalCache:
    return PrincipalCache(max_entries=max_entries, max_bytes=max_bytes)


def test_a_verification_is_remembered_until_the_token_expires() -> None:
    """`exp` itself is the end: the leeway is for tokens that arrive, not for what we keep."""
    cache = _principals()
    cache.put(ROUTE, TOKEN_DIGEST, PRINCIPAL, now=NOW)

    assert cache.get(ROUTE, TOKEN_DIGEST, LATER.later(-0.001)) is PRINCIPAL
    assert cache.get(ROUTE, TOKEN_DIGEST, LATER) is None


@pytest.mark.parametrize(
    ("expectation", "token"), [(b"x" * 32, TOKEN_DIGEST), (ROUTE, b"x" * 32)],
    ids=["another expectation", "another token"],
)  # fmt: skip
def test_a_verification_counts_for_its_token_and_expectation_only(
    expectation: bytes, token: bytes
) -> None:
    """Neither another token nor another route's demand was met by it."""
    cache = _principals()
    cache.put(ROUTE, TOKEN_DIGEST, PRINCIPAL, now=NOW)

    assert cache.get(expectation, token, NOW) is None


def test_a_dropped_verification_is_gone() -> None:
    """Its key was withdrawn."""
    cache = _principals()
    cache.put(ROUTE, TOKEN_DIGEST, PRINCIPAL, now=NOW)
    cache.drop(ROUTE, TOKEN_DIGEST)

    assert (None, 0) == (cache.get(ROUTE, TOKEN_DIGEST, NOW), len(cache))


def test_verifications_are_bounded_in_entries() -> None:
    """As many callers as fit, and no more."""
    cache = _principals(max_entries=1)
    cache.put(ROUTE, TOKEN_DIGEST, PRINCIPAL, now=NOW)
    cache.put(ROUTE, b"x" * 32, PRINCIPAL, now=NOW)

    assert 1 == len(cache)


def test_a_principal_costs_more_with_each_permission() -> None:
    """Many roles fill the memory that the bound is about."""
    many = replace(PRINCIPAL, roles=frozenset(str(number) for number in range(100)))
    cache = _principals(max_bytes=ENTRY_OVERHEAD + 300)
    cache.put(ROUTE, TOKEN_DIGEST, PRINCIPAL, now=NOW)
    cache.put(ROUTE, b"x" * 32, many, now=NOW)

    assert cache.get(ROUTE, TOKEN_DIGEST, NOW) is PRINCIPAL
    assert cache.get(ROUTE, b"x" * 32, NOW) is None


def test_a_principal_costs_more_with_longer_names() -> None:
    """A few very long role names fill memory as surely as many short ones."""
    long = replace(PRINCIPAL, roles=frozenset({"r" * 10_000}))
    cache = _principals(max_bytes=5_000)
    cache.put(ROUTE, TOKEN_DIGEST, long, now=NOW)

    assert cache.get(ROUTE, TOKEN_DIGEST, NOW) is None


def test_verifications_that_had_to_make_room_are_counted() -> None:
    """The least recently used goes."""
    cache = _principals(max_entries=1)
    for token in (b"a" * 32, b"b" * 32):
        cache.put(ROUTE, token, PRINCIPAL, now=NOW)

    assert (1, 1) == (len(cache), cache.evictions)


def test_refused_tokens_may_be_dropped_less_and_less_often() -> None:
    """After one minute, two, four, up to the longest; and from the beginning after a calm of that length."""
    cache = RejectionCache(max_entries=10, first=60.0, longest=240.0)

    dropped = [second for second in range(0, 1300, 10) if cache.note(b"key", second)]
    calm = [cache.note(b"key", second) for second in (2000.0, 2050.0, 2060.0)]

    assert [0, 60, 180, 420, 660, 900, 1140] == dropped
    assert [True, False, True] == calm


def test_refusals_are_remembered_by_exchange_and_bounded() -> None:
    """The API's refusal of one user's token says nothing of another's."""
    cache = RejectionCache(max_entries=2)

    first = [cache.note(key, 0.0) for key in (b"a", b"b", b"c")]
    second = [cache.note(key, 1.0) for key in (b"c", b"a")]

    assert [True, True, True] == first
    assert [False, True] == second


@pytest.mark.parametrize("set_by", [-86_400.0, -3600.0, 0.0, 50.0])
def test_no_entry_outlives_its_time_whoever_sets_the_wall_clock(set_by: float) -> None:
    """A hundred seconds have passed: that is the end, whatever the wall clock shows."""
    tokens, verifications = _tokens(), _principals()
    tokens.put(b"key", TOKEN, subject_expires_at=LATER.wall, now=NOW)
    verifications.put(ROUTE, TOKEN_DIGEST, PRINCIPAL, now=NOW)
    later = Moment(LATER.wall + set_by, LATER.steady)

    assert tokens.get(b"key", later) is None
    assert verifications.get(ROUTE, TOKEN_DIGEST, later) is None


def test_what_the_wall_clock_says_has_ended_is_not_handed_out() -> None:
    """No time has passed, but the second is there that the token names."""
    tokens, verifications = _tokens(), _principals()
    tokens.put(b"key", TOKEN, subject_expires_at=LATER.wall, now=NOW)
    verifications.put(ROUTE, TOKEN_DIGEST, PRINCIPAL, now=NOW)
    ahead = Moment(LATER.wall, NOW.steady)

    assert tokens.get(b"key", ahead) is None
    assert verifications.get(ROUTE, TOKEN_DIGEST, ahead) is None


@pytest.mark.parametrize("set_by", [-86_400.0, -3600.0, 3600.0, 86_400.0])
def test_a_failure_stands_for_its_seconds_whoever_sets_the_wall_clock(set_by: float) -> None:
    """An hour back must not make an hour of one second."""
    cache = FailureCache(max_entries=2)
    failure = ConsentRequired()
    cache.put(b"key", failure, seconds=5.0, now=NOW)

    assert cache.get(b"key", Moment(NOW.wall + set_by, NOW.steady + 4.9)) is failure
    assert cache.get(b"key", Moment(NOW.wall + set_by, NOW.steady + 5.0)) is None
