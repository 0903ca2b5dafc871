"""Methods whose answer may show the request: refused by Envoy itself, in both directions (law 4)."""

import pytest

from support.peers.http2_peer import http2_call
from support.proxy.edge import exchange
from support.proxy.ext_authz_server import ExtAuthzServer
from support.proxy.sidecar import Sidecar

GRAPH = "graph.microsoft.com"
PUSHED = "inventory.internal:8443"
UNKNOWN = "evil.example"
REFUSED = ("TRACE", "TRACK", "DEBUG", "trace", "Track")
SERVED = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.mark.parametrize("host", [GRAPH, PUSHED, UNKNOWN])
def test_trace_on_egress_goes_nowhere(sidecar: Sidecar, service: ExtAuthzServer, host: str) -> None:
    """A server that answers as RFC 9110 says (section 9.3.8) would show the agent its own token."""
    answer = sidecar.agent.request("TRACE", f"http://{host}/v1.0/me")

    assert (405, "method_not_allowed") == (answer.status_code, answer.json()["reason"])
    assert "application/problem+json" == answer.headers["content-type"]
    assert "TRACE" not in answer.headers["allow"]
    assert [] == [seen for server in sidecar.destinations.values() for seen in server.received]
    assert [] == service.requests


@pytest.mark.parametrize("path", ["/chat", "/healthz"])
def test_trace_does_not_reach_the_agent(
    sidecar: Sidecar, service: ExtAuthzServer, path: str
) -> None:
    """Nor does an agent's framework show a caller what is set on a request for it."""
    answer = sidecar.caller.request("TRACE", path)

    assert (405, "method_not_allowed") == (answer.status_code, answer.json()["reason"])
    assert [] == sidecar.app.received
    assert [] == service.requests


@pytest.mark.parametrize("method", REFUSED)
@pytest.mark.parametrize("host", [GRAPH, PUSHED, UNKNOWN, "agent"])
def test_no_way_to_write_it_is_served(sidecar: Sidecar, method: str, host: str) -> None:
    """HTTP/2 takes every method; HTTP/1.1 knows some, and closes on others."""
    port = sidecar.inbound_port if host == "agent" else sidecar.egress_port

    by_frames = http2_call(port, host, method=method)
    text = exchange(
        port, f"{method} / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode()
    )

    assert (405, True) == (by_frames.status, b"method_not_allowed" in by_frames.body)
    assert text[:13] in {b"HTTP/1.1 405 ", b"HTTP/1.1 400 "}
    everywhere = [sidecar.app, *sidecar.destinations.values()]
    assert [] == [seen for server in everywhere for seen in server.received]


@pytest.mark.parametrize("method", SERVED)
def test_other_methods_are_served(sidecar: Sidecar, method: str) -> None:
    """Those that a refusal names, in both directions."""
    statuses = (
        sidecar.caller.request(method, "/chat").status_code,
        sidecar.agent.request(method, f"http://{GRAPH}/").status_code,
    )

    assert (200, 200) == statuses
    refused = sidecar.caller.request("TRACE", "/chat")
    assert method in refused.headers["allow"].split(", ")
