"""Remembered answers: given again to the same question only, bounded, and never a second too long."""

import gc
import weakref
from dataclasses import replace
from typing import Any, Final

import pytest

from authz.core.answer import MAX_SITUATIONS, AnswerCache
from authz.core.cache import ENTRY_OVERHEAD
from authz.core.decision import Allow
from authz.core.exchange import Flow
from authz.core.lifetime import Lifetime
from authz.core.moment import Moment
from authz.core.outcome import Granted
from authz.core.request import Authorization, CheckRequest
from authz.core.route import EgressRoute, Forward, InboundRoute, PeerSource
from authz.core.secret import Secret
from support.fakes.clock import START, Clock, at
from support.fakes.principals import principal
from support.fakes.routes import route_of
from support.fakes.tenant import FakeTenant

NOW: Final = at(START)
LATER: Final = NOW.later(100.0)
DELEGATED: Final = route_of("graph", Flow.ON_BEHALF_OF)
OWN: Final = route_of("own", Flow.AUTONOMOUS)
ASKED: Final = CheckRequest(
    "GET", "graph.example", "/", Authorization("Bearer a"), direction="egress", route="graph"
)


def _cache(*, max_entries: int = 10, max_bytes: int = 10**8) -> AnswerCache:
    return AnswerCache(max_entries=max_entries, max_bytes=max_bytes)


def _answer(
    route: EgressRoute = DELEGATED, value: str = "issued", until: Moment = LATER
) -> Granted:
    return Granted(route, Allow(Secret(value)), Lifetime(LATER, until), principal())


def _changed(**changes: Any) -> CheckRequest:
    return ASKED._replace(**changes)


def _get(cache: AnswerCache, request: CheckRequest, now: Moment) -> Granted | None:
    return cache.find(request, "", now)


def test_an_answer_is_given_again_to_the_same_question() -> None:
    """Method, path, request id and trace have no part in a decision."""
    cache, answer = _cache(), _answer()
    cache.put(ASKED, answer, NOW)
    again = _changed(
        method="POST", path="/other", request_id="2", traceparent="x", host="b.example"
    )

    assert answer is _get(cache, again, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"authorization": Authorization("Bearer b")},
        {"authorization": Authorization("bearer a")},
        {"authorization": None},
        {"direction": "inbound"},
        {"direction": None},
        {"route": "other"},
        {"route": None},
        {"host": ""},
        {"peer": "spiffe://a/b"},
        {"source_principal": "spiffe://a/b"},
        {"own_headers": ("x-authz-subject",)},
        {"at_edge": True},
        {"outdated": True},
    ],
    ids=str,
)
def test_another_question_is_not_answered(changes: dict[str, Any]) -> None:
    """Whatever a decision depends on is part of the key."""
    cache = _cache()
    cache.put(ASKED, _answer(), NOW)

    assert _get(cache, _changed(**changes), NOW) is None


def test_a_route_that_is_found_by_host_is_another_for_another_host() -> None:
    """Without a name from Envoy the host decides."""
    cache, unnamed = _cache(), _changed(route=None)
    cache.put(unnamed, _answer(), NOW)

    assert _get(cache, unnamed, NOW) is not None
    assert _get(cache, unnamed._replace(host="b.example"), NOW) is None


def test_a_route_that_an_outdated_envoy_names_is_another_for_another_host() -> None:
    """The host decides with the name, and no text that a client sends as host is that of all hosts."""
    cache, outdated = _cache(), _changed(outdated=True)
    cache.put(outdated, _answer(), NOW)
    cache.put(ASKED, _answer(), NOW)

    assert _get(cache, outdated, NOW) is not None
    assert _get(cache, outdated._replace(host="b.example"), NOW) is None
    assert _get(cache, outdated._replace(host="*"), NOW) is None


@pytest.mark.parametrize("authorization", [None, Authorization("Bearer b")])
def test_what_the_app_sent_does_not_matter_where_the_route_does_not_read_it(
    authorization: Authorization | None,
) -> None:
    """The answer of an app-only flow is everybody's, and takes one place."""
    cache, answer = _cache(), _answer(OWN)
    cache.put(ASKED, answer, NOW)

    assert answer is _get(cache, _changed(authorization=authorization), NOW)
    assert 1 == len(cache)


def test_an_answer_stands_until_its_time() -> None:
    """And not at that second any more."""
    cache = _cache()
    cache.put(ASKED, _answer(until=NOW.later(10)), NOW)

    assert _get(cache, ASKED, NOW.later(9.9)) is not None
    assert _get(cache, ASKED, NOW.later(10)) is None


def test_a_dropped_answer_is_gone() -> None:
    """And one that was never there can be dropped."""
    cache = _cache()
    cache.drop(ASKED, "")
    cache.put(ASKED, _answer(), NOW)
    cache.drop(ASKED, "")

    assert _get(cache, ASKED, NOW) is None
    assert 0 == len(cache)


def test_an_answer_to_a_request_without_a_value_is_for_such_requests() -> None:
    """A route that reads the value, and finds the user elsewhere."""
    cache, answer = _cache(), _answer()
    cache.put(_changed(authorization=None), answer, NOW)

    assert answer is _get(cache, _changed(authorization=None), NOW)
    assert _get(cache, ASKED, NOW) is None


OURS = Secret(f"authz-subject={'r' * 43}")


@pytest.mark.parametrize("route", [DELEGATED, OWN], ids=lambda route: route.name)
@pytest.mark.parametrize(
    "other",
    [
        None,
        Secret(f"authz-subject={'s' * 43}"),
        Secret(f"{OURS.reveal()},a=b"),
        Secret(f"{OURS.reveal()},{OURS.reveal()}"),
        Secret("authz%2dsubject=x"),
        Secret("a=b"),
    ],
    ids=["none", "another", "foreign", "twice", "encoded", "only foreign"],
)
def test_an_answer_to_a_reference_is_for_that_one(route: EgressRoute, other: Secret | None) -> None:
    """Whatever the route reads: with the reference, baggage is changed; and it may be the user."""
    cache, answer = _cache(), _answer(route)
    cache.put(_changed(baggage=OURS), answer, NOW)

    assert answer is _get(cache, _changed(baggage=OURS), NOW)
    assert _get(cache, _changed(baggage=other), NOW) is None


def test_baggage_of_others_alone_tells_no_requests_apart() -> None:
    """It is neither read nor changed, and may be another one with each request."""
    cache, answer = _cache(), _answer()
    cache.put(_changed(baggage=Secret("a=b")), answer, NOW)

    assert answer is _get(cache, _changed(baggage=Secret("a=c")), NOW)
    assert answer is _get(cache, ASKED, NOW)


def test_where_a_handle_is_put_in_all_of_the_baggage_counts() -> None:
    """The answer holds the foreign members too."""
    route = InboundRoute(
        "chat", FakeTenant(clock=Clock()).expectation(), forward=frozenset({Forward.HANDLE})
    )
    cache, answer = _cache(), replace(_answer(), route=route)
    cache.put(_changed(baggage=Secret("a=b")), answer, NOW)

    assert answer is _get(cache, _changed(baggage=Secret("a=b")), NOW)
    assert _get(cache, _changed(baggage=Secret("a=c")), NOW) is None
    assert _get(cache, ASKED, NOW) is None


def test_the_number_of_answers_is_bounded() -> None:
    """The least recently used makes room."""
    cache = _cache(max_entries=2)
    for value in "abc":
        cache.put(_changed(authorization=Authorization(f"Bearer {value}")), _answer(), NOW)

    assert (2, 1) == (len(cache), cache.evictions)
    assert _get(cache, _changed(authorization=Authorization("Bearer a")), NOW) is None


def test_the_memory_of_answers_is_bounded() -> None:
    """A token counts twice: for itself, and in the reply."""
    cache = _cache(max_bytes=2 * ENTRY_OVERHEAD + 400)
    for value in "ab":
        cache.put(
            _changed(authorization=Authorization(f"Bearer {value}")), _answer(value="t" * 101), NOW
        )

    assert 1 == len(cache)


def test_an_answer_without_a_token_counts_as_well() -> None:
    """An inbound answer is not free."""
    cache = _cache(max_bytes=ENTRY_OVERHEAD)
    for value in "ab":
        answer = Granted(DELEGATED, Allow(), Lifetime(LATER, LATER), principal())
        cache.put(_changed(authorization=Authorization(f"Bearer {value}")), answer, NOW)

    assert 1 == len(cache)


def test_names_of_headers_in_an_answer_count_as_well() -> None:
    """They are the client's: what is taken off its request, and what is set."""
    cache = _cache(max_bytes=2 * ENTRY_OVERHEAD + 400)
    for value in "ab":
        allow = Allow(remove=("x-authz-" + "n" * 93,), headers=(("name", "value" * 20),))
        answer = Granted(DELEGATED, allow, Lifetime(LATER, LATER), principal())
        cache.put(_changed(authorization=Authorization(f"Bearer {value}")), answer, NOW)

    assert 1 == len(cache)


@pytest.mark.parametrize(
    "changes", [{"host": "h" * 2048}, {"own_headers": ("x-authz-" + "n" * 2048,)}]
)
def test_an_answer_to_a_request_of_great_length_is_not_remembered(changes: dict[str, Any]) -> None:
    """What tells requests apart is kept without being counted, and a client says what it is."""
    cache = _cache()
    asked = _changed(route=None, **changes)
    cache.put(asked, _answer(), NOW)

    assert (0, None) == (len(cache), _get(cache, asked, NOW))


def test_the_number_of_situations_is_bounded() -> None:
    """A peer who makes up header names ends answers early, and takes no memory for ever."""
    cache = _cache(max_entries=2 * MAX_SITUATIONS)
    first = _changed(own_headers=("x-authz-0",))
    for number in range(MAX_SITUATIONS):
        cache.put(_changed(own_headers=(f"x-authz-{number}",)), _answer(), NOW)
    assert _get(cache, first, NOW) is not None

    cache.put(ASKED, _answer(), NOW)

    assert _get(cache, first, NOW) is None
    assert _get(cache, ASKED, NOW) is not None


def test_a_forgotten_situation_does_not_get_anothers_answer() -> None:
    """Numbers of situations are never used twice."""
    cache = _cache(max_entries=2 * MAX_SITUATIONS)
    for number in range(MAX_SITUATIONS + 1):
        cache.put(_changed(own_headers=(f"x-authz-{number}",)), _answer(OWN, "old"), NOW)
    mine = _answer(OWN, "mine")
    cache.put(_changed(own_headers=("x-authz-0",)), mine, NOW)

    assert mine is _get(cache, _changed(own_headers=("x-authz-0",)), NOW)
    assert _get(cache, _changed(own_headers=("x-authz-1",)), NOW) is None


def test_a_route_whose_clients_envoy_vouches_for_is_not_repeated_at_the_edge() -> None:
    """Envoy's own cache does not know who its client is; a connection's peer is always the same."""
    bound = frozenset({"spiffe://a/b"})
    elsewhere = PeerSource.SOURCE_PRINCIPAL
    vouched = route_of("a", Flow.APP, own={"workloads": bound, "peer_source": elsewhere})

    assert not vouched.may_repeat_at_edge
    assert route_of("a", Flow.APP, own={"workloads": bound}).may_repeat_at_edge
    assert route_of("a", Flow.APP, own={"peer_source": elsewhere}).may_repeat_at_edge


def test_answers_of_an_old_configuration_are_freed_at_once() -> None:
    """With the tokens in them, and not when the collector of cycles comes by: it is switched off here."""
    gc.disable()
    try:
        cache = _cache()
        alive = weakref.ref(cache._answers)
        del cache

        assert alive() is None
    finally:
        gc.enable()
