"""Who does not read holds up nobody else: calls of many users share one HTTP/2 connection to an API."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Final

import pytest

from authz.config.document import parse
from support.ext_authz_server import ExtAuthzServer, allow
from support.http2_front import Http2Front
from support.models_api import ModelsApi
from support.sidecar import Authority, Sidecar

HOST: Final = "models.example"
SLOW: Final = 24
"""Clients that do not read."""
CONFIGURATION: Final = f"""
inbound: {{chat: {{tenants: [11111111-0000-4000-8000-000000000001], audiences: [api://chat]}}}}
egress: {{models: {{hosts: [{HOST}], flow: none}}}}
"""
LARGE: Final = 24 * 1024**2
"""More than sockets on the way take."""
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
