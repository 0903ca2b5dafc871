"""What Envoy repeats without asking, what it never repeats, and that a repeated answer is the answer."""

import itertools
import time
from threading import Event
from typing import Any, Final
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz._pb.external_auth_pb2 import CheckRequest, CheckResponse
from authz.config import Config
from support.fakes.properties import JSON, brief
from support.proxy.edge import (
    DENIED,
    USER,
    Issuer,
    denial,
    exchange,
    fresh,
    get_request,
    raw,
    repeatable,
    until,
    user_of,
    wait,
    without_pushes,
)
from support.proxy.ext_authz_server import ExtAuthzServer, allow
from support.proxy.sidecar import Sidecar

GRAPH: Final = "graph.microsoft.com"
INVENTORY: Final = "inventory.internal:8443"


@pytest.fixture(scope="module")
def example(example: Config) -> Config:
    """The shipped example with nothing pushed, so that there are two routes to repeat answers on."""
    return without_pushes(example)


def chat_answer(request: CheckRequest) -> CheckResponse:
    """Tell the app who is calling, as the service does on inbound routes."""
    user = request.attributes.request.http.headers["authorization"].removeprefix(USER)
    return repeatable(
        "chat",
        set_={"x-authz-subject": user, "x-authz-scopes": "a b"},
        remove=("x-authz-roles", "x-secret"),
    )


def test_second_request_of_a_user_is_not_asked_about(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """One Check, and every further request gets its token all the same."""
    service.answer = Issuer()
    user = fresh()

    for _ in range(5):
        sidecar.agent.get(f"http://{GRAPH}/v1.0/me", headers=user)

    assert 1 == len(service.requests)
    values = [seen.values("authorization") for seen in sidecar.destinations[GRAPH].received]
    assert [next(iter(service.answer.issued))] * 1 == values[0]
    assert [values[0]] * 5 == values


def test_inbound_answers_are_repeated_as_well(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """The app hears who is calling, from whoever answered."""
    service.answer = chat_answer
    user = fresh()

    for _ in range(3):
        sidecar.caller.get("/chat", headers=user)

    assert 1 == len(service.requests)
    subjects = [seen.values("x-authz-subject") for seen in sidecar.app.received]
    assert [[user["authorization"].removeprefix(USER)]] * 3 == subjects


@pytest.mark.parametrize("direction", ["inbound", "egress"])
def test_repeated_answer_changes_a_request_as_the_first_one_did(
    sidecar: Sidecar, service: ExtAuthzServer, direction: str
) -> None:
    """Header by header, in order: the app or the destination cannot tell them apart."""
    user = fresh()
    sent = {
        **user,
        "x-secret": "of the caller",
        "x-authz-subject": "forged",
        "x-authz-else": "forged",
        "x-request-id": "r-1",
        "cookie": "a=b",
        "x-custom": "kept",
    }

    def answer(request: CheckRequest) -> CheckResponse:
        if direction == "inbound":
            return chat_answer(request)
        changes = {"authorization": "Bearer exchanged", "x-added": "yes"}
        return repeatable("graph", set_=changes, remove=("x-secret",))

    service.answer = answer
    for _ in range(2):
        if direction == "inbound":
            sidecar.caller.post("/chat?q=1", headers=sent, content=b"body")
        else:
            sidecar.agent.post(f"http://{GRAPH}/v1.0/me?q=1", headers=sent, content=b"body")

    assert 1 == len(service.requests)
    where = sidecar.app if direction == "inbound" else sidecar.destinations[GRAPH]
    first, second = where.received
    assert first == second
    assert [] == first.values("x-secret")


def test_another_user_is_asked_about(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """The answer to one is no answer to the other."""
    issuer = service.answer = Issuer()
    users = [fresh(), fresh()]

    for user in users * 2:
        sidecar.agent.get(f"http://{GRAPH}/", headers=user)

    assert 2 == len(service.requests)
    seen = sidecar.destinations[GRAPH].received
    got = [issuer.issued[request.values("authorization")[0]].user for request in seen]
    assert [user_of(user) for user in users * 2] == got


def test_another_route_is_asked_about(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """A token of one API never reaches another, though the user is the same."""
    issuer = service.answer = Issuer()
    user = fresh()

    for host in (GRAPH, INVENTORY, GRAPH, INVENTORY):
        sidecar.agent.get(f"http://{host}/", headers=user)

    assert 2 == len(service.requests)
    for host, route in ((GRAPH, "graph"), (INVENTORY, "inventory")):
        for seen in sidecar.destinations[host].received:
            assert route == issuer.issued[seen.values("authorization")[0]].route


def test_another_host_of_a_route_is_asked_about(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """What the service saw of a request in Envoy's words must be the same, its host included."""
    service.answer = Issuer()
    user = fresh()

    for host in (GRAPH, f"{GRAPH}:443", GRAPH, f"{GRAPH}:443"):
        exchange(sidecar.egress_port, get_request(host, "/", {**user, "connection": "close"}))

    assert 2 == len(service.requests)


def test_answer_that_rests_on_no_caller_is_repeated_to_every_caller(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """Without parts, neither another nor a missing `Authorization` makes a difference."""
    changes = {"authorization": "Bearer of-the-agent"}
    service.answer = lambda _: repeatable("inventory", set_=changes, edge={"parts": ""})

    for headers in ({}, fresh(), fresh(), {}):
        sidecar.agent.get(f"http://{INVENTORY}/{uuid4()}", headers=headers)

    assert 1 >= len(service.requests)
    received = sidecar.destinations[INVENTORY].received
    assert [["Bearer of-the-agent"]] * 4 == [seen.values("authorization") for seen in received]


def test_two_authorization_headers_are_always_asked_about(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """Also where an answer is known for everybody: two values are the service's business."""
    changes = {"authorization": "Bearer of-the-agent"}
    service.answer = lambda _: repeatable("inventory", set_=changes, edge={"parts": ""})
    # httpx would join them; these are two lines.
    headers = {
        "connection": "close",
        "authorization": "Bearer user-1",
        "Authorization": "Bearer user-2",
    }
    request = get_request(INVENTORY, "/", headers)
    sidecar.agent.get(f"http://{INVENTORY}/")
    service.requests.clear()

    for _ in range(2):
        exchange(sidecar.egress_port, request)

    assert 2 == len(service.requests)


def handle() -> dict[str, str]:
    """Return the baggage of a user whom only these headers know."""
    return {"baggage": f"authz-subject={uuid4().hex}{uuid4().hex[:11]}"}


def by_handle(request: CheckRequest, parts: str = "authorization") -> CheckResponse:
    """Give each user, known by baggage alone, a token of his own, and take the baggage away."""
    baggage = request.attributes.request.http.headers["baggage"]
    route = request.attributes.context_extensions["authz.route"]
    return repeatable(
        route,
        set_={"authorization": f"Bearer for {baggage}"},
        remove=("baggage",),
        edge={"parts": parts},
    )


@pytest.mark.parametrize("parts", ["authorization", ""])
def test_answer_to_a_handle_is_repeated_to_that_handle_alone(
    sidecar: Sidecar, service: ExtAuthzServer, parts: str
) -> None:
    """Whatever else the answer depends on: a request with baggage is like none but itself."""

    def answer(request: CheckRequest) -> CheckResponse:
        if "baggage" not in request.attributes.request.http.headers:
            return denial()
        return by_handle(request, parts)

    service.answer = answer
    users = [handle(), handle()]
    url = f"http://{GRAPH}/{uuid4()}"
    statuses = [sidecar.agent.get(url, headers=user).status_code for user in (*users, *users)]
    without = sidecar.agent.get(url).status_code
    mixed = {"baggage": f"{users[0]['baggage']},{users[1]['baggage']}"}
    sidecar.agent.get(url, headers=mixed)
    sidecar.agent.get(url, headers={**users[0], **fresh()})

    assert [200] * 4 == statuses
    assert DENIED == without
    assert 5 == len(service.requests)
    received = sidecar.destinations[GRAPH].received
    expected = [f"Bearer for {user['baggage']}" for user in (*users, *users, mixed, users[0])]
    assert [[value] for value in expected] == [seen.values("authorization") for seen in received]
    assert [[]] * 6 == [seen.values("baggage") for seen in received]


def test_answer_for_everybody_is_not_one_for_a_request_with_baggage(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """A reference in it would reach the destination."""
    changes = {"authorization": "Bearer of-the-agent"}
    service.answer = lambda _: repeatable("inventory", set_=changes, edge={"parts": ""})
    sidecar.agent.get(f"http://{INVENTORY}/")
    asked = len(service.requests)
    service.answer = by_handle

    sidecar.agent.get(f"http://{INVENTORY}/", headers=handle())

    assert asked + 1 == len(service.requests)
    assert [] == sidecar.destinations[INVENTORY].received[-1].values("baggage")


def test_repeated_answer_puts_the_same_baggage_in(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """Ours beside the foreign members that came with the request, and never another request's."""
    given = handle()["baggage"]

    def answer(request: CheckRequest) -> CheckResponse:
        foreign = request.attributes.request.http.headers.get("baggage", "")
        both = f"{given},{foreign}".rstrip(",")
        return repeatable("chat", set_={"baggage": both}, remove=("authorization",))

    service.answer = answer
    user = fresh()
    for foreign in ("a=1", "a=2", "", "a=1", "a=2", ""):
        sidecar.caller.get("/chat", headers={**user, **({"baggage": foreign} if foreign else {})})

    assert 3 == len(service.requests)
    expected = [f"{given},a=1", f"{given},a=2", given] * 2
    assert [[value] for value in expected] == [
        seen.values("baggage") for seen in sidecar.app.received
    ]


def test_denial_is_never_repeated(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """Each refused request is asked about, and the first allowed one passes."""
    user = fresh()
    service.answer = lambda _: denial()
    refused = [sidecar.agent.get(f"http://{GRAPH}/", headers=user).status_code for _ in range(3)]
    service.answer = Issuer()

    answer = sidecar.agent.get(f"http://{GRAPH}/", headers=user)

    assert ([DENIED] * 3, 200) == (refused, answer.status_code)
    assert 4 == len(service.requests)


def test_answer_without_permission_is_not_repeated(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """The service decides: what does not say that it may be repeated is asked about again."""
    service.answer = lambda _: allow(headers={"authorization": "Bearer once"})
    user = fresh()

    for _ in range(3):
        sidecar.agent.get(f"http://{GRAPH}/", headers=user)

    assert 3 == len(service.requests)


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": "authorization,baggage"},
        {"parts": "baggage"},
        {"parts": None},
        {"parts": ["authorization"]},
        {"ttl_ms": 0},
        {"ttl_ms": -1},
        {"ttl_ms": 3_600_001},
        {"ttl_ms": float("nan")},
        {"ttl_ms": float("inf")},
        {"ttl_ms": "60000"},
        {"ttl_ms": None},
        {"set": None},
        {"set": {"authorization": "Bearer exchanged"}},
        {"set": "authorization"},
        {"set": ["authorization", "x-absent"]},
        {"set": [None, "authorization"]},
        {"set": []},
        {"set": [], "parts": ""},
        {"set": [], "remove": ["x-absent"], "parts": ""},
        {"set": [":path"]},
        {"set": ["host"]},
        {"set": ["Authorization"]},
        {"set": ["authorization"] * 97},
        {"remove": None},
        {"remove": ["cookie"]},
        {"remove": [1]},
        {"remove": [["x-a"]]},
        {"epoch": ""},
        {"epoch": "e" * 65},
        {"epoch": 1},
        {"epoch": ["e"]},
    ],
    ids=str,
)
def test_answer_in_an_unknown_form_is_not_repeated(
    sidecar: Sidecar, service: ExtAuthzServer, changes: dict[str, Any]
) -> None:
    """Unknown parts, impossible times, names of nothing that was set or removed: each is asked about."""
    exchanged = {"authorization": "Bearer exchanged"}
    service.answer = lambda _: repeatable("graph", set_=exchanged, edge=changes)
    headers = {**fresh(), "cookie": "a=b"}

    answers = [sidecar.agent.get(f"http://{GRAPH}/", headers=headers) for _ in range(2)]

    assert [200, 200] == [answer.status_code for answer in answers]
    assert 2 == len(service.requests)


@pytest.mark.parametrize(
    "told",
    [
        {"route": "inventory"},
        {"route": None},
        {"decision": "deny"},
        {"decision": None},
    ],
    ids=str,
)
def test_answer_for_another_route_is_not_repeated(
    sidecar: Sidecar, service: ExtAuthzServer, told: dict[str, Any]
) -> None:
    """An Envoy whose routes are not what they say never repeats one route's answer on another."""

    def answer(_: CheckRequest) -> CheckResponse:
        found = repeatable("graph", set_={"authorization": "Bearer exchanged"})
        found.dynamic_metadata.update(told)
        return found

    service.answer = answer
    user = fresh()

    for _ in range(2):
        sidecar.agent.get(f"http://{GRAPH}/", headers=user)

    assert 2 == len(service.requests)


EDGES = st.fixed_dictionaries(
    {},
    optional={
        "ttl_ms": st.just(60_000) | JSON,
        "parts": st.sampled_from(["authorization", ""]) | JSON,
        "set": st.lists(st.sampled_from(["authorization", "x-added"]) | JSON, max_size=3) | JSON,
        "remove": st.lists(st.sampled_from(["x-removed", "cookie"]) | JSON, max_size=3) | JSON,
        "epoch": st.just("e1") | JSON,
    },
)

SPELLINGS: Final = map("".join, itertools.product(*({c, c.upper()} for c in GRAPH)))
"""One host to Envoy's routes, but many to the cache: each example's answers are met by no other request."""


@brief
@given(edge=EDGES | JSON)
def test_no_form_of_an_answer_makes_a_request_fail_or_differ(
    running: Sidecar, service: ExtAuthzServer, edge: Any
) -> None:
    """Whatever stands in the metadata: the second request ends like the first, by a Check or without one."""
    user, host = fresh(), next(SPELLINGS)

    def answer(_: CheckRequest) -> CheckResponse:
        found = allow(
            headers={"authorization": "Bearer exchanged", "x-added": "yes"}, remove=("x-removed",)
        )
        found.dynamic_metadata.update({"decision": "allow", "route": "graph", "edge": edge})
        return found

    service.answer = answer
    service.requests.clear()
    running.forget()
    headers = {
        **user,
        "x-removed": "no",
        "cookie": "a=b",
        "x-request-id": "r",
        "connection": "close",
    }

    for _ in range(2):
        answers = exchange(running.egress_port, get_request(host, "/", headers))
        assert answers.startswith(b"HTTP/1.1 200 ")

    first, second = [dict(seen.headers) for seen in running.destinations[GRAPH].received]
    expected = dict(first)
    if len(service.requests) == 1:
        # This service may have named less than it changed. What it named is what is repeated; but what
        # became of the user's token must be named, or nothing is.
        if "x-added" not in edge["set"]:
            del expected["x-added"]
        if "x-removed" not in edge["remove"]:
            expected["x-removed"] = "no"
    assert expected == second
    assert "Bearer exchanged" == first["authorization"]


def test_answer_ends_when_the_service_said(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """After its time there is a new Check and a new token; and it was repeated at no later moment."""
    issuer = service.answer = Issuer(ttl_ms=150)
    user = fresh()

    def seen() -> bool:
        sent = time.time()
        sidecar.agent.get(f"http://{GRAPH}/", headers=user)
        token = sidecar.destinations[GRAPH].received[-1].values("authorization")[0]
        assert sent < issuer.issued[token].until
        return len(issuer.issued) >= 4

    until(seen)


def test_answer_is_repeated_while_the_first_request_still_waits(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """A destination may take minutes; what was allowed is known as soon as it is allowed."""
    service.answer = Issuer()
    user, go_on = fresh(), Event()
    destination = sidecar.destinations[GRAPH]
    destination.before_answer = lambda seen: None if seen.path == "/fast" else wait(go_on)
    try:
        with raw(sidecar.egress_port) as slow:
            slow.sendall(get_request(GRAPH, "/slow", user))
            until(lambda: destination.received)

            answer = sidecar.agent.get(f"http://{GRAPH}/fast", headers=user)

            assert 200 == answer.status_code
            assert 1 == len(service.requests)
            go_on.set()
            assert slow.recv(65536).startswith(b"HTTP/1.1 200")
    finally:
        go_on.set()
        destination.before_answer = lambda _: None


def test_without_the_service_known_users_go_on_until_their_answers_end(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """Others are refused at once. When the service is back, everything heals by itself."""
    issuer = service.answer = Issuer(ttl_ms=1000)
    known, unknown = fresh(), fresh()
    passed: list[float] = []

    def status(user: dict[str, str]) -> int:
        sent = time.time()
        found = sidecar.agent.get(f"http://{GRAPH}/", headers=user).status_code
        if found == 200:
            passed.append(sent)
        return found

    assert 200 == status(known)
    (ends,) = [token.until for token in issuer.issued.values()]
    service.stop()
    stranger = status(unknown)
    until(lambda: status(known) == 503)
    last = passed[-1]
    service.start()
    until(lambda: (status(known), status(unknown)) == (200, 200))

    assert 503 == stranger
    assert last < ends
    assert {issuer.issued[value].user for value in tokens(sidecar)} == {
        user_of(known),
        user_of(unknown),
    }


def test_hits_are_counted(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """`ext_authz.disabled` counts repeated answers, and nothing else: health checks are not in it."""
    service.answer = chat_answer
    user = fresh()
    sidecar.caller.get("/chat", headers=user)
    before = sidecar.envoy.stats()

    for path in ("/chat", "/chat", "/chat", "/healthz"):
        sidecar.caller.get(path, headers=user)

    after = sidecar.envoy.stats()
    name = "http.inbound.ext_authz.disabled"
    assert 3 == after[name] - before.get(name, 0)
    assert before["http.inbound.ext_authz.ok"] == after["http.inbound.ext_authz.ok"]


def test_access_log_tells_of_a_hit_what_it_tells_of_a_check(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """Decision, route and flow are there; and that Envoy repeated it."""
    service.answer = Issuer()
    user, ids = fresh(), [str(uuid4()), str(uuid4())]

    for request_id in ids:
        headers = {**user, "x-request-id": request_id}
        sidecar.agent.get(f"http://{GRAPH}/", headers=headers)

    first, second = (sidecar.envoy.access_log(request_id) for request_id in ids)
    facts = {"decision": "allow", "route": "graph", "flow": "on_behalf_of"}
    assert facts == {name: first.get(name) for name in facts}
    assert facts == {name: second.get(name) for name in facts}
    assert (None, "allow") == (first.get("edge"), second.get("edge"))


def test_no_error_was_counted(running: Sidecar) -> None:
    """Nothing that the tests above did was an error to the script; unknown forms are no errors."""
    stats = running.envoy.stats()
    names = [name for name in stats if name.endswith("lua.errors")]

    assert {} == {name: stats[name] for name in names if stats[name]}
    assert "script" not in running.envoy.log


def tokens(sidecar: Sidecar) -> list[str]:
    """Return what arrived as `Authorization` at the first destination."""
    return [seen.values("authorization")[0] for seen in sidecar.destinations[GRAPH].received]
