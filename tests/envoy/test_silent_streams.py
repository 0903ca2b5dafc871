"""Streams that say nothing for long: they stay as long as is set, and not longer. Time is compressed."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import pytest
import yaml

from authz.config.reading.document import parse
from authz.core.request import Direction
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import RenderError, SidecarSettings
from support.peers.websocket_peer import WebSocketClient, WebSocketServer
from support.proxy.edge import until
from support.proxy.ext_authz_server import ExtAuthzServer, allow
from support.proxy.hurry import hurried
from support.proxy.sidecar import Authority, Sidecar

pytestmark = pytest.mark.thorough

HOST: Final = "models.example"
CONFIGURATION: Final = f"""
inbound: {{chat: {{tenants: [11111111-0000-4000-8000-000000000001], audiences: [api://chat]}}}}
egress: {{models: {{hosts: [{HOST}], flow: none}}}}
"""
SHORT: Final = 0.3
"""Seconds in place of five minutes."""
HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
EVENT: Final = b"9\r\ndata: x\n\n\r\n"
END: Final = b"0\r\n\r\n"

Talk = Callable[[socket.socket], None]


@contextmanager
def talking(talk: Talk, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run a server that reads a request and then does as it is given; return its address."""

    def serve(plain: socket.socket) -> None:
        with suppress(OSError):
            connection = tls.wrap_socket(plain, server_side=True) if tls else plain
            with connection:
                connection.recv(65536)
                talk(connection)

    def listen() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=listen, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class Hurried(Sidecar):
    """A sidecar whose listeners wait a moment where they would wait for minutes."""

    def bootstrap(self) -> str:
        """Return the rendered configuration with that time."""
        return hurried(super().bootstrap(), SHORT)


def sidecar_of(
    authority: Authority,
    service: ExtAuthzServer,
    address: str,
    changes: Mapping[str, Any] | None = None,
) -> Sidecar:
    """Return such an Envoy, before an agent and an API at an address."""
    service.answer = lambda _: allow()
    return Hurried(
        parse(CONFIGURATION, {}),
        authz_address=service.address,
        authority=authority,
        certificates={},
        servers={HOST: address},
        changes={"app_address": address, **(changes or {})},
    )


def heard(port: int, host: str) -> bytes:
    """Return all that comes for a request, whole or cut."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"GET /events HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        found = b""
        with suppress(ConnectionError):
            while not found.endswith(END) and (part := connection.recv(65536)):
                found += part
        return found


@pytest.mark.parametrize("direction", ["inbound", "egress"])
def test_stream_may_be_silent_for_longer_than_a_connection(
    authority: Authority, service: ExtAuthzServer, direction: str
) -> None:
    """Its own limit holds, of an hour: a model that thinks, a tool that works, a stream of notices."""
    silence = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(HEAD + EVENT)
        silence.wait(5 * SHORT)
        connection.sendall(EVENT + END)

    tls = authority.server_context(HOST) if direction == "egress" else None
    with talking(talk, tls) as address, sidecar_of(authority, service, address) as sidecar:
        port = sidecar.inbound_port if direction == "inbound" else sidecar.egress_port
        found = heard(port, HOST)

    assert 2 == found.count(b"data: x")
    assert found.endswith(END)


@pytest.mark.parametrize("direction", ["inbound", "egress"])
def test_stream_that_is_silent_for_too_long_ends(
    authority: Authority, service: ExtAuthzServer, direction: str
) -> None:
    """There is a bound, and it can be set for each direction."""
    never = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(HEAD + EVENT)
        never.wait(20)

    tls = authority.server_context(HOST) if direction == "egress" else None
    changes = {f"{direction}_idle_timeout": SHORT}
    with talking(talk, tls) as address, sidecar_of(authority, service, address, changes) as sidecar:
        port = sidecar.inbound_port if direction == "inbound" else sidecar.egress_port
        found = heard(port, HOST)
        never.set()

    assert 1 == found.count(b"data: x")
    assert not found.endswith(END)


def test_websocket_that_is_silent_for_too_long_ends(
    authority: Authority, service: ExtAuthzServer
) -> None:
    """By the same time, which each byte begins again."""
    changes = {"inbound_idle_timeout": SHORT, "websockets": frozenset({Direction.INBOUND})}
    with (
        WebSocketServer() as app,
        sidecar_of(authority, service, app.address, changes) as sidecar,
        WebSocketClient(sidecar.inbound_port, "agent") as client,
    ):
        assert b"HELLO" == client.say(b"hello")
        assert b"" == client.rest()


def test_client_that_does_not_read_is_let_go_before(
    authority: Authority, service: ExtAuthzServer
) -> None:
    """What waits for it takes memory and a place at the agent; five minutes are enough."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(HEAD)
        block = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        while True:
            connection.sendall(block)

    with (
        talking(talk) as address,
        sidecar_of(authority, service, address) as sidecar,
        socket.create_connection(("127.0.0.1", sidecar.inbound_port)) as connection,
    ):
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: agent\r\n\r\n")
        until(lambda: sidecar.envoy.stats()["cluster.app.upstream_rq_total"] == 1)
        until(lambda: sidecar.envoy.stats()["http.inbound.downstream_cx_active"] == 0)


@pytest.mark.parametrize("seconds", [0, -1, 86401])
@pytest.mark.parametrize("name", ["inbound_idle_timeout", "egress_idle_timeout"])
def test_time_without_a_bound_is_refused(name: str, seconds: float) -> None:
    """Envoy reads 0 as none at all."""
    with pytest.raises(RenderError, match=name):
        SidecarSettings(**{name: seconds})  # type: ignore[arg-type]


def test_peers_that_have_gone_are_noticed(authority: Authority, service: ExtAuthzServer) -> None:
    """The kernel asks them, so that a silent stream is one that somebody still waits for."""
    config, settings = parse(CONFIGURATION, {}), SidecarSettings(upstream_ca_file=authority.file)
    resources = yaml.safe_load(render(config, settings))["static_resources"]

    asked = {"keepalive_probes": 3, "keepalive_time": 60, "keepalive_interval": 20}
    # One has no address: what comes there has come through another.
    reached = [listener for listener in resources["listeners"] if "address" in listener]
    assert [asked, asked] == [listener["tcp_keepalive"] for listener in reached]
    (api,) = (one for one in resources["clusters"] if one["name"] == f"egress/{HOST}")
    assert {"tcp_keepalive": asked} == api["upstream_connection_options"]
