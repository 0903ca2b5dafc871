"""What Envoy answers by itself: like the service, with a reason that tells whose failure it is."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import unquote
from uuid import uuid4

import httpx
import pytest
import yaml

from authz._pb.external_auth_pb2 import CheckRequest, CheckResponse
from authz.config import Config
from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.doors.envoy.ext_authz import encode
from authz.doors.problem import describe
from authz.envoy_config.replies import TLS_FAILED
from support.fakes.records import record_of
from support.peers.http2_peer import http2_call
from support.proxy.envoy import free_port
from support.proxy.ext_authz_server import ExtAuthzServer, allow
from support.proxy.sidecar import Authority, Sidecar

GRAPH: Final = "graph.microsoft.com"
WEATHER: Final = "api.weather.example"
WAIT: Final = "1"
"""Seconds of `Retry-After`."""


def told(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Return status, reason and `Retry-After`, of which body and headers say the same."""
    assert "application/problem+json" == answer.headers["content-type"]
    body, wait = answer.json(), answer.headers.get("retry-after")
    assert answer.status_code == body["status"]
    assert f"urn:authz:reason:{body['reason']}" == body["type"]
    assert (None if wait is None else int(wait)) == body.get("retry_after")
    assert "no-store" == answer.headers["cache-control"]
    assert body["reason"] == answer.headers["x-authz-reason"]
    assert body["request_id"]
    return answer.status_code, body["reason"], wait


def crash(_: CheckRequest) -> CheckResponse:
    """Answer no Check."""
    raise RuntimeError("the service is broken")


class Changed(Sidecar):
    """A sidecar whose configuration is changed before Envoy starts."""

    def __init__(self, change: Callable[[dict[str, Any]], None], *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._change = change

    def bootstrap(self) -> str:
        """Return the changed configuration."""
        document = yaml.safe_load(super().bootstrap())
        self._change(document["static_resources"])
        return yaml.safe_dump(document)


Run = Callable[[Callable[[dict[str, Any]], None]], Any]


@pytest.fixture
def changed(example: Config, authority: Authority, service: ExtAuthzServer) -> Run:
    """Return what runs a changed sidecar before a service that allows everything."""
    service.start()
    service.answer = lambda _: allow()
    return lambda change: Changed(
        change,
        example,
        authz_address=service.address,
        authority=authority,
        certificates={GRAPH: (GRAPH,)},
    )


def lead(name: str, port: int, *, tls: bool = False) -> Callable[[dict[str, Any]], None]:
    """Return the change that leads a cluster to a port of this machine, with TLS or without."""

    def change(resources: dict[str, Any]) -> None:
        (cluster,) = (one for one in resources["clusters"] if one["name"] == name)
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
        if tls:
            return
        cluster.pop("transport_socket", None)
        (options,) = cluster["typed_extension_protocol_options"].values()
        options.pop("auto_config", None)
        options["explicit_http_config"] = {"http_protocol_options": {}}

    return change


def ask(sidecar: Sidecar, cluster: str, path: str = "/chat") -> httpx.Response:
    """Send a request that a cluster has to answer."""
    if cluster == "app":
        return sidecar.caller.get(path)
    return sidecar.agent.get(f"http://{GRAPH}{path}")


@contextmanager
def closing_server(answer: bytes) -> Iterator[int]:
    """Run a server that reads a request, says something, and closes; return its port."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


PLACES: Final = [
    ("app", Reason.APP_UNAVAILABLE),
    (f"egress/{GRAPH}", Reason.DOWNSTREAM_UNAVAILABLE),
]


def test_without_the_service_both_directions_say_so(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """While it starts, and after it was killed: nobody has decided, and waiting helps."""
    service.stop()

    expected = (503, "authz_unavailable", WAIT)
    assert expected == told(sidecar.caller.get("/chat"))
    assert expected == told(sidecar.agent.get(f"http://{GRAPH}/"))
    assert expected == told(sidecar.agent.get("http://evil.example/"))


def test_a_caller_by_grpc_gets_a_status_of_its_own(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """UNAVAILABLE (14), with the problem body as its message, and when to try again."""
    service.stop()
    headers = [("content-type", "application/grpc"), ("te", "trailers")]

    answer = http2_call(sidecar.egress_port, GRAPH, method="POST", headers=headers)

    assert (200, ["application/grpc"]) == (answer.status, answer.values("content-type"))
    assert (["14"], [WAIT]) == (answer.values("grpc-status"), answer.values("retry-after"))
    (message,) = answer.values("grpc-message")
    assert "authz_unavailable" == json.loads(unquote(message))["reason"]


@pytest.mark.parametrize("where", ["inbound", "egress"])
def test_an_answer_of_envoys_is_found_by_its_identifier(
    sidecar: Sidecar, service: ExtAuthzServer, where: str
) -> None:
    """Whatever the caller chose: the body has it as a text, and the log's line has it with the reason."""
    service.stop()
    sent = f'{uuid4()}", "reason": "forged'
    headers = {"x-request-id": sent}

    answer = (
        sidecar.caller.get("/chat", headers=headers)
        if where == "inbound"
        else sidecar.agent.get(f"http://{GRAPH}/", headers=headers)
    )

    assert (503, "authz_unavailable", WAIT) == told(answer)
    assert sent == answer.json()["request_id"]
    line = sidecar.envoy.access_log(sent)
    assert ("authz_unavailable", "ext_authz_error") == (line["reason"], line["details"])


def test_no_destination_writes_a_reason_into_the_log(changed: Run, service: ExtAuthzServer) -> None:
    """A header of that name is Envoy's own."""
    answer = b"HTTP/1.1 200 OK\r\nx-authz-reason: forged\r\ncontent-length: 0\r\n\r\n"
    sent = str(uuid4())
    with (
        closing_server(answer) as port,
        changed(lead(f"egress/{GRAPH}", port)) as sidecar,
    ):
        headers = {"x-request-id": sent}
        got = sidecar.agent.get(f"http://{GRAPH}/", headers=headers)
        line = sidecar.envoy.access_log(sent)

    assert (200, None) == (got.status_code, got.headers.get("x-authz-reason"))
    assert "reason" not in line


def test_a_check_without_decision_is_the_same(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """A gRPC error, whatever it says."""
    service.answer = crash

    assert (503, "authz_unavailable", WAIT) == told(sidecar.agent.get(f"http://{GRAPH}/"))


def test_a_decision_that_envoy_cannot_apply_is_a_defect(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """No advice to wait: the next answer would be the same."""
    service.answer = lambda _: allow(headers={"x-authz-subject": "a\r\nx-authz-tenant: b"})

    assert (500, "internal", None) == told(sidecar.caller.get("/chat"))


def test_a_destination_that_proves_another_name_is_unavailable(sidecar: Sidecar) -> None:
    """It is told apart from the service: the decision was there, the destination was not."""
    answer = sidecar.agent.get(f"http://{WEATHER}/")

    assert (503, "downstream_unavailable", WAIT) == told(answer)
    assert TLS_FAILED == answer.json()["detail"]


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"])
def test_a_destination_without_tls_is_answered_with_how_to_say_so(
    changed: Run, reply: bytes
) -> None:
    """A server of plain HTTP refuses the handshake, or leaves; Envoy's own words about it stay in the log."""
    with (
        closing_server(reply) as port,
        changed(lead(f"egress/{GRAPH}", port, tls=True)) as sidecar,
    ):
        answer = ask(sidecar, f"egress/{GRAPH}")

    assert (503, "downstream_unavailable", WAIT) == told(answer)
    assert TLS_FAILED == answer.json()["detail"]
    assert TLS_FAILED in answer.json()["error"]["message"]


@pytest.mark.parametrize(("cluster", "reason"), PLACES)
def test_who_is_not_there_is_named(changed: Run, cluster: str, reason: Reason) -> None:
    """No connection: nothing was sent, and trying again repeats no effect."""
    with changed(lead(cluster, free_port())) as sidecar:
        answer = ask(sidecar, cluster)
    assert (503, reason.value, WAIT) == told(answer)
    assert "TLS" not in answer.json()["detail"]


def test_a_destination_with_tls_that_is_not_there_is_no_failure_of_tls(changed: Run) -> None:
    """Nobody should look for a scheme where a port is wrong."""
    with changed(lead(f"egress/{GRAPH}", free_port(), tls=True)) as sidecar:
        answer = ask(sidecar, f"egress/{GRAPH}")

    assert (503, "downstream_unavailable", WAIT) == told(answer)
    assert "TLS" not in answer.json()["detail"]


@pytest.mark.parametrize(("cluster", "reason"), PLACES)
@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n"])
def test_who_breaks_off_is_named_without_advice(
    changed: Run, cluster: str, reason: Reason, answer: bytes
) -> None:
    """The request was sent and may have had its effect: nobody is told to repeat it."""
    with closing_server(answer) as port, changed(lead(cluster, port)) as sidecar:
        assert (502, reason.value, None) == told(ask(sidecar, cluster))


def test_who_takes_too_long_is_named_without_advice(changed: Run) -> None:
    """A health check has a limit of its own."""
    pause = threading.Event()

    def impatient(resources: dict[str, Any]) -> None:
        for listener in resources["listeners"]:
            manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
            for host in manager["route_config"]["virtual_hosts"]:
                for route in host["routes"]:
                    if "route" in route:
                        route["route"]["timeout"] = "0.1s"

    with changed(impatient) as sidecar:
        for server in (sidecar.app, sidecar.destinations[GRAPH]):
            server.before_answer = lambda _: (pause.wait(20), None)[1]
        try:
            assert (504, "app_unavailable", None) == told(ask(sidecar, "app", "/healthz"))
            assert (504, "downstream_unavailable", None) == told(ask(sidecar, "egress"))
        finally:
            pause.set()


def test_silence_is_named_without_advice(
    example: Config, authority: Authority, service: ExtAuthzServer
) -> None:
    """After the time that is set for each direction."""
    pause = threading.Event()
    service.start()
    service.answer = lambda _: allow()

    with Sidecar(
        example,
        authz_address=service.address,
        authority=authority,
        certificates={GRAPH: (GRAPH,)},
        changes={"inbound_idle_timeout": 0.2, "egress_idle_timeout": 0.2},
    ) as sidecar:
        for server in (sidecar.app, sidecar.destinations[GRAPH]):
            server.before_answer = lambda _: (pause.wait(20), None)[1]
        try:
            assert (504, "app_unavailable", None) == told(ask(sidecar, "app"))
            assert (504, "downstream_unavailable", None) == told(ask(sidecar, "egress"))
        finally:
            pause.set()


@pytest.mark.parametrize(
    ("cluster", "reason"), [("app", "app_unavailable"), (f"egress/{GRAPH}", "downstream_busy")]
)
def test_too_much_at_a_time_is_named(changed: Run, cluster: str, reason: str) -> None:
    """Nothing was sent: Envoy had the bound's number of requests under way already."""

    def full(resources: dict[str, Any]) -> None:
        (found,) = (one for one in resources["clusters"] if one["name"] == cluster)
        for threshold in found["circuit_breakers"]["thresholds"]:
            threshold.update(dict.fromkeys(threshold, 0))

    with changed(full) as sidecar:
        assert (503, reason, WAIT) == told(ask(sidecar, cluster))


@pytest.mark.parametrize("status", [405, 500, 502, 503, 504])
def test_what_others_answer_is_left_as_it_is(
    sidecar: Sidecar, service: ExtAuthzServer, status: int
) -> None:
    """App and destination speak for themselves, whatever status they choose."""
    for server in (sidecar.app, sidecar.destinations[GRAPH]):
        server.status = status
    try:
        answers = [sidecar.caller.get("/chat"), sidecar.agent.get(f"http://{GRAPH}/")]
    finally:
        for server in (sidecar.app, sidecar.destinations[GRAPH]):
            server.status = 200

    for answer in answers:
        assert (status, "application/json") == (answer.status_code, answer.headers["content-type"])
        assert "retry-after" not in answer.headers
        assert "GET" == answer.json()["method"]


@pytest.mark.parametrize("reason", Reason)
def test_a_denial_is_left_as_it_is(
    sidecar: Sidecar, service: ExtAuthzServer, reason: Reason
) -> None:
    """Those included whose status is one of Envoy's own."""
    denial = Deny(reason)
    service.answer = lambda _: encode(record_of(denial))

    answer = sidecar.agent.get(f"http://{GRAPH}/")

    assert describe(denial).body == answer.text
