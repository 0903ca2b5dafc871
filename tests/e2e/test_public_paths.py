"""Public paths through a real Envoy, with its edge cache and without: who passes, and as whom."""

import socket
from collections.abc import Iterator
from typing import Final

import pytest

from support.programs.stack import World
from support.proxy.edge import exchange, until
from support.proxy.pod import Pod, pod_of

CARD: Final = "/.well-known/agent-card.json"
PATHS: Final = [CARD, "/probe", "/static/**"]
RULES: Final = [{"name": "read", "methods": ["GET"], "paths": ["/tasks/**"]}]
REQUEST_ID: Final = "11111111-aaaa-4bbb-8ccc-000000000002"


@pytest.fixture(scope="module", params=["1h", "0s", "1h with rules"])
def running(
    shared_world: World, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Pod]:
    """Run a pod with public paths: its Envoy repeats decisions or none, its route has rules or none."""
    max_ttl, _, ruled = request.param.partition(" with ")
    inbound = shared_world.config()["inbound"]
    inbound["agent"] |= {"public_paths": PATHS} | ({"rules": RULES} if ruled else {})
    folder, edge = tmp_path_factory.mktemp("public"), {"edge": {"max_ttl": max_ttl}}
    with pod_of(shared_world, folder, cache=edge, inbound=inbound) as pod:
        yield pod


@pytest.fixture
def pod(running: Pod) -> Pod:
    """That pod, whose agent has received nothing yet."""
    running.sidecar.app.received.clear()
    return running


def bearer(token: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"authorization": f"Bearer {token}"}


def status_of(pod: Pod, method: str, path: str, *lines: str) -> int:
    """Return the status of a request without a token, written byte by byte."""
    head = [f"{method} {path} HTTP/1.1", "host: agent", "connection: close", *lines, "", ""]
    return int(exchange(pod.sidecar.inbound_port, "\r\n".join(head).encode()).split()[1])


def received_names(pod: Pod) -> set[str]:
    """Return names of all headers that the agent has received."""
    return {name for seen in pod.sidecar.app.received for name, _ in seen.headers}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", [CARD, "/probe?x=1", "/static", "/static/js/app.js?v=2"])
def test_a_public_path_reaches_the_agent_without_a_token(pod: Pod, method: str, path: str) -> None:
    """By each method that only reads."""
    answers = [pod.sidecar.caller.request(method, path) for _ in range(2)]

    assert [200, 200] == [each.status_code for each in answers]
    assert [(method, path)] * 2 == [(seen.method, seen.path) for seen in pod.sidecar.app.received]


def test_the_agent_receives_nothing_that_names_a_caller_or_another_request(pod: Pod) -> None:
    """Neither a token that nobody has verified, nor what a client claims to be or wants instead."""
    forged = {
        "x-authz-subject": "victim",
        "x_authz_subject": "victim",
        "X-HTTP-Method-Override": "DELETE",
        "X-HTTP-Method": "DELETE",
        "x_http_method_override": "DELETE",
        "x-method-override": "DELETE",
        "X-Original-URL": "/tasks/1",
        "x-rewrite-url": "/tasks/1",
        "baggage": "authz-subject=victim",
    }

    answer = pod.sidecar.caller.get(CARD, headers=forged | bearer("wrong"))

    assert 200 == answer.status_code
    assert 1 == len(pod.sidecar.app.received)
    known = {"authorization", "baggage", *(name.lower() for name in forged)}
    assert set() == known & received_names(pod)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        f"{CARD}/",
        CARD.upper(),
        f"{CARD};v=1",
        f"{CARD}%20",
        f"{CARD}?_method=DELETE",
        "/Probe",
        "/static/../tasks/1",
        "/static/..;/tasks/1",
        "/static/%2e%2e/tasks/1",
        "/static/%252e%252e/tasks/1",
        "/static/..%2ftasks/1",
        "/static\\..\\tasks/1",
        "/static/$batch",
        "/staticx",
        "/tasks/1",
    ],
)
def test_other_paths_need_a_token(pod: Pod, path: str) -> None:
    """Whatever an app might take them for."""
    # A user was let in a moment ago, and public paths as well.
    assert 200 == pod.sidecar.caller.get("/tasks/1", headers=bearer(pod.world.token())).status_code
    assert 200 == pod.sidecar.caller.get("/static/tasks/1").status_code
    pod.sidecar.app.received.clear()

    assert status_of(pod, "GET", path) in {400, 401, 403}
    assert [] == pod.sidecar.app.received


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "get"])
def test_other_methods_need_a_token(pod: Pod, method: str) -> None:
    """They may change something."""
    assert status_of(pod, method, "/static/x", "content-length: 0") in {400, 401, 403}
    assert [] == pod.sidecar.app.received


def test_a_users_requests_are_as_before_on_either_side(pod: Pod) -> None:
    """Where Envoy repeats a user's answer on a public path, it says who that user is, and of nobody else."""
    world, caller = pod.world, pod.sidecar.caller
    tokens = {world.users[name]["object_id"]: world.token(name) for name in ("alice", "alice2")}
    asked = ["/tasks/1", CARD, "/tasks/1", "/static/x", CARD]
    for path in asked:
        for subject, token in tokens.items():
            pod.sidecar.app.received.clear()
            assert 200 == caller.get(path, headers=bearer(token)).status_code
            (seen,) = pod.sidecar.app.received
            told = (seen.values("x-authz-subject"), seen.values("authorization"))
            known = ([subject], [f"Bearer {token}"])
            assert told == known or (path != "/tasks/1" and told == ([], []))
        pod.sidecar.app.received.clear()
        assert (200 if path in (CARD, "/static/x") else 401) == _without_token(pod, path)
        assert not received_names(pod) & {"x-authz-subject", "authorization"}


def _without_token(pod: Pod, path: str) -> int:
    status = pod.sidecar.caller.get(path).status_code
    # The agent learns nothing of why.
    return 401 if status == 403 else status


def test_public_requests_are_on_record(pod: Pod) -> None:
    """In both logs and in the metrics, with the rule `public` and without a caller."""
    before = _counted(pod)
    pod.sidecar.caller.get(f"{CARD}?secret=1", headers={"x-request-id": REQUEST_ID})

    def logged() -> list[dict[str, object]]:
        return [each for each in pod.authz.events() if each.get("request_id") == REQUEST_ID]

    until(logged)
    record = logged()[-1]
    names = ("decision", "direction", "route", "rule", "path", "subject", "reason")
    assert ("allow", "inbound", "agent", "public", CARD, None, None) == tuple(
        record.get(name) for name in names
    )
    assert before + 1 == _counted(pod)
    line = pod.sidecar.envoy.access_log(REQUEST_ID)
    assert (200, "allow", "agent", "public") == tuple(
        line[name] for name in ("status", "decision", "route", "rule")
    )


def _counted(pod: Pod) -> int:
    """Return how many public requests the service has counted."""
    labels = 'authz_rules_total{decision="allow",direction="inbound",route="agent",rule="public"}'
    lines = pod.authz.admin("/metrics").text.splitlines()
    return sum(int(float(each.rpartition(" ")[2])) for each in lines if each.startswith(labels))


def test_what_follows_a_public_request_is_decided_on_its_own(pod: Pod) -> None:
    """On the same connection, and pipelined behind it."""
    public = f"GET {CARD} HTTP/1.1\r\nhost: agent\r\n\r\n"
    closed = "GET /tasks/1 HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", pod.sidecar.inbound_port), timeout=20) as caller:
        caller.sendall((public * 2 + closed).encode())
        heard = b""
        while part := caller.recv(65536):
            heard += part

    statuses = [int(each[:3]) for each in heard.split(b"HTTP/1.1 ")[1:]]
    assert [200, 200] == statuses[:2]
    assert statuses[2:] in ([401], [403])
    assert [CARD, CARD] == [seen.path for seen in pod.sidecar.app.received]
