"""WebSockets through Envoy as we render it: decided by their handshake, and bytes from then on."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from typing import Any, Final

import pytest
import yaml

from authz.config.reading.document import parse
from authz.core.decision import Allow
from authz.core.request import Direction
from authz.core.secret import Secret
from authz.doors.envoy.ext_authz import encode
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import AppProtocol, RenderError, SidecarSettings
from support.fakes.records import record_of
from support.peers.http2_peer import http2_call
from support.peers.websocket_peer import WebSocketClient, WebSocketServer
from support.proxy.edge import Issuer, bearer, denial
from support.proxy.envoy import validate
from support.proxy.ext_authz_server import PUSHED, ExtAuthzServer, allow
from support.proxy.sidecar import Authority, Sidecar

SECURE: Final = "realtime.example"
PLAIN: Final = "voice.svc:8000"
WITH_TOKEN: Final = "stock.example"
TENANT: Final = "11111111-0000-4000-8000-000000000001"
CONFIGURATION: Final = f"""
applications:
  a: {{tenant_id: {TENANT}, client_id: {TENANT}, credentials: [client_secret: {{file: /run/secret}}]}}
inbound:
  chat: {{application: a}}
egress:
  asked: {{flow: none, hosts: [{SECURE}, "http://{PLAIN}"]}}
  pushed: {{flow: app, application: a, scopes: [api://x/.default], hosts: [{WITH_TOKEN}]}}
"""
USER: Final = ("authorization", "Bearer user-token")
BOTH: Final = {"websockets": frozenset(Direction)}


def sidecar(
    authority: Authority,
    service: ExtAuthzServer,
    changes: Mapping[str, Any],
    servers: Mapping[str, str] | None = None,
) -> Sidecar:
    """Return an Envoy with these settings."""
    return Sidecar(
        parse(CONFIGURATION, {}),
        authz_address=service.address,
        authority=authority,
        certificates={},
        servers=servers or {},
        changes=changes,
    )


@pytest.fixture(scope="module")
def app() -> Iterator[WebSocketServer]:
    """The agent."""
    with WebSocketServer() as server:
        yield server


@pytest.fixture(scope="module")
def apis(authority: Authority) -> Iterator[dict[str, WebSocketServer]]:
    """The APIs, of which those with TLS would rather speak HTTP/2."""
    contexts = {host: authority.server_context(host) for host in (SECURE, WITH_TOKEN)}
    for context in contexts.values():
        context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        WebSocketServer(contexts[SECURE]) as secure,
        WebSocketServer() as plain,
        WebSocketServer(contexts[WITH_TOKEN]) as pushed,
    ):
        yield {SECURE: secure, f"http://{PLAIN}": plain, WITH_TOKEN: pushed}


@pytest.fixture(scope="module")
def running(
    app: WebSocketServer,
    apis: dict[str, WebSocketServer],
    authority: Authority,
    service: ExtAuthzServer,
) -> Iterator[Sidecar]:
    """Envoy between them."""
    servers = {host: server.address for host, server in apis.items()}
    with sidecar(authority, service, {**BOTH, "app_address": app.address}, servers) as found:
        yield found


def test_caller_may_open_one_to_the_agent(
    running: Sidecar, app: WebSocketServer, service: ExtAuthzServer
) -> None:
    """After a Check of the handshake, whose own headers pass both ways; the app hears who calls."""
    service.answer = lambda _: allow(headers={"x-authz-subject": "alice"})
    service.requests.clear()
    forged = ("x-authz-subject", "somebody")

    with WebSocketClient(running.inbound_port, "agent", [USER, forged]) as client:
        assert client.is_accepted
        assert "chat" == client.headers["sec-websocket-protocol"]
        assert [b"HELLO", b"AGAIN"] == [client.say(b"hello"), client.say(b"again")]

    (asked,) = service.requests
    line, headers = app.received[-1]
    assert ("GET", "/socket", "Bearer user-token") == (
        asked.attributes.request.http.method,
        asked.attributes.request.http.path,
        asked.attributes.request.http.headers["authorization"],
    )
    assert ("GET /socket HTTP/1.1", "alice", "13", "chat, other") == (
        line,
        headers["x-authz-subject"],
        headers["sec-websocket-version"],
        headers["sec-websocket-protocol"],
    )


@pytest.mark.parametrize("direction", ["inbound", "egress"])
def test_handshake_that_is_denied_reaches_nobody(
    running: Sidecar,
    app: WebSocketServer,
    apis: dict[str, WebSocketServer],
    service: ExtAuthzServer,
    direction: str,
) -> None:
    """It is answered as any other request."""
    service.answer = lambda _: denial()
    before = len(app.received), len(apis[SECURE].received)
    port, host = (
        (running.inbound_port, "agent") if direction == "inbound" else (running.egress_port, SECURE)
    )

    with WebSocketClient(port, host, [USER], early=b"GET /secret HTTP/1.1\r\n\r\n") as client:
        assert 401 == client.status

    assert before == (len(app.received), len(apis[SECURE].received))


@pytest.mark.parametrize(
    ("host", "token"), [(SECURE, "Bearer agent-token"), (PLAIN, None), (WITH_TOKEN, PUSHED)]
)
def test_agent_may_open_one_to_an_api(
    running: Sidecar,
    apis: dict[str, WebSocketServer],
    service: ExtAuthzServer,
    host: str,
    token: str | None,
) -> None:
    """By HTTP/1.1 also where the API offers HTTP/2; with the route's token, asked about or pushed."""
    decision = (
        Allow(remove=("authorization",))
        if token is None
        else Allow(authorization=Secret("agent-token"))
    )
    service.answer = lambda _: encode(record_of(decision))

    with WebSocketClient(running.egress_port, host, [USER]) as client:
        assert client.is_accepted
        assert b"HELLO" == client.say(b"hello")

    _, headers = apis[f"http://{host}" if host == PLAIN else host].received[-1]
    assert (token, host) == (headers.get("authorization"), headers["host"])


@contextmanager
def listening(answer: bytes) -> Iterator[tuple[str, "Queue[bytes]"]]:
    """Run a server that answers whatever it is asked; return its address, and all that it hears."""
    heard: Queue[bytes] = Queue()

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    said = b""
                    while b"\r\n\r\n" not in said:
                        said += connection.recv(65536)
                    connection.sendall(answer)
                    while part := connection.recv(65536):
                        said += part
                    heard.put(said)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", heard


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "426 Upgrade Required"])
@pytest.mark.parametrize("direction", ["inbound", "egress"])
def test_what_follows_a_handshake_is_no_request_of_its_own(
    authority: Authority, service: ExtAuthzServer, direction: str, status: str
) -> None:
    """An app that takes no WebSocket answers the handshake; nobody asked about what was sent behind it."""
    service.answer = lambda _: allow(headers={"x-authz-subject": "alice"})
    hidden = b"GET /secret HTTP/1.1\r\nhost: agent\r\nx-authz-subject: victim\r\n\r\n"
    answer = f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode()
    with (
        listening(answer) as (address, heard),
        sidecar(
            authority, service, {**BOTH, "app_address": address}, {f"http://{PLAIN}": address}
        ) as found,
    ):
        port, host = (
            (found.inbound_port, "agent") if direction == "inbound" else (found.egress_port, PLAIN)
        )
        with WebSocketClient(port, host, early=hidden * 20) as client:
            assert int(status[:3]) == client.status
            client.rest()
        head, _, behind = heard.get(timeout=20).partition(b"\r\n\r\n")

    assert b"GET /socket HTTP/1.1" == head.partition(b"\r\n")[0]
    assert b"" == behind


def test_what_is_sent_early_arrives_after_the_answer(
    running: Sidecar, service: ExtAuthzServer
) -> None:
    """Nothing of it is lost where the other side agrees."""
    service.answer = lambda _: allow()

    with WebSocketClient(running.inbound_port, "agent", early=b"early") as client:
        assert client.is_accepted
        assert b"EARLY" == client.hear(5)
        assert b"LATE" == client.say(b"late")


@pytest.mark.parametrize("websockets", [frozenset(), frozenset({Direction.EGRESS})])
def test_without_the_option_nobody_is_asked(
    app: WebSocketServer,
    authority: Authority,
    service: ExtAuthzServer,
    websockets: frozenset[Direction],
) -> None:
    """Nor with that of the other direction."""
    service.answer = lambda _: allow()
    before = len(app.received)
    changes = {"websockets": websockets, "app_address": app.address}

    with (
        sidecar(authority, service, changes) as found,
        WebSocketClient(found.inbound_port, "agent") as client,
    ):
        assert 403 == client.status

    assert before == len(app.received)


def test_health_path_opens_none(running: Sidecar, app: WebSocketServer) -> None:
    """There nobody is asked, so nothing may stay open."""
    before = len(app.received)

    with WebSocketClient(running.inbound_port, "agent", path="/healthz") as client:
        assert 403 == client.status

    assert before == len(app.received)


@pytest.mark.parametrize("direction", ["inbound", "egress"])
def test_handshake_of_http2_is_refused(
    running: Sidecar, app: WebSocketServer, service: ExtAuthzServer, direction: str
) -> None:
    """Extended CONNECT (RFC 8441) is another method, of which nobody has asked."""
    service.answer = lambda _: allow()
    before = len(app.received)
    port, host = (
        (running.inbound_port, "agent") if direction == "inbound" else (running.egress_port, SECURE)
    )

    answer = http2_call(port, host, method="CONNECT", headers=[(":protocol", "websocket")])

    assert answer.status not in range(100, 300)
    assert before == len(app.received)


def test_repeated_decision_is_one_for_the_same_user(
    running: Sidecar, app: WebSocketServer, service: ExtAuthzServer
) -> None:
    """A handshake is a GET to the edge cache: who may call may open a WebSocket, and as nobody else."""
    service.answer = issuer = Issuer()
    alice, bob = "user-of-sockets", "another-user-of-sockets"

    def opened_by(user: str) -> tuple[str, int]:
        asked = len(service.requests)
        with WebSocketClient(running.inbound_port, "agent", list(bearer(user).items())) as client:
            assert client.is_accepted
        token = app.received[-1][1]["authorization"]
        return issuer.issued[token].user, len(service.requests) - asked

    assert (f"user-{alice}", 1) == opened_by(alice)
    assert (f"user-{alice}", 0) == opened_by(alice)
    assert (f"user-{bob}", 1) == opened_by(bob)


def test_ordinary_requests_are_sent_on_as_without_the_option(authority: Authority) -> None:
    """Each destination is there as it was, HTTP/2 where it is offered, and once more for WebSockets."""

    def clusters(websockets: frozenset[Direction]) -> dict[str, Any]:
        settings = SidecarSettings(upstream_ca_file=authority.file, websockets=websockets)
        document = yaml.safe_load(render(parse(CONFIGURATION, {}), settings))
        return {each["name"]: each for each in document["static_resources"]["clusters"]}

    without, more = clusters(frozenset()), clusters(frozenset({Direction.EGRESS}))

    assert without == {name: more[name] for name in without}
    assert {f"websocket/egress/{host}" for host in (SECURE, WITH_TOKEN)} == more.keys() - without


def test_app_of_http2_has_none() -> None:
    """Its WebSockets would be of HTTP/2."""
    with pytest.raises(RenderError, match="websockets: inbound, and app_protocol is http2"):
        SidecarSettings(websockets=frozenset({Direction.INBOUND}), app_protocol=AppProtocol.HTTP2)


def test_envoy_accepts_it(authority: Authority, tmp_path: Path) -> None:
    """With wildcards, pushed ones among them: `envoy --mode validate` has no error and no warning."""
    pushed = f"hosts: [{WITH_TOKEN}"
    text = CONFIGURATION.replace(pushed, f'{pushed}, "*.stock.example"')
    found = parse(f'{text}  wild: {{flow: none, hosts: ["*", "http://*.svc"]}}\n', {})
    settings = SidecarSettings(upstream_ca_file=authority.file, websockets=frozenset(Direction))

    outcome = validate(render(found, settings), tmp_path)

    assert (0, "") == (outcome.returncode, outcome.stderr)
