"""Rules by tool through a real Envoy: the message decides, in both directions."""

import json
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from support.programs.stack import World, claims, until
from support.proxy.pod import Pod, pod_of

READ: Final = "https://graph.microsoft.com/User.Read"
MAIL: Final = "https://graph.microsoft.com/Mail.Read"
URL: Final = "http://graph.microsoft.com/mcp"
BASICS: Final = {"name": "basics", "operations": ["initialize", "tools/list", "notifications/*"]}
LIMIT: Final = 100_000


@pytest.fixture(scope="module")
def pod(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod whose agent is an MCP server and calls one, and whose Envoy repeats what it may."""
    changes = shared_world.config()
    mcp = {"paths": ["/mcp"], "max_body": LIMIT}
    changes["egress"]["graph"] |= {
        "mcp": mcp,
        "rules": [
            BASICS,
            {"name": "search", "tools": ["search"], "scopes": [READ]},
            {"name": "mail", "tools": ["mail"], "scopes": [MAIL]},
            {"name": "rest", "methods": ["GET"], "paths": ["/v1.0/**"], "scopes": [READ]},
        ],
    }
    changes["inbound"]["agent"] |= {
        "mcp": {**mcp, "bind_sessions": True},
        "rules": [
            BASICS,
            {"name": "search", "tools": ["search"]},
            {"name": "book", "tools": ["book"], "scopes": ["book"]},
            {"name": "session", "methods": ["GET", "DELETE"], "paths": ["/mcp"]},
        ],
    }
    with pod_of(
        shared_world,
        tmp_path_factory.mktemp("tools"),
        cache={"edge": {"max_ttl": "1h"}},
        egress=changes["egress"],
        inbound=changes["inbound"],
    ) as running:
        yield running


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """Return a call of a tool."""
    parameters = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}


def _headers(pod: Pod, **order: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {pod.world.token(**order)}"}


def _scopes(answer: httpx.Response) -> set[str]:
    arrived = dict(answer.json()["headers"])["authorization"].removeprefix("Bearer ")
    return {*str(claims(arrived)["scp"]).split()} - {"openid", "profile"}


def test_a_tool_decides_on_the_scopes(pod: Pod) -> None:
    """And the message arrives as it was sent."""
    headers = _headers(pod)
    for _ in range(3):
        for tool, scopes in (("search", {"User.Read"}), ("mail", {"Mail.Read"})):
            answer = pod.sidecar.agent.post(URL, headers=headers, json=call(tool, q="x"))
            assert scopes == _scopes(answer)
            assert call(tool, q="x") == json.loads(answer.json()["body"])


@pytest.mark.parametrize("direction", ["inbound", "egress"])
@pytest.mark.parametrize(
    ("message", "status", "reason"),
    [
        (call("delete"), 403, "rule_denied"),
        (call("Search"), 400, "ambiguous_request"),
        ({"jsonrpc": "2.0", "id": 1, "method": "resources/list"}, 403, "rule_denied"),
        ([call("search")], 400, "ambiguous_request"),
        ({**call("search"), "result": {}}, 400, "ambiguous_request"),
        ({"jsonrpc": "2.0", "id": 1, "result": {}}, 403, "rule_denied"),
        ("search", 400, "ambiguous_request"),
    ],
)
def test_what_no_rule_names_goes_no_further(
    pod: Pod, direction: str, message: object, status: int, reason: str
) -> None:
    """Though the same user has just called a tool that is allowed."""
    headers = _headers(pod)
    for content, wanted in ((call("search"), 200), (message, status), (message, status)):
        answer = _send(pod, direction, headers, json.dumps(content).encode())
        assert wanted == answer.status_code
    told = answer.json()
    # A request that could be read is answered by an error of JSON-RPC.
    assert reason == (told["error"]["data"] if "jsonrpc" in told else told)["reason"]


def _send(
    pod: Pod, direction: str, headers: dict[str, str], content: Any, path: str = "/mcp"
) -> httpx.Response:
    headers = {"content-type": "application/json", **headers}
    if direction == "inbound":
        return pod.sidecar.caller.post(path, headers=headers, content=content)
    return pod.sidecar.agent.post(
        f"http://graph.microsoft.com{path}", headers=headers, content=content
    )


@pytest.mark.parametrize("direction", ["inbound", "egress"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"mcp-method": "tools/call", "mcp-name": "search"}, 200),
        ({"mcp-method": "tools/list"}, 400),
        ({"mcp-method": "tools/call", "mcp-name": "delete"}, 400),
        ({"content-type": "text/plain"}, 400),
        ({"content-encoding": "gzip"}, 400),
        ({"x-envoy-auth-partial-body": "true"}, 200),
    ],
)
def test_headers_do_not_decide(
    pod: Pod, direction: str, headers: dict[str, str], status: int
) -> None:
    """They may agree with the message, or the request is refused."""
    sent = {**_headers(pod), **headers}

    assert status == _send(pod, direction, sent, json.dumps(call("search")).encode()).status_code


def test_a_session_is_of_the_caller_who_used_it_first(pod: Pod) -> None:
    """Others get 404, as an error of JSON-RPC where they called a tool."""
    message = json.dumps(call("search")).encode()
    session = {"mcp-session-id": "3f2a-session"}
    alice, bob = ({**_headers(pod, user=name), **session} for name in ("alice", "bob"))

    for _ in range(2):
        assert 200 == _send(pod, "inbound", alice, message).status_code
        assert 200 == pod.sidecar.caller.get("/mcp", headers=alice).status_code
        refused = _send(pod, "inbound", bob, message)
        assert (404, "foreign_session") == (
            refused.status_code,
            refused.json()["error"]["data"]["reason"],
        )
        for method in ("GET", "DELETE"):
            answer = pod.sidecar.caller.request(method, "/mcp", headers=bob)
            assert (404, "foreign_session") == (answer.status_code, answer.json()["reason"])
    assert 404 == pod.sidecar.caller.get("/mcp", headers=_session(bob, b"3F2A-Session")).status_code


@pytest.mark.parametrize(
    "sessions",
    [
        (b"own", b"3f2a-known"),
        (b"3f2a-known", b"own"),
        (b"3f2a-known,own",),
        (b"3f2a-known\xa0",),
        (b"\xff3f2a-known",),
        (b"3f2a-known\x85",),
        (b"",),
    ],
)
def test_what_a_server_may_take_for_somebodys_session_is_refused(
    pod: Pod, sessions: tuple[bytes, ...]
) -> None:
    """Two ids, and bytes that some servers strip off."""
    alice, bob = (_headers(pod, user=name) for name in ("alice", "bob"))
    known = _session(alice, b"3f2a-known")
    assert 200 == pod.sidecar.caller.get("/mcp", headers=known).status_code

    answer = pod.sidecar.caller.get("/mcp", headers=_session(bob, *sessions))

    assert (400, "ambiguous_request") == (answer.status_code, answer.json()["reason"])


def _session(headers: dict[str, str], *sessions: bytes) -> list[tuple[bytes, bytes]]:
    """Return raw headers with sessions."""
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw = [(name, value) for name, value in raw if name != b"mcp-session-id"]
    return [*raw, *((b"mcp-session-id", session) for session in sessions)]


@pytest.mark.parametrize(
    "header", ["mcp_name", "mcp_method", "mcp_session_id", "mcp-session_id", "mcp_session-id"]
)
def test_headers_that_are_read_as_those_of_mcp_do_not_go_out(pod: Pod, header: str) -> None:
    """CGI and WSGI have one name for a hyphen and an underscore. Inbound, Envoy drops such headers."""
    sent = {**_headers(pod), header: "delete"}
    content = json.dumps(call("search")).encode()

    assert 400 == _send(pod, "egress", sent, content).status_code
    assert 200 == _send(pod, "inbound", sent, content).status_code


@pytest.mark.parametrize("direction", ["inbound", "egress"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_message_is_read_whole_or_not_at_all(pod: Pod, direction: str, *, chunked: bool) -> None:
    """One as long as it may be arrives; a longer one does not, however it is sent."""
    headers = _headers(pod)
    long = json.dumps(call("search", q="x" * (LIMIT - 500))).encode()
    longer = json.dumps(call("search", q="x" * LIMIT)).encode()

    def sent(content: bytes) -> Any:
        return iter([content[:50], content[50:60_000], content[60_000:]]) if chunked else content

    assert 200 == _send(pod, direction, headers, sent(long)).status_code
    assert 413 == _send(pod, direction, headers, sent(longer)).status_code


def test_a_caller_who_is_not_known_is_not_told_of_rules(pod: Pod) -> None:
    """It is asked for a token first, so that a client can sign in."""
    for content in (call("delete"), [call("delete")]):
        answer = _send(pod, "inbound", {}, json.dumps(content).encode())
        assert (401, "missing_token") == (answer.status_code, answer.json()["reason"])


def test_a_tool_may_need_a_scope_of_its_own(pod: Pod) -> None:
    """The challenge names it, with those of the route, so that a client can ask for both."""
    content = json.dumps(call("book")).encode()
    refused = _send(pod, "inbound", _headers(pod), content)
    resource = f"api://{pod.world.blueprint['client_id']}"

    assert 403 == refused.status_code
    challenge = refused.headers["www-authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert f'scope="{resource}/access_agent {resource}/book"' in challenge
    both = _headers(pod, scopes=["access_agent", "book"])
    assert 200 == _send(pod, "inbound", both, content).status_code


def test_sessions_and_other_paths_are_ruled_by_method_and_path(pod: Pod) -> None:
    """The stream of a session and its end have no message."""
    headers = _headers(pod)

    assert 200 == pod.sidecar.caller.get("/mcp", headers=headers).status_code
    assert 200 == pod.sidecar.caller.delete("/mcp", headers=headers).status_code
    content = json.dumps(call("search")).encode()
    sent = headers | {"content-type": "application/json"}
    carried = pod.sidecar.caller.request("DELETE", "/mcp", headers=sent, content=content)
    assert 400 == carried.status_code
    assert 403 == _send(pod, "inbound", headers, content, "/other").status_code
    assert 400 == _send(pod, "inbound", headers, content, "/mcp/").status_code
    url = "http://graph.microsoft.com/v1.0/me"
    assert {"User.Read"} == _scopes(pod.sidecar.agent.get(url, headers=headers))


async def test_the_log_names_the_tool(pod: Pod) -> None:
    """Of calls that pass and of calls that do not."""
    headers = _headers(pod, user="alice2")
    for tool in ("search", "delete"):
        _send(pod, "egress", headers, json.dumps(call(tool)).encode(), "/mcp?of=log")
    found: list[tuple[str, str | None, str | None]] = []

    def logged() -> bool:
        subject = pod.world.users["alice2"]["object_id"]
        records = [record for record in pod.authz.events() if record["event"] == "check"]
        found[:] = [
            (record["decision"], record.get("rule"), record.get("tool"))
            for record in records
            if record.get("tool") == "delete" or record.get("subject") == subject
        ]
        return ("deny", None, "delete") in found

    await until(logged)
    assert ("allow", "search", "search") in found
