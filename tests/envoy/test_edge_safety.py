"""The edge cache under stress: many users at once, a broken script, a full memory, a talkative access log."""

import asyncio
import copy
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, Final
from uuid import uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz._pb.external_auth_pb2 import CheckRequest, CheckResponse
from authz.config import Config
from authz.doors.envoy.grpc_server import ServerSettings
from authz.envoy_config.messages import EXT_AUTHZ
from support.fakes.properties import examples
from support.peers.upstream import Seen
from support.proxy.edge import (
    DENIED,
    Issuer,
    Scripted,
    bearer,
    fresh,
    get_request,
    handle,
    managers,
    raw,
    until,
    user_of,
    wait,
    without_pushes,
)
from support.proxy.ext_authz_server import ExtAuthzServer
from support.proxy.sidecar import Authority, Sidecar

GRAPH: Final = "graph.microsoft.com"
INVENTORY: Final = "inventory.internal:8443"

PLACES: Final = {GRAPH: "graph", f"{GRAPH}:443": "graph", INVENTORY: "inventory"}
"""Hosts that requests name, and the route of each."""

REQUEST: Final = st.tuples(
    st.integers(0, 3),
    st.sampled_from(sorted(PLACES)),
    st.sampled_from(["/", "/slow"]),
    st.sampled_from(["token", "handle", "token of another beside the handle"]),
)
BATCH: Final = st.tuples(
    st.sampled_from([1, 20, 60_000]), st.lists(REQUEST, min_size=1, max_size=8)
)


@pytest.fixture(scope="module")
def example(example: Config) -> Config:
    """The shipped example with nothing pushed, so that there are two routes to repeat answers on."""
    return without_pushes(example)


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
@examples(25)
@given(batches=st.lists(BATCH, min_size=2, max_size=5))
def test_nobody_is_served_with_anothers_or_an_ended_token(
    running: Sidecar,
    service: ExtAuthzServer,
    protocol: str,
    batches: list[tuple[int, list[tuple[int, str, str, str]]]],
) -> None:
    """Users, hosts, routes and times to live in any order, many at once, some with a slow destination.

    Users are known by their token or by a handle in `baggage`, which no destination sees.

    Each request leaves with a token that the service gave to this user for this host and route, and that
    had not ended when the request was sent.
    """
    issuer, crowd = Issuer(), str(uuid4())
    service.answer = issuer

    def linger(seen: Seen) -> None:
        if seen.path == "/slow":
            Event().wait(0.01)

    for destination in running.destinations.values():
        destination.before_answer = linger

    async def send(
        client: httpx.AsyncClient, user: int, host: str, path: str, known_by: str
    ) -> None:
        sent = time.time()
        headers = {"host": host}
        if known_by != "handle":
            headers |= bearer(f"{crowd}-{user if known_by == 'token' else user + 1}")
        if known_by != "token":
            headers |= handle(f"{crowd}-{user}")
        answer = await client.get(path, headers=headers)
        assert (200, protocol) == (answer.status_code, answer.http_version)
        (token,) = [value for name, value in answer.json()["headers"] if name == "authorization"]
        assert "baggage" not in dict(answer.json()["headers"])
        found = issuer.issued[token]
        assert (f"user-{crowd}-{user}", PLACES[host], host) == (found.user, found.route, found.host)
        assert sent < found.until

    async def send_all() -> None:
        multiplexed = protocol == "HTTP/2"
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{running.egress_port}",
            http1=not multiplexed,
            http2=multiplexed,
            trust_env=False,
            timeout=20,
        ) as client:
            for ttl_ms, requests in batches:
                issuer.ttl_ms = ttl_ms
                await asyncio.gather(*(send(client, *request) for request in requests))

    try:
        asyncio.run(send_all())
    finally:
        for destination in running.destinations.values():
            destination.before_answer = lambda _: None


def test_two_routes_of_one_host_do_not_share_answers(
    example: Config, authority: Authority, service: ExtAuthzServer
) -> None:
    """In an Envoy that somebody routes by path: user and host are the same, the token must not be."""

    def document(found: dict[str, Any]) -> None:
        # That of the listener for connections is the same.
        egress, *_ = (each for each in managers(found) if each["stat_prefix"] == "egress")
        (host,) = (
            each for each in egress["route_config"]["virtual_hosts"] if each["name"] == GRAPH
        )
        other = copy.deepcopy(host["routes"][-1])
        other["match"] = {"prefix": "/other"}
        other["name"] = "other"
        settings = other["typed_per_filter_config"][EXT_AUTHZ]["check_settings"]
        settings["context_extensions"]["authz.route"] = "other"
        host["routes"].insert(0, other)

    issuer = service.answer = Issuer()
    service.start()
    service.requests.clear()
    with Scripted(
        example,
        authz_address=service.address,
        authority=authority,
        certificates={GRAPH: (GRAPH,)},
        document=document,
    ) as sidecar:
        user = fresh()
        for path in ("/", "/other", "/", "/other"):
            sidecar.agent.get(f"http://{GRAPH}{path}", headers=user)

        received = sidecar.destinations[GRAPH].received
        routes = [issuer.issued[seen.values("authorization")[0]].route for seen in received]

    assert ["graph", "other", "graph", "other"] == routes
    assert 2 == len(service.requests)


@pytest.fixture
def outspoken(example: Config, authority: Authority, service: ExtAuthzServer) -> Iterator[Sidecar]:
    """A sidecar whose access log prints all metadata there is."""

    def document(found: dict[str, Any]) -> None:
        for manager in managers(found):
            fields = manager["access_log"][0]["typed_config"]["log_format"]["json_format"]
            fields["check_metadata"] = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%"
            fields["edge_metadata"] = "%DYNAMIC_METADATA(authz.edge)%"

    service.start()
    service.requests.clear()
    with Scripted(
        example,
        authz_address=service.address,
        authority=authority,
        certificates={GRAPH: (GRAPH,)},
        document=document,
    ) as sidecar:
        yield sidecar


def test_no_token_is_in_metadata_even_when_all_of_it_is_logged(
    outspoken: Sidecar, service: ExtAuthzServer
) -> None:
    """After a Check, a hit, a client that left during the Check or the answer, and a failed destination."""
    issuer, go_on = Issuer(), Event()
    destination = outspoken.destinations[GRAPH]

    def slow_answer(request: CheckRequest) -> CheckResponse:
        wait(go_on)
        return issuer(request)

    user, ids = fresh(), [str(uuid4()) for _ in range(5)]
    try:
        service.answer = issuer
        for request_id in ids[:2]:
            headers = {**user, "x-request-id": request_id}
            outspoken.agent.get(f"http://{GRAPH}/", headers=headers)

        destination.before_answer = lambda _: wait(go_on)
        with raw(outspoken.egress_port) as client:
            client.sendall(get_request(GRAPH, "/", {**fresh(), "x-request-id": ids[2]}))
            until(lambda: len(destination.received) == 3)
        outspoken.envoy.access_log(ids[2])

        service.answer = slow_answer
        checks = len(service.requests)
        with raw(outspoken.egress_port) as client:
            client.sendall(get_request(GRAPH, "/", {**fresh(), "x-request-id": ids[3]}))
            until(lambda: len(service.requests) > checks)
        outspoken.envoy.access_log(ids[3])
    finally:
        go_on.set()
    service.answer = issuer
    # A host without a server behind it in this test: the certificate's name is another.
    headers = {**fresh(), "x-request-id": ids[4]}
    outspoken.agent.get("http://api.weather.example/", headers=headers)

    entries = [outspoken.envoy.access_log(request_id) for request_id in ids]
    assert {"decision": "allow"} == entries[1]["edge_metadata"]
    assert "allow" == entries[2]["check_metadata"]["decision"]  # type: ignore[index]
    assert [number for number in (0, 2, 3, 4) if "asked" in entries[number]["edge_metadata"]] == [  # type: ignore[operator]
        0,
        2,
        3,
        4,
    ]
    assert "Bearer" not in json.dumps(entries)
    assert "user-" not in outspoken.envoy.log
    assert "token-" not in outspoken.envoy.log


STEP: Final = re.compile(
    r"^(\s+)(?=(?:local (?!function)|return|if|for|marks|headers|keep|\w+ = |[\w.\[\]]+ = ))"
)


def breakable(script: str) -> str:
    """Return a script that fails at the step whose number stands in the header `x-break`."""
    lines, count = [], 0
    for line in script.splitlines():
        step = STEP.match(line)
        if step:
            count += 1
            line = f"{step[1]}step({count}) {line.lstrip()}"  # noqa: PLW2901
        lines.append(line)
    prelude = (
        "local broken\n"
        "local function step(number) if number == broken then error('broken on purpose', 0) end end\n"
    )
    entrance = "function envoy_on_request(handle)\n"
    choose = "  broken = tonumber(handle:headers():get('x-break') or '')\n"
    text = "\n".join(lines) + "\n"
    assert entrance in text
    return prelude + text.replace(entrance, entrance + choose)


def test_every_error_of_the_script_ends_in_a_check(
    example: Config, authority: Authority, service: ExtAuthzServer, short_directory: Path
) -> None:
    """Broken at each step in turn, met by an unknown and by a known user.

    Nobody gets another's token, no user's token goes out, and the cache works on.
    """
    issuer = Issuer()
    with (
        ExtAuthzServer(ServerSettings(f"unix:{short_directory}/broken.sock")) as server,
        Scripted(
            example,
            authz_address=server.address,
            authority=authority,
            certificates={GRAPH: (GRAPH,)},
            change=breakable,
        ) as sidecar,
    ):
        server.answer = issuer
        steps = range(1, len(re.findall(r"step\(\d+\)", sidecar.bootstrap())) // 2 + 1)
        fail, url = [], f"http://{GRAPH}/"
        for number in steps:
            broken = {"x-break": str(number)}
            known, unknown = fresh(), fresh()
            statuses = [
                sidecar.agent.get(url, headers=headers).status_code
                for headers in (
                    known,
                    {**known, **broken},
                    {**unknown, **broken},
                    {**unknown, **broken},
                    known,
                    unknown,
                )
            ]
            # What was replaced already when the script broke is no user's token: the service denies it.
            assert {200, DENIED} >= set(statuses)
            assert [200, 200, 200] == [statuses[0], *statuses[4:]]
            fail.append(statuses[1] == DENIED)
            expected = [known, known, unknown, unknown, known, unknown]
            passed = [
                user for user, status in zip(expected, statuses, strict=True) if status == 200
            ]
            received = sidecar.destinations[GRAPH].received
            got = [issuer.issued[seen.values("authorization")[0]].user for seen in received]
            assert [user_of(user) for user in passed] == got
            sidecar.forget()
        errors = sidecar.envoy.stats()["http.egress.lua.errors"]

    assert len(steps) > 80
    assert errors > len(steps)
    assert any(fail)
    assert not all(fail)


DRIVER: Final = """
-- Drives the script above by requests that exist in here only, at a time of its own.
local function request(bearer, world)
  local headers = {[":authority"] = world.host or "graph.microsoft.com", authorization = bearer}
  local metadata = {}
  local api = {
    get = function(_, name) return headers[name] end,
    replace = function(_, name, value) headers[name] = value end,
    remove = function(_, name) headers[name] = nil end,
  }
  local marks = {
    get = function(_, space) return metadata[space] end,
    set = function(_, space, key, value)
      metadata[space] = metadata[space] or {}
      metadata[space][key] = value
    end,
  }
  local handle = {
    streamInfo = function()
      return {dynamicMetadata = function() return marks end, routeName = function() return "graph" end}
    end,
    headers = function() return api end,
    timestamp = function() return world.now end,
  }
  shipped_on_request(handle)
  local asked = metadata["authz.edge"].decision == nil
  if asked and world.answers then
    headers.authorization = world.token or "Bearer token-of-" .. bearer
    metadata["envoy.filters.http.ext_authz"] = {decision = "allow", route = "graph", edge = {
      ttl_ms = world.ttl_ms or 60000, parts = "authorization", set = {"authorization"}, remove = {},
      epoch = world.epoch}}
    world.now = world.now + (world.takes or 0)
    local during = world.during
    world.during = nil
    if during then during() end
    shipped_on_request(handle)
  end
  return asked, headers.authorization == "Bearer token-of-" .. bearer
end

local function kilobytes()
  collectgarbage()
  return collectgarbage("count")
end

function envoy_on_request(handle)
  local told = {}
  SCENARIO
  local members = {}
  for name, value in pairs(told) do
    members[#members + 1] = string.format("%q: %s", name, tostring(value))
  end
  handle:respond({[":status"] = "200"}, "{" .. table.concat(members, ",") .. "}")
end
"""


@pytest.fixture
def drive(
    example: Config, authority: Authority, service: ExtAuthzServer
) -> Callable[[str], dict[str, Any]]:
    """Run the shipped script in Envoy through a scenario, which notes what it saw in `told`."""

    def run(scenario: str) -> dict[str, Any]:
        driver = DRIVER.replace("SCENARIO", scenario)

        def change(script: str) -> str:
            return (
                script.replace("function envoy_on_request", "function shipped_on_request") + driver
            )

        with Scripted(
            example,
            authz_address=service.address,
            authority=authority,
            certificates={},
            change=change,
        ) as sidecar:
            answer = sidecar.caller.get("/drive", timeout=60)
            assert 200 == answer.status_code, sidecar.envoy.log
            told: dict[str, Any] = answer.json()
            return told

    return run


@pytest.mark.parametrize("answers", [True, False])
def test_memory_is_bounded_under_100_000_users(
    drive: Callable[[str], dict[str, Any]], *, answers: bool
) -> None:
    """With its shipped bounds, kept answers and open questions alike; and the newest are always there."""
    told = drive(
        f"local world = {{now = 1000000, answers = {str(answers).lower()}}}"
        """
        local filler = string.rep("u", 1500)
        told.most, told.wrong, told.again = 0, 0, 0
        for number = 1, 100000 do
          local _, right = request("Bearer " .. number .. filler, world)
          if world.answers and not right then told.wrong = told.wrong + 1 end
          if number % 5000 == 0 then
            for back = number - 499, number do
              local asked, mine = request("Bearer " .. back .. filler, world)
              if asked then told.again = told.again + 1 end
              if world.answers and not mine then told.wrong = told.wrong + 1 end
            end
            told.most = math.max(told.most, kilobytes())
          end
        end
        """
    )

    assert 0 == told["wrong"]
    # Two generations of 4 MiB and two of 1 MiB, and the script itself.
    assert 11 * 1024 > told["most"]
    if answers:
        assert 4 * 1024 < told["most"]
        assert 0 == told["again"]


def test_number_of_small_answers_is_bounded(drive: Callable[[str], dict[str, Any]]) -> None:
    """Where all texts are short; and where each is for a host of its own."""
    told = drive(
        """
        local world = {now = 1000000, answers = true}
        local before = kilobytes()
        for number = 1, 50000 do request("b" .. number, world) end
        told.bearers = kilobytes() - before
        for number = 1, 50000 do
          world.host = "h" .. number
          request("b", world)
        end
        told.hosts = kilobytes() - before
        """
    )

    assert 10 * 1024 > max(told["bearers"], told["hosts"])


def test_user_who_is_asked_about_again_and_again_takes_nobodys_room(
    drive: Callable[[str], dict[str, Any]],
) -> None:
    """What takes the place of an ended answer does not count beside it."""
    told = drive(
        """
        local world = {now = 1000000, answers = true}
        told.first = request("Bearer a", world)
        for number = 1, 20000 do
          world.now, world.ttl_ms = world.now + 1, 1
          request("Bearer b", world)
          if number % 1000 == 0 then
            world.ttl_ms = 60000
            request("Bearer c" .. number, world)
          end
        end
        told.second = request("Bearer a", world)
        """
    )

    assert {"first": True, "second": False} == told


def test_question_stays_open_while_many_others_are_answered(
    drive: Callable[[str], dict[str, Any]],
) -> None:
    """Only questions that are open take the room of questions."""
    told = drive(
        """
        local world = {now = 1000000, answers = true}
        world.during = function()
          for number = 1, 3000 do request("Bearer b" .. number, world) end
        end
        told.first = request("Bearer a", world)
        told.second = request("Bearer a", world)
        """
    )

    assert {"first": True, "second": False} == told


def test_what_is_too_long_is_not_kept(drive: Callable[[str], dict[str, Any]]) -> None:
    """Neither for a long `Authorization`, nor a long value that the service set: one entry takes little."""
    told = drive(
        """
        local world = {now = 1000000, answers = true, token = "Bearer short"}
        for name, length in pairs({short = 16000, long = 16600}) do
          local bearer = "Bearer " .. string.rep("u", length)
          told[name .. "_first"] = request(bearer, world)
          told[name .. "_second"] = request(bearer, world)
        end
        world.token = string.rep("t", 16600)
        told.value_first = request("Bearer a", world)
        told.value_second = request("Bearer a", world)
        """
    )

    asked = ("short_first", "long_first", "long_second", "value_first", "value_second")
    assert {**dict.fromkeys(asked, True), "short_second": False} == told


def test_clock_that_was_set_back_ends_every_answer(drive: Callable[[str], dict[str, Any]]) -> None:
    """What was kept at a later time than now cannot be told to have ended: it is asked about again."""
    told = drive(
        """
        local world = {now = 1000000, answers = true}
        told.first = request("Bearer a", world)
        told.second = request("Bearer a", world)
        world.now = world.now - 1
        told.third = request("Bearer a", world)
        told.fourth = request("Bearer a", world)
        world.takes = -1
        told.fifth = request("Bearer b", world)
        world.takes = 0
        told.sixth = request("Bearer b", world)
        """
    )

    assert {
        "first": True,
        "second": False,
        "third": True,
        "fourth": False,
        "fifth": True,
        "sixth": True,
    } == told


def test_references_are_repeated_only_while_their_process_answers(
    drive: Callable[[str], dict[str, Any]],
) -> None:
    """One request asks for all in time; without an answer to it nothing is repeated soon after."""
    told = drive(
        """
        local world = {now = 1000000, answers = true}
        request("Bearer plain", world)
        world.epoch = "e1"
        told.first = request("Bearer a", world)
        world.now = 1000249
        told.known = request("Bearer a", world)
        world.now = 1000250
        told.due = request("Bearer a", world)
        world.now = 1000499
        told.heard = request("Bearer a", world)
        world.answers = false
        world.now = 1000500
        told.asks_for_all = request("Bearer a", world)
        told.meanwhile = request("Bearer a", world)
        world.now = 1000749
        told.until_then = request("Bearer a", world)
        world.now = 1000750
        told.silent = request("Bearer a", world)
        told.silent_still = request("Bearer a", world)
        told.without_reference = request("Bearer plain", world)
        """
    )

    asked = ("first", "due", "asks_for_all", "silent", "silent_still")
    repeated = ("known", "heard", "meanwhile", "until_then", "without_reference")
    assert {**dict.fromkeys(asked, True), **dict.fromkeys(repeated, False)} == told


def test_references_of_another_process_are_asked_about_at_once(
    drive: Callable[[str], dict[str, Any]],
) -> None:
    """Whoever's answer told that there is another; and an older answer that comes late tells nothing."""
    told = drive(
        """
        local world = {now = 1000000, answers = true, epoch = "e1"}
        request("Bearer a", world)
        world.now = 1000100
        world.takes, world.during = 1, function()
          world.epoch = "e2"
          request("Bearer b", world)
          world.takes = 0
        end
        request("Bearer c", world)
        told.new = request("Bearer b", world)
        told.old = request("Bearer a", world)
        told.again = request("Bearer a", world)
        """
    )

    assert {"new": False, "old": True, "again": False} == told


def test_time_to_live_counts_from_the_question(drive: Callable[[str], dict[str, Any]]) -> None:
    """An answer that took its time is repeated for so much less, and to the very millisecond."""
    told = drive(
        """
        local world = {now = 1000000, answers = true, ttl_ms = 1000, takes = 400}
        told.first = request("Bearer a", world)
        world.now = 1000999
        told.within = request("Bearer a", world)
        world.now, world.takes = 1001000, 1000
        told.after = request("Bearer a", world)
        told.late = request("Bearer a", world)
        """
    )

    assert {"first": True, "within": False, "after": True, "late": True} == told


def test_what_has_ended_is_forgotten_with_the_next_question(
    drive: Callable[[str], dict[str, Any]],
) -> None:
    """Tokens of users who have gone do not stay for as long as the memory is not full."""
    told = drive(
        """
        local world = {now = 1000000, answers = true}
        local filler = string.rep("u", 1500)
        request("Bearer a", world)
        local before = kilobytes()
        for number = 1, 3000 do request("Bearer " .. number .. filler, world) end
        world.answers = false
        for number = 3000, 3500 do request("Bearer " .. number .. filler, world) end
        told.full = kilobytes() - before
        world.now = world.now + 60000
        request("Bearer a", world)
        told.left = kilobytes() - before
        """
    )

    assert 4096 < told["full"]
    assert 512 > told["left"]
