"""Request trailers: what comes after a body reaches nobody, in either direction (law 4 and law 3)."""

import ssl
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.config.reading.document import parse
from authz.core.decision import Allow
from authz.core.secret import Secret
from authz.doors.envoy.ext_authz import encode
from authz.envoy_config.settings import AppProtocol
from support.fakes.properties import brief
from support.fakes.records import record_of
from support.peers.http2_peer import Http2Upstream, http2_call
from support.proxy.edge import exchange
from support.proxy.ext_authz_server import PUSHED, ExtAuthzServer
from support.proxy.sidecar import Authority, Sidecar

ASKED: Final = "asked.example"
WITH_TOKEN: Final = "pushed.example"
TENANT: Final = "11111111-0000-4000-8000-000000000001"
CONFIGURATION: Final = f"""
applications:
  a: {{tenant_id: {TENANT}, client_id: {TENANT}, credentials: [client_secret: {{file: /run/secret}}]}}
inbound:
  chat: {{application: a}}
egress:
  asked: {{flow: none, hosts: [{ASKED}]}}
  pushed: {{flow: app, application: a, scopes: [api://x/.default], hosts: [{WITH_TOKEN}]}}
"""
HARMFUL: Final = [
    ("authorization", "Bearer user-token"),
    ("baggage", "authz-subject=somebody"),
    ("x-authz-subject", "somebody"),
    ("x-envoy-upstream-rq-timeout-ms", "1"),
    ("cookie", "a=b"),
    ("grpc-timeout", "1S"),
]
NAMES: Final = st.sampled_from([name for name, _ in HARMFUL]) | st.from_regex(
    r"\A[a-z][a-z0-9-]{0,20}\Z"
).filter(lambda name: name not in {"connection", "te", "upgrade", "host", "transfer-encoding"})
TRAILERS: Final = st.lists(
    st.tuples(NAMES, st.text("abc =.%-", max_size=12).map(str.strip)), min_size=1, max_size=8
)


@pytest.fixture(scope="module")
def apis(authority: Authority) -> Iterator[dict[str, Http2Upstream]]:
    """The APIs, which speak HTTP/2 and so can be sent trailers."""
    context: dict[str, ssl.SSLContext] = {
        host: authority.server_context(host) for host in (ASKED, WITH_TOKEN)
    }
    with (
        Http2Upstream(context[ASKED]) as asked,
        Http2Upstream(context[WITH_TOKEN]) as pushed,
    ):
        yield {ASKED: asked, WITH_TOKEN: pushed}


@pytest.fixture(scope="module")
def pod(
    apis: dict[str, Http2Upstream], authority: Authority, service: ExtAuthzServer
) -> Iterator[Sidecar]:
    """Envoy before them."""
    answer = encode(
        record_of(
            Allow(authorization=Secret("agent-token"), remove=("baggage",)),
        )
    )
    service.answer = lambda _: answer
    with Sidecar(
        parse(CONFIGURATION, {}),
        authz_address=service.address,
        authority=authority,
        certificates={},
        servers={host: api.address for host, api in apis.items()},
    ) as running:
        yield running


@pytest.mark.parametrize(("host", "token"), [(ASKED, "Bearer agent-token"), (WITH_TOKEN, PUSHED)])
@given(trailers=st.just(HARMFUL) | TRAILERS)
@brief
def test_no_trailer_of_the_agent_reaches_an_api(
    pod: Sidecar,
    apis: dict[str, Http2Upstream],
    host: str,
    token: str,
    trailers: list[tuple[str, str]],
) -> None:
    """Whatever they are called, with a Check and where the token is pushed; the body arrives whole."""
    user = [("authorization", "Bearer user-token"), ("te", "trailers")]

    answer = http2_call(pod.egress_port, host, headers=user, body=b"hello", trailers=trailers)

    seen = apis[host].received[-1]
    assert (200, (), b"hello") == (answer.status, seen.trailers, seen.body)
    assert [token] == seen.values("authorization")
    assert [] == seen.values("baggage")


@pytest.mark.parametrize("host", [ASKED, WITH_TOKEN])
def test_trailers_in_chunks_reach_no_api(
    pod: Sidecar, apis: dict[str, Http2Upstream], host: str
) -> None:
    """The same by HTTP/1.1 (RFC 9112 section 7.1.2)."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in HARMFUL)

    answer = exchange(
        pod.egress_port,
        f"POST http://{host}/ HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
        f"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{lines}\r\n".encode(),
    )

    seen = apis[host].received[-1]
    assert (b"HTTP/1.1 200 ", (), b"hello") == (answer[:13], seen.trailers, seen.body)


def test_trailers_of_an_answer_pass(pod: Sidecar) -> None:
    """Where gRPC has its status."""
    assert (("grpc-status", "0"),) == http2_call(pod.egress_port, ASKED, body=b"x").trailers


def test_no_trailer_of_a_caller_reaches_the_agent(pod: Sidecar) -> None:
    """Only the service says who is calling, in trailers as in headers."""
    pod.app.received.clear()
    lines = "".join(f"{name}: {value}\r\n" for name, value in HARMFUL)
    by_frames = http2_call(pod.inbound_port, "agent", body=b"hello", trailers=HARMFUL)
    exchange(
        pod.inbound_port,
        b"POST / HTTP/1.1\r\nhost: agent\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n" + lines.encode() + b"\r\n",
    )

    assert 200 == by_frames.status
    expected = [("hello", ())] * 2
    assert expected == [(seen.body, seen.trailers) for seen in pod.app.received]


def test_no_trailer_reaches_an_agent_that_could_be_sent_some(
    pod: Sidecar, authority: Authority, service: ExtAuthzServer
) -> None:
    """It is not the app's protocol that takes them away."""
    with (
        Http2Upstream() as app,
        Sidecar(
            parse(CONFIGURATION, {}),
            authz_address=service.address,
            authority=authority,
            certificates={},
            changes={"app_protocol": AppProtocol.HTTP2, "app_address": app.address},
        ) as other,
    ):
        http2_call(other.inbound_port, "agent", body=b"hello", trailers=HARMFUL)

    assert [(b"hello", ())] == [(seen.body, seen.trailers) for seen in app.received]
