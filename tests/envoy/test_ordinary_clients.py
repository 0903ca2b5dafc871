"""What ordinary clients send that Envoy by itself refuses: served, and no way around what is decided."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.config import Config
from authz.envoy_config.settings import SidecarSettings
from support.fakes.properties import brief
from support.peers.bytes_of_http import exchange
from support.peers.http2_peer import http2_call
from support.peers.upstream import Seen
from support.proxy.edge import denial
from support.proxy.ext_authz_server import ExtAuthzServer, allow
from support.proxy.sidecar import Authority, Sidecar

GRAPH: Final = "graph.microsoft.com"
PEERS: Final = ("app", "graph")

OFFERS: Final = [
    "TLS/1.2",
    "tls/1.2",
    "TLS/1.2, TLS/1.1",
    "h2c",
    "h2,h2c",
    "HTTP/3.0",
    "websocke",
    "w",
    "websocketx",
]


def sent(sidecar: Sidecar, peer: str, head: str, body: bytes = b"") -> tuple[bytes, list[Seen]]:
    """Send a request's lines; return the answer's first line and what arrived."""
    port = sidecar.inbound_port if peer == "app" else sidecar.egress_port
    answer = exchange(port, head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    server = sidecar.app if peer == "app" else sidecar.destinations[GRAPH]
    return answer.partition(b"\r\n")[0], server.received


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("peer", PEERS)
def test_an_offer_of_another_protocol_is_left_aside(
    sidecar: Sidecar, service: ExtAuthzServer, peer: str, offer: str
) -> None:
    """Apache HttpClient offers TLS with each request (RFC 9110 section 7.8 lets a server ignore that)."""
    head = f"GET /chat HTTP/1.1\nhost: {GRAPH}\nupgrade: {offer}\nconnection: upgrade, close"

    line, received = sent(sidecar, peer, head)

    assert b"HTTP/1.1 200 OK" == line
    assert 1 == len(service.requests)
    (seen,) = received
    assert ([], []) == (seen.values("upgrade"), seen.values("connection"))


@pytest.mark.parametrize("offer", ["websocket", "WebSocket"])
@pytest.mark.parametrize("peer", PEERS)
def test_a_web_socket_is_not_taken_for_a_plain_request(
    sidecar: Sidecar, peer: str, offer: str
) -> None:
    """It is of no use where nobody switches to it: refused, as long as it is not switched on."""
    head = f"GET /chat HTTP/1.1\nhost: {GRAPH}\nupgrade: {offer}\nconnection: upgrade, close"

    line, received = sent(sidecar, peer, head)

    assert (b"HTTP/1.1 403 Forbidden", []) == (line, received)


NAMES: Final = ["client_id", "sentry_trace", "X_Api_Key"]


@pytest.mark.parametrize("name", NAMES)
def test_a_header_with_an_underscore_costs_no_caller_the_request(
    sidecar: Sidecar, name: str
) -> None:
    """It does not arrive, since frameworks read `_` and `-` alike; the request does, by HTTP/1 and HTTP/2."""
    head = f"GET /chat HTTP/1.1\nhost: agent\n{name}: x\naccept: text/plain\nconnection: close"
    line, received = sent(sidecar, "app", head)
    answer = http2_call(
        sidecar.inbound_port, "agent", headers=[(name.lower(), "x"), ("accept", "text/plain")]
    )

    assert (b"HTTP/1.1 200 OK", 200) == (line, answer.status)
    assert [["text/plain"]] * 2 == [seen.values("accept") for seen in received]
    assert [] == [key for seen in received for key, _ in seen.headers if "_" in key]


@pytest.mark.parametrize("name", NAMES)
def test_a_header_with_an_underscore_goes_out_as_it_is(sidecar: Sidecar, name: str) -> None:
    """What the agent says of itself is for the destination to judge."""
    head = f"GET / HTTP/1.1\nhost: {GRAPH}\n{name}: x\nconnection: close"
    line, received = sent(sidecar, "graph", head)
    answer = http2_call(sidecar.egress_port, GRAPH, headers=[(name.lower(), "x")])

    assert (b"HTTP/1.1 200 OK", 200) == (line, answer.status)
    assert [["x"], ["x"]] == [seen.values(name.lower()) for seen in received]


SPELT: Final = st.tuples(
    *(st.sampled_from(pair) for pair in ("xX", "-_", "aA", "uU", "tT", "hH", "zZ", "-_"))
).map("".join)


@given(
    prefix=SPELT, rest=st.sampled_from(["subject", "tenant", "actor", "scopes", "new", "sub_ject"])
)
@brief
def test_no_spelling_of_an_identity_header_gets_in(
    running: Sidecar, service: ExtAuthzServer, prefix: str, rest: str
) -> None:
    """Nothing that a framework could read as one of ours arrives but what the service has set."""
    service.start()
    service.answer = lambda _: allow(headers={"x-authz-subject": "user-1"})
    name = prefix + rest
    for path in ("/chat", "/healthz"):
        running.forget()
        head = f"GET {path} HTTP/1.1\nhost: agent\n{name}: somebody\nconnection: close"
        sent(running, "app", head)
        http2_call(running.inbound_port, "agent", headers=[(name.lower(), "somebody")])
        assert 2 == len(running.app.received)
        found = [
            value
            for seen in running.app.received
            for key, value in seen.headers
            if key.replace("_", "-").startswith("x-authz-")
        ]
        assert {"user-1"} >= set(found)


@pytest.mark.parametrize(
    ("head", "host"),
    [
        ("GET /chat HTTP/1.0", "localhost"),
        ("GET /chat HTTP/1.0\nhost: agent.example", "agent.example"),
        ("HEAD /healthz HTTP/1.0", "localhost"),
        ("OPTIONS /healthz HTTP/1.0", "localhost"),
    ],
)
def test_the_first_version_of_http_is_served(sidecar: Sidecar, head: str, host: str) -> None:
    """Proxies and health checks speak it; without a host, the app hears one that is nobody's."""
    line, received = sent(sidecar, "app", head)

    assert b"HTTP/1.0 200 OK" == line
    assert [[host]] == [seen.values("host") for seen in received]


def test_a_body_of_the_first_version_arrives(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """With its length, and after a decision."""
    head = "POST /chat HTTP/1.0\nhost: agent\ncontent-length: 5"

    line, received = sent(sidecar, "app", head, b"hello")

    assert (b"HTTP/1.0 200 OK", ["hello"]) == (line, [seen.body for seen in received])
    assert 1 == len(service.requests)


def test_the_first_version_is_served_on_the_way_out(
    sidecar: Sidecar, service: ExtAuthzServer
) -> None:
    """A proxy's request names its host in the line; what names none has no destination."""
    line, received = sent(sidecar, "graph", f"GET http://{GRAPH}/v1.0/me HTTP/1.0")
    nowhere, _ = sent(sidecar, "graph", "GET /v1.0/me HTTP/1.0")

    assert (b"HTTP/1.0 200 OK", b"HTTP/1.0 400 Bad Request") == (line, nowhere)
    assert [("/v1.0/me", [GRAPH])] == [(seen.path, seen.values("host")) for seen in received]
    assert 1 == len(service.requests)


PATHS: Final = [
    "/files/a%2Fb",
    "/files/a%5Cb",
    "/files//b",
    "/files/../b",
    "/files/%2e%2e/b",
    "/a%20b",
]


class AsSent(Sidecar):
    """A sidecar of an agent that gets its paths as callers write them."""

    def settings(self) -> SidecarSettings:
        """Return the settings with that one."""
        return replace(super().settings(), paths_as_sent=True)


@pytest.fixture(scope="module")
def as_sent(example: Config, authority: Authority, service: ExtAuthzServer) -> Iterator[Sidecar]:
    """A running one."""
    with AsSent(
        example, authz_address=service.address, authority=authority, certificates={GRAPH: (GRAPH,)}
    ) as sidecar:
        yield sidecar


@pytest.mark.parametrize("path", PATHS)
def test_paths_arrive_as_sent_where_the_app_wants_that(
    as_sent: Sidecar, service: ExtAuthzServer, path: str
) -> None:
    """The service is asked about the very path that the app then reads."""
    service.start()
    service.answer = lambda _: allow()
    service.requests.clear()
    as_sent.forget()

    line, received = sent(as_sent, "app", f"GET {path} HTTP/1.1\nhost: agent\nconnection: close")

    assert b"HTTP/1.1 200 OK" == line
    assert [path] == [seen.path for seen in received]
    assert [path] == [check.attributes.request.http.path for check in service.requests]


@pytest.mark.parametrize(
    "path",
    ["//healthz", "/healthz/", "/healthz/../chat", "/chat/../healthz", "/%68ealthz", "/healthz%2F"],
)
def test_no_way_to_write_a_path_is_a_health_check_there(
    as_sent: Sidecar, service: ExtAuthzServer, path: str
) -> None:
    """What is not exactly the path is decided upon, whatever the app would read in it."""
    service.start()
    service.answer = lambda _: denial()
    as_sent.forget()

    line, received = sent(as_sent, "app", f"GET {path} HTTP/1.1\nhost: agent\nconnection: close")

    assert (b"HTTP/1.1 401 Unauthorized", []) == (line, received)


@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("/files//b", ["/files/b"]),
        ("/files/../b", ["/b"]),
        ("/files/a%2Fb", []),
        ("/files/a%5Cb", []),
    ],
)
def test_without_that_routes_and_app_read_one_path(
    sidecar: Sidecar, path: str, arrives: list[str]
) -> None:
    """The default: what could be read in two ways is resolved, or refused."""
    _, received = sent(sidecar, "app", f"GET {path} HTTP/1.1\nhost: agent\nconnection: close")

    assert arrives == [seen.path for seen in received]
