"""Rules and streams through a real Envoy: gRPC, WebSockets and events pass by rule, or are denied by one."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from queue import Queue
from typing import Any, Final, Self

import grpc
import pytest

from authz.config.reading.document import parse
from authz.core.errors import Reason
from authz.core.request import Direction
from authz.doors.problem import FACES
from authz.envoy_config.settings import AppProtocol
from support.peers.grpc_peer import SERVICE, GrpcClient, GrpcServer
from support.peers.http2_peer import http2_call
from support.peers.websocket_peer import WebSocketClient, WebSocketServer
from support.programs.stack import Process, World, claims
from support.proxy.sidecar import Authority, Sidecar

RPC: Final = "rpc.example"
SOCKETS: Final = "sockets.example"
EVENTS: Final = "events.example"
READ: Final = "https://graph.microsoft.com/User.Read"
MAIL: Final = "https://graph.microsoft.com/Mail.Read"

RULES: Final[list[dict[str, Any]]] = [
    {"name": "call", "methods": ["POST"], "paths": [f"/{SERVICE}/Unary"]},
    {
        "name": "stream",
        "methods": ["POST"],
        "paths": [f"/{SERVICE}/{name}" for name in ("Collect", "Tell", "Talk")],
    },
    {"name": "never", "paths": ["/test.Admin/**"], "deny": True},
    {"name": "socket", "methods": ["GET"], "paths": ["/socket"]},
    {"name": "events", "methods": ["GET"], "paths": ["/events"]},
]
SCOPES: Final = {"call": READ, "stream": MAIL, "socket": MAIL, "events": READ}


@dataclass
class EventServer:
    """A server that sends an event, and one more for each `go` that it is given, as a context manager."""

    go: "Queue[bytes]" = field(default_factory=Queue)
    received: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def address(self) -> str:
        """`host:port` it listens on."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            self.received.append(head.decode())
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
            connection.sendall(b"transfer-encoding: chunked\r\n\r\n")
            event = b"data: first\n\n"
            while event:
                connection.sendall(f"{len(event):x}\r\n".encode() + event + b"\r\n")
                event = self.go.get(timeout=20)
            connection.sendall(b"0\r\n\r\n")


@dataclass(frozen=True)
class Place:
    """One direction: whom a client calls, and what arrives there."""

    rpc_port: int
    socket_port: int
    event_port: int
    rpc_host: str
    socket_host: str
    event_host: str
    rpc: GrpcServer
    sockets: WebSocketServer
    events: EventServer


@contextmanager
def peers(authority: Authority | None = None) -> Iterator[tuple[GrpcServer, WebSocketServer]]:
    """Run servers of gRPC and of WebSockets, with TLS if there is an authority."""
    tls = None if authority is None else _credentials(authority)
    context = None if authority is None else authority.server_context(SOCKETS)
    with GrpcServer(tls) as rpc, WebSocketServer(context) as sockets:
        yield rpc, sockets


def _credentials(authority: Authority) -> grpc.ServerCredentials:
    issued = authority.ca.issue_cert(RPC)
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    return grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])


@pytest.fixture(scope="module")
def places(
    shared_world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Place]]:
    """The service, Envoys with their edge cache before agents of each kind, and APIs of each kind."""
    folder = tmp_path_factory.mktemp("streams")
    document = _document(shared_world)
    file = folder / "authz.yaml"
    file.write_text(json.dumps(document))
    authority = Authority.create(folder)
    with ExitStack() as stack:
        app_rpc, app_sockets = stack.enter_context(peers())
        api_rpc, api_sockets = stack.enter_context(peers(authority))
        app_events, api_events = (stack.enter_context(EventServer()) for _ in range(2))
        servers = {
            RPC: api_rpc.address,
            SOCKETS: api_sockets.address,
            f"http://{EVENTS}": api_events.address,
        }
        authz = Process("serve", "--config", str(file)).wait_ready()
        stack.callback(authz.close)

        def envoy(**changes: Any) -> Sidecar:
            return stack.enter_context(
                Sidecar(
                    parse(file.read_text(), {}),
                    authz_address=document["listen"]["grpc"],
                    authority=authority,
                    certificates={},
                    servers=servers,
                    changes={"websockets": frozenset(Direction), **changes},
                )
            )

        one = envoy(
            app_address=app_rpc.address,
            app_protocol=AppProtocol.HTTP2,
            websockets=frozenset({Direction.EGRESS}),
        )
        two = envoy(app_address=app_sockets.address)
        three = envoy(app_address=app_events.address)
        ports = (one.inbound_port, two.inbound_port, three.inbound_port)
        yield {
            "inbound": Place(*ports, "", "agent", "agent", app_rpc, app_sockets, app_events),
            "egress": Place(
                *(two.egress_port,) * 3, RPC, SOCKETS, EVENTS, api_rpc, api_sockets, api_events
            ),
        }


def _document(world: World) -> dict[str, Any]:
    document = world.config(cache={"edge": {"max_ttl": "1h"}})
    document["inbound"]["agent"]["rules"] = RULES
    graph = document["egress"]["graph"]
    graph["hosts"] = [RPC, SOCKETS, f"http://{EVENTS}"]
    graph["token_over_plain_http"] = True
    graph["rules"] = [
        rule if rule.get("deny") else rule | {"scopes": [SCOPES[rule["name"]]]} for rule in RULES
    ]
    document["egress"] = {"graph": graph}
    return document


@pytest.fixture(params=["inbound", "egress"])
def direction(request: pytest.FixtureRequest) -> str:
    """Each direction."""
    found: str = request.param
    return found


@pytest.fixture
def place(places: Mapping[str, Place], direction: str) -> Place:
    """That direction."""
    return places[direction]


@pytest.fixture
def user(shared_world: World) -> tuple[tuple[str, str]]:
    """A user's token, as a header."""
    return (("authorization", f"Bearer {shared_world.token()}"),)


def has_token_of(rule: str, arrived: str, direction: str) -> bool:
    """Whether a request arrived with the token of its rule: inbound that is the user's."""
    scopes = {*str(claims(arrived.removeprefix("Bearer "))["scp"]).split()}
    wanted = "access_agent" if direction == "inbound" else SCOPES[rule].rpartition("/")[2]
    return wanted in scopes and not (scopes & {"User.Read", "Mail.Read"}) - {wanted}


def test_grpc_passes_by_rule_in_each_way(
    place: Place, direction: str, user: tuple[tuple[str, str]]
) -> None:
    """One message or many, each way; from the service, and again from Envoy's own cache."""
    before = len(place.rpc.received)
    with GrpcClient(place.rpc_port, place.rpc_host, user) as client:
        for _ in range(2):
            assert b"HELLO" == client.unary(b"hello")[0]
            assert b"abc" == client.collect([b"a", b"b", b"c"])
            assert [b"x0", b"x1", b"x2"] == client.tell(b"x")
            assert [b"A", b"B", b"C"] == client.talk([b"a", b"b", b"c"])

    arrived = [seen["authorization"] for seen in place.rpc.received[before:]]
    rules = ["call", "stream", "stream", "stream"] * 2
    assert [True] * 8 == [
        has_token_of(rule, each, direction) for rule, each in zip(rules, arrived, strict=True)
    ]


@pytest.mark.parametrize(
    "path",
    ["/test.Admin/Unary", "/test.Admin/a/b", f"/{SERVICE}/Other", "/test.Other/Unary", "/socket"],
)
def test_grpc_that_no_rule_allows_is_denied(
    place: Place, user: tuple[tuple[str, str]], path: str
) -> None:
    """By PERMISSION_DENIED, with the reason and a sentence; it reaches nobody."""
    before = len(place.rpc.received)
    with GrpcClient(place.rpc_port, place.rpc_host, user) as client:
        assert b"HELLO" == client.unary(b"hello")[0]
        code, message, _ = client.status(b"hello", path)

    detail = FACES[Reason.RULE_DENIED].detail
    assert (grpc.StatusCode.PERMISSION_DENIED, f"rule_denied: {detail}") == (code, message)
    assert before + 1 == len(place.rpc.received)


@pytest.mark.parametrize(
    ("path", "header"),
    [
        (f"/{SERVICE}/unary", None),
        (f"/{SERVICE.upper()}/Unary", None),
        (f"/{SERVICE}/Unary/", None),
        (f"/{SERVICE}/Unary", ("x-http-method-override", "GET")),
        (f"/{SERVICE}/Unary", ("x-original-url", "/test.Admin/Unary")),
    ],
)
def test_grpc_with_two_readings_is_refused(
    place: Place, user: tuple[tuple[str, str]], path: str, header: tuple[str, str] | None
) -> None:
    """By INVALID_ARGUMENT, though the same user's call was allowed a moment ago."""
    metadata = user if header is None else (*user, header)
    with GrpcClient(place.rpc_port, place.rpc_host, user) as client:
        assert b"HELLO" == client.unary(b"hello")[0]
    before = len(place.rpc.received)
    with GrpcClient(place.rpc_port, place.rpc_host, metadata) as client:
        code, message, _ = client.status(b"hello", path)

    detail = FACES[Reason.AMBIGUOUS_REQUEST].detail
    assert (grpc.StatusCode.INVALID_ARGUMENT, f"ambiguous_request: {detail}") == (code, message)
    assert before == len(place.rpc.received)


def test_grpc_by_another_method_is_denied(place: Place, user: tuple[tuple[str, str]]) -> None:
    """A rule for POST allows no GET of the same path."""
    before = len(place.rpc.received)
    headers = (("content-type", "application/grpc"), ("te", "trailers"), *user)
    answer = http2_call(
        place.rpc_port,
        place.rpc_host or "agent",
        method="GET",
        path=f"/{SERVICE}/Unary",
        headers=headers,
    )

    assert ["7"] == answer.values("grpc-status")
    assert before == len(place.rpc.received)


def test_a_websocket_passes_by_rule(
    place: Place, direction: str, user: tuple[tuple[str, str]]
) -> None:
    """Its handshake is a GET; bytes flow from then on, and a second one opens as well."""
    for _ in range(2):
        with WebSocketClient(place.socket_port, place.socket_host, list(user)) as client:
            assert client.is_accepted
            assert [b"HELLO", b"AGAIN"] == [client.say(b"hello"), client.say(b"again")]
        line, headers = place.sockets.received[-1]
        assert "GET /socket HTTP/1.1" == line
        assert has_token_of("socket", headers["authorization"], direction)


@pytest.mark.parametrize(
    ("path", "status", "more"),
    [
        ("/other", 403, ()),
        ("/test.Admin/socket", 403, ()),
        ("/socket/more", 403, ()),
        ("/Socket", 400, ()),
        ("/socket/", 400, ()),
        ("/socket?_method=POST", 400, ()),
        ("/socket", 400, (("x-http-method-override", "POST"),)),
        (f"/{SERVICE}/Unary", 403, ()),
    ],
)
def test_a_websocket_that_no_rule_allows_is_not_opened(
    place: Place,
    user: tuple[tuple[str, str]],
    path: str,
    status: int,
    more: tuple[tuple[str, str], ...],
) -> None:
    """Nor does its handshake reach anybody, though the same user has just opened another."""
    with WebSocketClient(place.socket_port, place.socket_host, list(user)) as client:
        assert client.is_accepted
    before = len(place.sockets.received)

    early = b"GET /socket HTTP/1.1\r\n\r\n"
    with WebSocketClient(
        place.socket_port, place.socket_host, [*user, *more], path=path, early=early
    ) as client:
        assert status == client.status

    assert before == len(place.sockets.received)


def test_events_pass_by_rule_as_they_come(
    place: Place, direction: str, user: tuple[tuple[str, str]]
) -> None:
    """Each before the next is sent."""
    request = f"GET /events HTTP/1.1\r\nhost: {place.event_host}\r\n"
    request += "".join(f"{name}: {value}\r\n" for name, value in user) + "\r\n"
    with socket.create_connection(("127.0.0.1", place.event_port), timeout=20) as client:
        client.sendall(request.encode())
        heard = _until(client, b"", b"data: first\n\n")
        for number in range(3):
            place.events.go.put(f"data: {number}\n\n".encode())
            heard = _until(client, heard, f"data: {number}\n\n".encode())
        place.events.go.put(b"")
        heard = _until(client, heard, b"0\r\n\r\n")

    assert heard.startswith(b"HTTP/1.1 200")
    lines = [line.partition(": ") for line in place.events.received[-1].split("\r\n")]
    (arrived,) = [value for name, _, value in lines if name.lower() == "authorization"]
    assert has_token_of("events", arrived, direction)


def _until(client: socket.socket, heard: bytes, wanted: bytes) -> bytes:
    while wanted not in heard:
        part = client.recv(65536)
        assert part, f"ended after {heard!r}"
        heard += part
    return heard


@pytest.mark.parametrize(("path", "status"), [("/events/all", 403), ("/EVENTS", 400)])
def test_events_that_no_rule_allows_do_not_begin(
    place: Place, user: tuple[tuple[str, str]], path: str, status: int
) -> None:
    """They are refused as any other request."""
    before = len(place.events.received)
    head = [f"GET {path} HTTP/1.1", f"host: {place.event_host}", "connection: close"]
    head += [f"{name}: {value}" for name, value in user]
    with socket.create_connection(("127.0.0.1", place.event_port), timeout=20) as client:
        client.sendall("\r\n".join([*head, "", ""]).encode())
        heard = _until(client, b"", b"\r\n\r\n")

    assert heard.startswith(f"HTTP/1.1 {status}".encode())
    assert before == len(place.events.received)
