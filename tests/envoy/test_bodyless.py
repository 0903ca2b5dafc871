"""Health paths take no body: nobody decides there, and what an app leaves unread is its next request."""

import json
from typing import Final

import pytest

from support.peers.http2_peer import Headers, http2_call
from support.proxy.edge import exchange
from support.proxy.ext_authz_server import ExtAuthzServer
from support.proxy.sidecar import Sidecar

HIDDEN: Final = b"GET /admin HTTP/1.1\r\nhost: agent\r\nx-authz-subject: somebody\r\n\r\n"
"""What an app that does not read the body takes for a request of its own, with an identity."""
READING: Final = ("GET", "HEAD", "OPTIONS")


def by_text(sidecar: Sidecar, path: str, framing: bytes, body: bytes, method: str = "GET") -> bytes:
    """Send one request by HTTP/1.1 and return all that comes back."""
    head = f"{method} {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n".encode()
    return exchange(sidecar.inbound_port, head + framing + b"\r\n" + body)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez", "/healthz?deep"])
@pytest.mark.parametrize("method", READING)
def test_request_with_a_length_is_refused(
    sidecar: Sidecar, service: ExtAuthzServer, method: str, path: str
) -> None:
    """The app hears nothing of it, and the caller what to do."""
    answer = by_text(sidecar, path, b"content-length: %d\r\n" % len(HIDDEN), HIDDEN, method)

    assert b"HTTP/1.1 413 " == answer[:13]
    assert method == "HEAD" or b'"reason":"request_too_large"' in answer
    assert ([], []) == (sidecar.app.received, service.requests)


def test_refusal_is_a_problem(sidecar: Sidecar) -> None:
    """It looks like every other one."""
    answer = sidecar.caller.request("GET", "/healthz", content=b"x")

    assert (413, "application/problem+json", "no-store") == (
        answer.status_code,
        answer.headers["content-type"],
        answer.headers["cache-control"],
    )
    assert "Requests to this path have no body. Send none." == answer.json()["detail"]


@pytest.mark.parametrize("body", [b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN), b"0\r\n\r\n"])
def test_request_in_chunks_is_refused(sidecar: Sidecar, body: bytes) -> None:
    """Whatever is in them: an app that does not read them has the last one left over."""
    answer = by_text(sidecar, "/healthz", b"transfer-encoding: chunked\r\n", body)

    assert b"HTTP/1.1 413 " == answer[:13]
    assert [] == sidecar.app.received


def test_what_follows_a_refused_body_is_no_request(sidecar: Sidecar) -> None:
    """The body is not read as one by Envoy either."""
    request = b"GET /healthz HTTP/1.1\r\nhost: agent\r\ncontent-length: %d\r\n\r\n" % len(HIDDEN)

    answer = exchange(sidecar.inbound_port, request + HIDDEN)

    assert 1 == answer.count(b"HTTP/1.1 ")
    assert [] == sidecar.app.received


@pytest.mark.parametrize("headers", [[], [("content-length", str(len(HIDDEN)))]])
@pytest.mark.parametrize("method", READING)
def test_body_of_http2_is_refused_with_and_without_a_length(
    sidecar: Sidecar, service: ExtAuthzServer, method: str, headers: Headers
) -> None:
    """No header says that there is one, and it comes later than they do."""
    answer = http2_call(
        sidecar.inbound_port, "agent", method=method, path="/healthz", headers=headers, body=HIDDEN
    )

    assert 413 == answer.status
    assert method == "HEAD" or "request_too_large" == json.loads(answer.body)["reason"]
    assert ([], []) == (sidecar.app.received, service.requests)


def test_large_body_is_refused(sidecar: Sidecar) -> None:
    """Nobody keeps it: what has come is thrown away at a bound."""
    answer = http2_call(
        sidecar.inbound_port, "agent", method="GET", path="/healthz", body=b"x" * 65_000
    )

    assert 413 == answer.status
    assert [] == sidecar.app.received


@pytest.mark.parametrize("method", READING)
def test_request_without_a_body_is_served(sidecar: Sidecar, method: str) -> None:
    """By HTTP/1.1 with a length of nothing or none, and by HTTP/2."""
    by_frames = http2_call(sidecar.inbound_port, "agent", method=method, path="/healthz", body=None)
    answers = [
        by_text(sidecar, "/healthz", framing, b"", method)[:13]
        for framing in (b"", b"content-length: 0\r\n")
    ]

    assert (200, [b"HTTP/1.1 200 "] * 2) == (by_frames.status, answers)
    assert ["", "", ""] == [seen.body for seen in sidecar.app.received]


@pytest.mark.parametrize("body", [b"", None])
def test_trailers_are_refused_too(sidecar: Sidecar, body: bytes | None) -> None:
    """What ends with them has an end for the app to leave unread, though nothing comes before it."""
    answer = http2_call(
        sidecar.inbound_port,
        "agent",
        method="GET",
        path="/healthz",
        body=body,
        trailers=[("x-authz-subject", "somebody")],
    )

    assert (413, []) == (answer.status, sidecar.app.received)


def test_other_paths_take_a_body(sidecar: Sidecar, service: ExtAuthzServer) -> None:
    """There the service decides, and the app gets what was sent."""
    answer = sidecar.caller.request("GET", "/chat", content=b"question")

    assert 200 == answer.status_code
    assert (1, ["question"]) == (
        len(service.requests),
        [seen.body for seen in sidecar.app.received],
    )
