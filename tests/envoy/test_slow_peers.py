"""Who does not read holds up nobody else: calls of many users share one HTTP/2 connection and its window."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Final, Self

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived

from authz.config.reading.document import parse
from support.peers.http2_front import Http2Front
from support.peers.models_api import ModelsApi
from support.proxy.ext_authz_server import ExtAuthzServer, allow
from support.proxy.sidecar import Authority, Sidecar

HOST: Final = "models.example"
SLOW: Final = 24
"""Clients that do not read, or whose bodies nobody reads."""
CONFIGURATION: Final = f"""
inbound: {{chat: {{tenants: [11111111-0000-4000-8000-000000000001], audiences: [api://chat]}}}}
egress: {{models: {{hosts: [{HOST}], flow: none}}}}
"""
LARGE: Final = 24 * 1024**2
"""More than sockets on the way take."""
FRAME: Final = 16384
STILL: Final = 1.0
_NEVER: Final = Event()


@pytest.fixture
def api(authority: Authority, tmp_path: Path) -> Iterator[ModelsApi]:
    """An API with a large answer."""
    body = tmp_path / "body"
    body.write_bytes(bytes(LARGE))
    with ModelsApi(authority.server_context(HOST), body) as running:
        yield running


@pytest.fixture
def sidecar(
    api: ModelsApi, authority: Authority, service: ExtAuthzServer, tmp_path: Path
) -> Iterator[Sidecar]:
    """Envoy before it, by HTTP/2."""
    service.answer = lambda _: allow()
    config = parse(CONFIGURATION, {})
    with (
        Http2Front(authority, HOST, api.address, tmp_path) as front,
        Sidecar(
            config,
            authz_address=service.address,
            authority=authority,
            certificates={},
            servers={HOST: front.address},
        ) as running,
    ):
        yield running


def settled(value: Callable[[], int]) -> int:
    """Wait until a count has not changed for a while, and return it."""
    seen, since = value(), monotonic()
    while monotonic() - since < STILL:
        _NEVER.wait(0.02)
        if (now := value()) != seen:
            seen, since = now, monotonic()
    return seen


def memory(sidecar: Sidecar) -> int:
    """The most that Envoy has taken so far, in bytes."""
    status = Path(f"/proc/{sidecar.envoy.pid}/status").read_text()
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) * 1024


def test_clients_that_do_not_read_hold_up_no_other(sidecar: Sidecar, api: ModelsApi) -> None:
    """Large answers wait at the API; the next call is answered, whole, and Envoy keeps little of them."""
    url = f"http://{HOST}/v1"
    assert 200 == sidecar.agent.get(f"{url}/models").status_code
    before = memory(sidecar)

    with ExitStack() as stack:
        for number in range(SLOW):
            stack.enter_context(sidecar.agent.stream("GET", f"{url}/bytes/{number}"))
        waiting = settled(lambda: sum(api.sent.values()))
        other = sidecar.agent.get(f"{url}/bytes/other", timeout=20)

    assert LARGE == len(other.content)
    assert waiting < SLOW * LARGE
    assert memory(sidecar) - before < SLOW * 1024**2
    stats = sidecar.envoy.stats()
    assert 1 == stats["cluster.egress_models_example.upstream_cx_http2_total"]


class OneConnection:
    """An app's HTTP/2 connection to Envoy, without anything between test and frames; a context manager."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.settimeout(STILL)
        self._http = H2Connection(H2Configuration(client_side=True))
        self._http.initiate_connection()
        self.answered: dict[int, int] = {}
        self.take()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def begin(self, path: str, length: int) -> int:
        """Begin a request with a body, and return its number."""
        stream: int = self._http.get_next_available_stream_id()
        head = {":method": "POST", ":scheme": "http", ":authority": HOST, ":path": path}
        self._http.send_headers(stream, [*head.items(), ("content-length", str(length))])
        return stream

    def send(self, stream: int, most: int, *, last: bool = False) -> int:
        """Send as much of a body as the windows let, and return how much that was."""
        size = min(self._http.local_flow_control_window(stream), FRAME, most)
        if size:
            self._http.send_data(stream, bytes(size), end_stream=last)
        return size

    def take(self) -> bool:
        """Exchange what there is with Envoy; whether it has said anything within a while."""
        self._socket.sendall(self._http.data_to_send())
        try:
            data = self._socket.recv(FRAME)
        except TimeoutError:
            return False
        for event in self._http.receive_data(data):
            if isinstance(event, ResponseReceived):
                assert event.stream_id is not None
                self.answered[event.stream_id] = int(dict(event.headers)[b":status"])
        return True


def test_bodies_that_nobody_reads_hold_up_no_other(sidecar: Sidecar) -> None:
    """All on one connection of the app: the next call's own body arrives, and it is answered."""
    with OneConnection(sidecar.egress_port) as app:
        left = {app.begin("/v1/held", LARGE): LARGE for _ in range(SLOW)}
        moved = True
        while moved:
            sent = 0
            for stream, rest in left.items():
                size = app.send(stream, rest)
                left[stream] -= size
                sent += size
            moved = app.take() or sent > 0
        assert all(left.values())

        other = app.begin("/v1/digest", 5)
        assert 5 == app.send(other, 5, last=True)
        deadline = monotonic() + 20
        while other not in app.answered and monotonic() < deadline:
            app.take()

    assert {other: 200} == app.answered
