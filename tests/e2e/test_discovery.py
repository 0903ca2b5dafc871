"""A client that knows only the agent's URL learns where to sign in, through a real Envoy (RFC 9728)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from support.peers.http2_peer import http2_call
from support.programs.stack import World
from support.proxy.edge import exchange, until
from support.proxy.pod import Pod, pod_of

RESOURCE: Final = "https://agent.example.com/mcp"
METADATA: Final = "/.well-known/oauth-protected-resource"
METADATA_URL: Final = "https://agent.example.com/.well-known/oauth-protected-resource/mcp"
OWN: Final = f"{METADATA}/mcp"
OTHER_PATHS: Final = (
    f"{METADATA}/",
    f"{METADATA}/mcp/",
    f"{METADATA}/mcp/more",
    f"{METADATA}/MCP",
    f"{METADATA}/mcp;v=1",
    f"{METADATA}/mcp%3fa=b",
    f"{METADATA}/mcp%20",
    f"{METADATA}/mcp.json",
    f"{METADATA}-mcp",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/.well-known/",
    "/mcp/.well-known/oauth-protected-resource",
    "/.WELL-KNOWN/oauth-protected-resource",
    "/.well-known%252foauth-protected-resource",
)
REQUEST_ID: Final = "11111111-aaaa-4bbb-8ccc-000000000001"


def described(world: World) -> dict[str, Any]:
    """Return the sections of a configuration whose agent has a URL, by which tokens are asked for."""
    document = world.config()
    document["blueprints"]["support"]["audiences"] = [world.blueprint["client_id"], RESOURCE]
    document["inbound"]["agent"]["resource"] = RESOURCE
    return {key: document[key] for key in ("blueprints", "inbound")}


@pytest.fixture(scope="module", params=["1h", "0s"])
def running(
    shared_world: World, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Pod]:
    """Run a pod with a described agent, whose Envoy repeats decisions or none."""
    folder, edge = tmp_path_factory.mktemp("described"), {"edge": {"max_ttl": request.param}}
    with pod_of(shared_world, folder, cache=edge, **described(shared_world)) as pod:
        yield pod


@pytest.fixture
def pod(running: Pod) -> Pod:
    """That pod, whose agent has received nothing yet."""
    running.sidecar.app.received.clear()
    return running


@pytest.fixture
def plain_pod(world: World, tmp_path: Path) -> Iterator[Pod]:
    """A pod whose agent is not described."""
    with pod_of(world, tmp_path) as running:
        yield running


def bearer(token: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"authorization": f"Bearer {token}"}


def status_of(pod: Pod, path: str) -> str:
    """Return the status of a GET without a token, with the path as it is written."""
    request = f"GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n"
    return exchange(pod.sidecar.inbound_port, request.encode()).split()[1].decode()


def challenge(answer: httpx.Response) -> tuple[int, str]:
    """Return status and challenge of a refusal."""
    return answer.status_code, answer.headers["www-authenticate"]


@pytest.mark.parametrize("path", [OWN, METADATA, f"{OWN}?a=b"])
def test_metadata_needs_no_token_and_looks_at_none(pod: Pod, path: str) -> None:
    """The answer is the same without a token, with a wrong one, and with one that was just allowed."""
    caller, right = pod.sidecar.caller, bearer(pod.world.token())
    assert 200 == caller.get("/chat", headers=right).status_code
    assert 200 == caller.get("/chat", headers=right).status_code

    answers = [caller.get(path, headers=each) for each in ({}, bearer("wrong"), right)]

    expected = {
        "resource": RESOURCE,
        "authorization_servers": [f"{pod.world.emulator.authority}/{pod.world.tenant_id}/v2.0"],
        "scopes_supported": [f"{RESOURCE}/access_agent"],
        "bearer_methods_supported": ["header"],
    }
    assert [(200, expected)] * 3 == [(each.status_code, each.json()) for each in answers]
    names = ("content-type", "cache-control", "access-control-allow-origin")
    assert {("application/json", "private, max-age=300", "*")} == {
        tuple(each.headers[name] for name in names) for each in answers
    }
    assert ["/chat", "/chat"] == [seen.path for seen in pod.sidecar.app.received]


def test_head_has_no_body_and_a_preflight_is_answered(pod: Pod) -> None:
    """A web page asks by OPTIONS first: MCP clients send a header of their own."""
    head = pod.sidecar.caller.head(OWN)
    preflight = pod.sidecar.caller.options(
        OWN,
        headers={
            "origin": "https://client.example",
            "access-control-request-method": "GET",
            "access-control-request-headers": "mcp-protocol-version",
        },
    )
    raw = exchange(
        pod.sidecar.inbound_port,
        f"HEAD {OWN} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n".encode(),
    )

    assert (200, b"") == (head.status_code, head.content)
    assert raw.endswith(b"\r\n\r\n")
    assert (204, b"", "*", "GET, HEAD", "*, Authorization") == (
        preflight.status_code,
        preflight.content,
        preflight.headers["access-control-allow-origin"],
        preflight.headers["access-control-allow-methods"],
        preflight.headers["access-control-allow-headers"],
    )
    assert [] == pod.sidecar.app.received


def test_http_2_gets_the_same_document(pod: Pod) -> None:
    """By frames, as by HTTP/1.1."""
    by_frames = http2_call(pod.sidecar.inbound_port, "agent", method="GET", path=OWN)

    assert 200 == by_frames.status
    assert pod.sidecar.caller.get(OWN).json() == json.loads(by_frames.body)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_other_methods_of_the_metadata_need_a_token(pod: Pod, method: str) -> None:
    """They are the app's to answer."""
    caller = pod.sidecar.caller

    statuses = [
        caller.request(method, OWN, headers=each).status_code
        for each in ({}, bearer(pod.world.token()))
    ]

    assert [401, 200] == statuses
    assert [OWN] == [seen.path for seen in pod.sidecar.app.received]


def test_other_paths_need_a_token(pod: Pod) -> None:
    """Whatever an app might take them for."""
    answers = {path: status_of(pod, path) for path in OTHER_PATHS}

    assert dict.fromkeys(OTHER_PATHS, "401") == answers
    assert "400" == status_of(pod, f"{METADATA}%2fmcp")
    assert [] == pod.sidecar.app.received


def test_what_envoy_reads_as_the_same_path_is_the_same_path(pod: Pod) -> None:
    """It undoes escapes and dots before anything looks at the path (RFC 3986 section 6.2.2)."""
    same = (f"{METADATA}/mc%70", f"{METADATA}/a/../mcp", f"{METADATA}//mcp")

    assert dict.fromkeys(same, "200") == {path: status_of(pod, path) for path in same}
    assert [] == pod.sidecar.app.received


def test_grpc_to_the_metadata_is_answered_without_a_token_and_reaches_nobody(pod: Pod) -> None:
    """By POST it needs a token; by GET it gets no document, since gRPC takes no such body."""
    headers = (("content-type", "application/grpc"), ("te", "trailers"))

    answers = {
        method: http2_call(
            pod.sidecar.inbound_port, "agent", method=method, path=OWN, headers=headers
        )
        for method in ("GET", "POST")
    }

    told = {method: (*each.values("grpc-status"), each.body) for method, each in answers.items()}
    assert {"GET": ("2", b""), "POST": ("16", b"")} == told
    assert [] == pod.sidecar.app.received


def test_refusals_say_where_the_metadata_is_and_what_to_ask_for(pod: Pod) -> None:
    """Without a token, with a wrong one, and with one that lacks the scope."""
    caller, world = pod.sidecar.caller, pod.world
    lacking = world.token(scopes=["something_else"])

    answers = [
        challenge(caller.get("/mcp", headers=each))
        for each in ({}, bearer("wrong"), bearer(lacking))
    ]

    rest = f'resource_metadata="{METADATA_URL}", scope="{RESOURCE}/access_agent"'
    start = 'Bearer realm="authz"'
    assert [
        (401, f"{start}, {rest}"),
        (401, f'{start}, error="invalid_token", error_description="Invalid token", {rest}'),
        (
            403,
            f'{start}, error="insufficient_scope", error_description="Insufficient scope", {rest}',
        ),
    ] == answers


def test_refusals_on_egress_say_nothing_of_it(pod: Pod) -> None:
    """The agent's own calls are no calls of the agent."""
    answer = pod.sidecar.agent.get("http://graph.microsoft.com/v1.0/me")

    assert (401, 'Bearer realm="authz"') == challenge(answer)


def test_agent_that_is_not_described_answers_nothing_without_a_token(plain_pod: Pod) -> None:
    """As before: the app may have metadata of its own, behind the token."""
    caller = plain_pod.sidecar.caller

    answers = [caller.get(path) for path in (OWN, METADATA)]

    assert [(401, 'Bearer realm="authz"')] * 2 == [challenge(each) for each in answers]
    assert 200 == caller.get(OWN, headers=bearer(plain_pod.world.token())).status_code


def test_log_metrics_and_envoys_log_call_it_a_reply(pod: Pod) -> None:
    """It is neither an allowance nor a denial, in all three."""
    before = replies(pod)
    pod.sidecar.caller.get(f"{OWN}?secret=1", headers={"x-request-id": REQUEST_ID})

    def logged() -> list[dict[str, Any]]:
        return [each for each in pod.authz.events() if each.get("request_id") == REQUEST_ID]

    until(logged)
    (record,) = logged()
    told = {key: record.get(key) for key in ("decision", "reason", "direction", "route", "path")}
    assert {
        "decision": "reply",
        "reason": None,
        "direction": "inbound",
        "route": "agent",
        "path": OWN,
    } == told
    assert before + 1 == replies(pod)
    line = pod.sidecar.envoy.access_log(REQUEST_ID)
    assert (200, "reply", "agent") == (line["status"], line["decision"], line["route"])


def replies(pod: Pod) -> int:
    """Return how many replies the service has counted."""
    labels = 'decision="reply",direction="inbound",reason="none",route="agent"'
    lines = pod.authz.admin("/metrics").text.splitlines()
    counts = [each for each in lines if each.startswith(f"authz_checks_total{{{labels}}}")]
    return sum(int(float(each.rpartition(" ")[2])) for each in counts)
