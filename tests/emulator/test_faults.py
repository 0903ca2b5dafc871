"""Injected faults, set over the control endpoint and in-process."""

from __future__ import annotations

import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from msal.exceptions import MsalServiceError

from authz_dev.emulator import Emulator, Fault, Match
from emulator.scene import GRAPH, Scene, trusting


def inject(scene: Scene, **fault: Any) -> dict[str, Any]:
    """Set a fault over HTTP."""
    response = scene.session.post(f"{scene.emulator.control_url}/faults", json=fault)
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


def test_throttling_answers_429_as_often_as_asked(scene: Scene) -> None:
    """`count` uses the fault up; the call counts for its leg all the same."""
    inject(scene, kind="status", status=429, retry_after=60, count=1)
    throttled = scene.as_blueprint()
    assert (throttled.status_code, throttled.headers["retry-after"]) == (429, "60")
    assert scene.as_blueprint().status_code == 200
    counts = scene.emulator.calls.snapshot()
    assert (counts["t1"], counts["rejected"]) == (2, 1)


def test_msal_reports_a_server_fault(scene: Scene) -> None:
    """A 5xx reaches the client as such."""
    app = scene.blueprint_app()
    inject(scene, kind="status", status=503)
    with pytest.raises(MsalServiceError, match="503"):
        app.acquire_token_for_client([GRAPH])


def test_any_refusal_can_be_injected(scene: Scene) -> None:
    """70021 is what a fresh federated credential meets while it replicates."""
    inject(scene, kind="error", code=70021, count=1)
    refused = scene.as_blueprint()
    assert (refused.status_code, refused.json()["error_codes"]) == (401, [70021])
    assert scene.as_blueprint().status_code == 200


def test_an_injected_refusal_carries_suberror_and_claims(scene: Scene) -> None:
    """`claims` is sent as text, as Entra does."""
    inject(scene, kind="error", code=53003, suberror="message_only", claims={"access_token": {}})
    body = scene.as_blueprint().json()
    assert (body["suberror"], body["claims"]) == ("message_only", '{"access_token":{}}')


def test_a_fault_meets_only_its_leg(scene: Scene) -> None:
    """T1 works while the second leg fails."""
    inject(scene, kind="status", status=500, match={"leg": "autonomous"})
    assert scene.as_blueprint().status_code == 200
    assert scene.as_agent().status_code == 500


def test_a_fault_meets_only_its_client(scene: Scene) -> None:
    """One agent fails, its sibling does not."""
    sibling = scene.sibling
    inject(scene, kind="status", status=500, match={"client_id": sibling["client_id"]})
    assert scene.as_agent().status_code == 200
    failed = scene.as_agent(client_id=sibling["client_id"], client_assertion=scene.t1(sibling))
    assert failed.status_code == 500


@pytest.mark.parametrize("name", ["username", "object_id"])
def test_a_fault_meets_only_its_user(scene: Scene, name: str) -> None:
    """One user's OBO fails, by UPN or object id; another user's does not."""
    inject(scene, kind="status", status=500, match={"user": scene.users["alice"][name]})
    assert scene.on_behalf_of(scene.user_token("alice")).status_code == 500
    assert scene.on_behalf_of(scene.user_token("alice2")).status_code == 200


def test_a_fault_meets_only_its_tenant(scene: Scene) -> None:
    """A fault of the other tenant, named by domain, leaves this one alone."""
    inject(scene, kind="status", status=500, match={"tenant": "fabrikam.example"})
    assert scene.as_blueprint().status_code == 200
    assert scene.post("fabrikam.example", grant_type="client_credentials").status_code == 500


def test_latency_delays_and_then_answers(scene: Scene) -> None:
    """Latency leaves the answer as it is."""
    inject(scene, kind="latency", seconds=0.2)
    started = time.monotonic()
    assert scene.as_blueprint().status_code == 200
    assert time.monotonic() - started >= 0.2


def test_latency_and_another_fault_add_up(scene: Scene) -> None:
    """A slow failure is two faults."""
    inject(scene, kind="latency", seconds=0.2)
    inject(scene, kind="status", status=502)
    started = time.monotonic()
    assert scene.as_blueprint().status_code == 502
    assert time.monotonic() - started >= 0.2


def test_a_hanging_call_is_never_answered(scene: Scene) -> None:
    """The client's own timeout ends it; others are served meanwhile."""
    inject(scene, kind="hang", count=1)
    url = f"{scene.emulator.authority}/{scene.tenant_id}/oauth2/v2.0/token"
    with pytest.raises(requests.ReadTimeout):
        scene.session.post(url, data={"grant_type": "client_credentials"}, timeout=0.2)
    assert scene.as_blueprint().status_code == 200


def test_stopping_cuts_a_hanging_call() -> None:
    """The end of a test run never waits for a fault."""
    emulator = Emulator()
    emulator.start()
    emulator.faults.add(Fault("hang"))
    with trusting(emulator) as session, ThreadPoolExecutor() as threads:
        waiting = threads.submit(Scene(emulator, session).as_blueprint)
        while emulator.calls.snapshot()["t1"] == 0:
            assert not waiting.done()
        emulator.stop()
        assert isinstance(waiting.exception(timeout=5), requests.ConnectionError)


@pytest.mark.parametrize("kind", ["down", "truncated"])
def test_a_connection_can_be_cut(scene: Scene, kind: str) -> None:
    """Before the answer, or in its middle."""
    inject(scene, kind=kind, count=1)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        scene.as_blueprint()
    assert scene.as_blueprint().status_code == 200


def test_a_malformed_answer_is_not_json(scene: Scene) -> None:
    """200 with half a document."""
    inject(scene, kind="malformed")
    response = scene.as_blueprint()
    assert response.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        response.json()


def test_a_huge_answer_streams_as_much_as_asked(scene: Scene) -> None:
    """A body no client should read to its end."""
    inject(scene, kind="huge", megabytes=2)
    assert len(scene.as_blueprint().content) > 2 * 1_048_576


def test_a_redirect_leads_elsewhere(scene: Scene) -> None:
    """A client must not repeat its secret there."""
    inject(scene, kind="redirect", location="https://elsewhere.example/token")
    response = scene.as_blueprint()
    assert response.status_code == 307
    assert response.headers["location"] == "https://elsewhere.example/token"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("discovery", "/v2.0/.well-known/openid-configuration"),
        ("jwks", "/discovery/v2.0/keys"),
    ],
)
def test_metadata_and_keys_can_fail(scene: Scene, target: str, path: str) -> None:
    """Faults of these targets leave the token endpoint alone."""
    scene.emulator.faults.add(Fault("status", target, Match(tenant="contoso.example")))
    url = f"{scene.emulator.authority}/{scene.tenant_id}{path}"
    assert scene.session.get(url).status_code == 503
    assert scene.as_blueprint().status_code == 200


@pytest.mark.parametrize(
    "error", [7, None, ["invalid_grant"], "two\nlines", "\u00e9", "x" * 100_000]
)
def test_a_refusal_can_hold_any_error(scene: Scene, error: object) -> None:
    """`members` puts any JSON value in place of a refusal's own."""
    inject(scene, kind="error", code=65001, members={"error": error}, count=1)
    refused = scene.as_blueprint()
    assert (refused.status_code, refused.json()["error"]) == (400, error)
    assert refused.json()["error_codes"] == [65001]


@pytest.mark.parametrize("expires_in", [0, -1, "-1", 3599.0, True, "soon", 10**12])
def test_a_token_can_come_with_any_lifetime(scene: Scene, expires_in: object) -> None:
    """`members` leaves the rest of a normal answer as it is."""
    inject(scene, kind="members", members={"expires_in": expires_in, "id_token": "garbage"})
    body = scene.as_blueprint().json()
    assert (body["expires_in"], body["id_token"]) == (expires_in, "garbage")
    assert body["token_type"] == "Bearer"


def test_metadata_can_have_other_members(scene: Scene) -> None:
    """A discovery document that names another key set."""
    inject(scene, kind="members", target="discovery", members={"jwks_uri": None})
    url = f"{scene.emulator.authority}/{scene.tenant_id}/v2.0/.well-known/openid-configuration"
    assert scene.session.get(url).json()["jwks_uri"] is None


@pytest.mark.parametrize(("body", "text"), [([1], "[1]"), ("<html>", "<html>"), (None, "null")])
def test_any_answer_can_be_given(scene: Scene, body: object, text: str) -> None:
    """Status, headers and body as the fault says."""
    inject(scene, kind="answer", status=418, headers={"retry-after": "soon"}, body=body)
    answer = scene.as_blueprint()
    assert (answer.status_code, answer.headers["retry-after"], answer.text) == (418, "soon", text)


@pytest.mark.parametrize("retry_after", [60, "Wed, 21 Oct 2065 07:28:00 GMT", "nonsense"])
def test_throttling_says_when_to_come_again_in_any_form(
    scene: Scene, retry_after: int | str
) -> None:
    """Seconds, a date (RFC 9110 section 10.2.3), or what a server made up."""
    inject(scene, kind="status", status=429, retry_after=retry_after)
    assert scene.as_blueprint().headers["retry-after"] == str(retry_after)


@pytest.mark.parametrize("part", ["head", "chunk", "body"])
def test_an_answer_can_drip_for_ever(scene: Scene, part: str) -> None:
    """Each byte comes in time, the answer never does; who leaves ends it."""
    inject(scene, kind="drip", target="jwks", part=part, seconds=0.01, count=1)
    context = ssl.create_default_context(cafile=str(scene.emulator.ca_file))
    host, port = scene.emulator.authority.removeprefix("https://").split(":")
    path = f"/{scene.tenant_id}/discovery/v2.0/keys"
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname=host) as wire,
    ):
        wire.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        came = [wire.recv(4096) for _ in range(8)]
    assert all(came)
    assert scene.session.get(f"{scene.emulator.authority}{path}").status_code == 200


def test_an_answer_can_have_heads_of_any_size(scene: Scene) -> None:
    """Ninety lines of sixty thousand bytes, unless the fault says otherwise."""
    inject(scene, kind="heads", lines=3, width=1000)
    headers = scene.as_blueprint().headers
    assert [len(headers[f"x-filler-{n}"]) for n in range(3)] == [1000 - len("x-filler-0: ")] * 3


def test_faults_are_listed_and_cleared(scene: Scene) -> None:
    """One by id, or all."""
    url = f"{scene.emulator.control_url}/faults"
    first = inject(scene, kind="status", count=2)
    second = inject(scene, kind="hang", target="jwks")
    assert [f["id"] for f in scene.session.get(url).json()] == [first["id"], second["id"]]
    scene.session.delete(f"{url}/{first['id']}")
    assert [f["id"] for f in scene.session.get(url).json()] == [second["id"]]
    scene.session.delete(url)
    assert scene.session.get(url).json() == []


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({}, "kind"),
        ({"kind": "typo"}, "kind"),
        ({"kind": "hang", "target": "everything"}, "target"),
        ({"kind": "hang", "count": 0}, "count"),
        ({"kind": "hang", "match": {"leg": "first"}}, "match"),
        ({"kind": "hang", "match": {"path": "/"}}, "match"),
        ({"kind": "status", "status": 200}, "status"),
        ({"kind": "latency", "seconds": "2"}, "seconds"),
        ({"kind": "latency", "secnds": 2}, "secnds"),
        ({"kind": "answer", "status": 100}, "status"),
        ({"kind": "drip", "part": "tail"}, "part"),
        ({"kind": "answer", "status": 200, "headers": {"x": 1}}, "headers"),
    ],
)
def test_a_wrong_fault_is_named(scene: Scene, fault: dict[str, Any], field: str) -> None:
    """400 with a problem document that names the member."""
    response = scene.session.post(f"{scene.emulator.control_url}/faults", json=fault)
    assert (response.status_code, response.json()["field"]) == (400, field)
    assert response.headers["content-type"] == "application/problem+json"
