"""Requests to the HTTP API whose bytes no ordinary client sends: each is answered, and none is a defect."""

import socket
from collections.abc import Callable

import pytest

from support.programs.token_api import Sidecar

pytestmark = pytest.mark.thorough

CALL = "/DownstreamApiUnauthenticated/graph"


def raw(sidecar: Sidecar, request: bytes) -> bytes:
    """Send bytes on a connection of their own; return what comes until the service closes it."""
    host, _, port = sidecar.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while more := connection.recv(65536):
            answer += more
    return answer


def head(target: bytes, *headers: bytes, method: bytes = b"POST") -> bytes:
    """The head of a request after which the service closes the connection."""
    lines = (
        b"%s %s HTTP/1.1" % (method, target),
        b"Host: localhost",
        b"Connection: close",
        *headers,
    )
    return b"\r\n".join(lines) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (CALL.encode(), (b"Content-Type: text/plain; x=\xe9", b"Content-Length: 1")),
        (f"{CALL}?optionsOverride.RelativePath=%ff".encode(), ()),
        (f"{CALL}?optionsOverride.AcceptHeader=%c3%a9".encode(), ()),
        (f"{CALL}?optionsOverride.ExtraHeaderParameters.X=%c3%a9".encode(), ()),
        (f"{CALL}?optionsOverride.ExtraHeaderParameters.%c3%a9=x".encode(), ()),
        (f"{CALL}?%ff=x".encode(), ()),
    ],
)
def test_bytes_that_cannot_be_sent_on_are_a_problem(
    start: Callable[..., Sidecar], target: bytes, headers: tuple[bytes, ...]
) -> None:
    """Latin-1 in a header that goes to the API, and what is no UTF-8 in the query."""
    sidecar = start()
    answer = raw(sidecar, head(target, *headers) + b"x" * len(headers[1:]))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"reason":"bad_parameter"' in answer
    assert "Traceback" not in sidecar.process.log()


@pytest.mark.parametrize(
    "request_head",
    [
        head(b"/AuthorizationHeaderUnauthenticated/graph?a=\xc3\xa9", method=b"GET"),
        head(b"/AuthorizationHeaderUnauthenticated/gr\xe9ph", method=b"GET"),
        head(b"/AuthorizationHeaderUnauthenticated/gr%FFph", method=b"GET"),
        head(b"/AuthorizationHeaderUnauthenticated/%00", method=b"GET"),
        head(b"/Validate", b"Authorization: Bearer \xe9\xff", method=b"GET"),
        head(b"/Validate", b"Authorization: Bearer x", b"X-Request-Id: \xe9", method=b"GET"),
        head(b"/Validate", b"Authorization: Bearer x", b"Traceparent: \xff", method=b"GET"),
    ],
)
def test_other_bytes_are_refused_without_a_defect(
    start: Callable[..., Sidecar], request_head: bytes
) -> None:
    """In the target and in headers that are read: the caller's error, and no traceback."""
    sidecar = start()
    answer = raw(sidecar, request_head)
    assert answer.startswith(b"HTTP/1.1 4")
    assert "Traceback" not in sidecar.process.log()


def test_a_caller_that_leaves_in_its_body_is_one_line(start: Callable[..., Sidecar]) -> None:
    """It is no defect of the service, and nothing was sent to the API."""
    sidecar = start(DownstreamApis__graph__RelativePath="whoami")
    host, _, port = sidecar.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head(CALL.encode(), b"Content-Length: 1000") + b"x" * 10)
        # The token has been asked for, so the body is being read.
        sidecar.process.event("check")
    left = sidecar.process.event("caller left")
    assert ("graph", "info") == (left["route"], left["level"])
    assert 200 == sidecar.http.post(CALL).json()["statusCode"]
    assert "Traceback" not in sidecar.process.log()
