"""gRPC through Envoy as we render it: to an agent that speaks it, and from an agent to an API."""

import json
from collections.abc import Iterator
from typing import Final

import grpc
import pytest
import trustme

from authz.config.reading.document import parse
from authz.core.decision import Allow, Deny
from authz.core.errors import Reason
from authz.core.secret import Secret
from authz.doors.envoy.ext_authz import encode
from authz.doors.problem import FACES
from authz.envoy_config.settings import AppProtocol
from support.fakes.records import record_of
from support.peers.grpc_peer import GrpcClient, GrpcServer
from support.peers.http2_peer import http2_call
from support.peers.upstream import EchoUpstream
from support.proxy.ext_authz_server import PUSHED, ExtAuthzServer, allow
from support.proxy.sidecar import Authority, Sidecar

SECURE: Final = "vectors.example"
PLAIN: Final = "otel-collector:4317"
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
USER: Final = (("authorization", "Bearer user-token"),)
CHECKSUM: Final = ("x-checksum", "7")


def credentials(ca: trustme.CA, name: str) -> grpc.ServerCredentials:
    """Return the TLS side of a gRPC server with a certificate for a name."""
    issued = ca.issue_cert(name)
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    return grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])


@pytest.fixture(scope="module")
def app() -> Iterator[GrpcServer]:
    """The agent."""
    with GrpcServer() as server:
        yield server


@pytest.fixture(scope="module")
def apis(authority: Authority) -> Iterator[dict[str, GrpcServer]]:
    """The APIs: with TLS and without."""
    with (
        GrpcServer(credentials(authority.ca, SECURE)) as secure,
        GrpcServer() as plain,
        GrpcServer(credentials(authority.ca, WITH_TOKEN)) as pushed,
    ):
        yield {SECURE: secure, f"http://{PLAIN}": plain, WITH_TOKEN: pushed}


@pytest.fixture(scope="module")
def running(
    app: GrpcServer, apis: dict[str, GrpcServer], authority: Authority, service: ExtAuthzServer
) -> Iterator[Sidecar]:
    """Envoy between them, with an app that speaks HTTP/2."""
    with Sidecar(
        parse(CONFIGURATION, {}),
        authz_address=service.address,
        authority=authority,
        certificates={},
        servers={host: server.address for host, server in apis.items()},
        changes={"app_protocol": AppProtocol.HTTP2, "app_address": app.address},
    ) as sidecar:
        yield sidecar


@pytest.fixture
def caller(running: Sidecar, service: ExtAuthzServer) -> Iterator[GrpcClient]:
    """A caller of the agent, whom the service lets in."""
    service.answer = lambda _: allow(headers={"x-authz-subject": "alice"})
    with GrpcClient(running.inbound_port, metadata=USER) as client:
        yield client


def test_agent_is_called_in_every_way(caller: GrpcClient, app: GrpcServer) -> None:
    """One message or many, each way; trailers of the answer arrive, and who is calling."""
    assert (b"HELLO", (CHECKSUM,)) == caller.unary(b"hello")
    assert b"abc" == caller.collect([b"a", b"b", b"c"])
    assert [b"x0", b"x1", b"x2"] == caller.tell(b"x")
    assert [b"A", b"B", b"C"] == caller.talk([b"a", b"b", b"c"])

    assert ["alice"] * 4 == [seen["x-authz-subject"] for seen in app.received[-4:]]


def test_failure_of_the_agent_stays_its_own(caller: GrpcClient) -> None:
    """Its status and message, not ours."""
    status, message, told = caller.status(b"fail")

    assert (grpc.StatusCode.FAILED_PRECONDITION, "not like this") == (status, message)
    assert CHECKSUM in told.items()


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.MISSING_TOKEN, grpc.StatusCode.UNAUTHENTICATED),
        (Reason.INVALID_TOKEN, grpc.StatusCode.UNAUTHENTICATED),
        (Reason.INSUFFICIENT_SCOPE, grpc.StatusCode.PERMISSION_DENIED),
        (Reason.KEYS_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
        (Reason.EXCHANGE_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
        (Reason.AMBIGUOUS_SUBJECT, grpc.StatusCode.INTERNAL),
        (Reason.EXCHANGE_MISCONFIGURED, grpc.StatusCode.UNKNOWN),
    ],
)
@pytest.mark.parametrize("direction", ["inbound", "egress"])
def test_denial_is_a_status_of_grpc(
    running: Sidecar,
    service: ExtAuthzServer,
    direction: str,
    reason: Reason,
    status: grpc.StatusCode,
) -> None:
    """With a sentence that a person can read, and the challenge where there is one."""
    service.answer = lambda _: encode(record_of(Deny(reason)))
    port, host = (
        (running.inbound_port, "") if direction == "inbound" else (running.egress_port, SECURE)
    )
    with GrpcClient(port, host, USER) as client:
        code, message, told = client.status(b"hello")

    face = FACES[reason]
    assert (status, f"{reason.value}: {face.detail}") == (code, message)
    assert (face.challenge is not None) == ("www-authenticate" in told)
    assert (status is grpc.StatusCode.UNAVAILABLE) == ("retry-after" in told)


def test_agent_that_is_not_there_is_a_status_of_grpc(
    authority: Authority, service: ExtAuthzServer
) -> None:
    """What Envoy answers by itself has the problem body for a message."""
    service.answer = lambda _: allow()
    with (
        GrpcServer() as gone,
        Sidecar(
            parse(CONFIGURATION, {}),
            authz_address=service.address,
            authority=authority,
            certificates={},
            changes={"app_protocol": AppProtocol.HTTP2, "app_address": gone.address},
        ) as sidecar,
        GrpcClient(sidecar.inbound_port, metadata=USER) as client,
    ):
        gone.__exit__()
        code, message, told = client.status(b"hello")

    assert grpc.StatusCode.UNAVAILABLE is code
    assert "app_unavailable" == json.loads(message)["reason"]
    assert "1" == told["retry-after"]


def test_web_content_is_answered_as_http(running: Sidecar, service: ExtAuthzServer) -> None:
    """gRPC-Web has its status in a body, which nothing here translates."""
    service.answer = lambda _: encode(record_of(Deny(Reason.MISSING_TOKEN)))

    answer = http2_call(
        running.inbound_port, "agent", headers=[("content-type", "application/grpc-web+proto")]
    )

    assert (401, ["application/problem+json"]) == (answer.status, answer.values("content-type"))


@pytest.mark.parametrize(
    ("host", "token"), [(SECURE, "Bearer agent-token"), (PLAIN, None), (WITH_TOKEN, PUSHED)]
)
def test_agent_calls_in_every_way(
    running: Sidecar,
    service: ExtAuthzServer,
    apis: dict[str, GrpcServer],
    host: str,
    token: str | None,
) -> None:
    """By TLS and without, asked about and pushed; the user's token goes nowhere."""
    decision = (
        Allow(remove=("authorization",))
        if token is None
        else Allow(authorization=Secret("agent-token"))
    )
    service.answer = lambda _: encode(record_of(decision))
    api = apis[f"http://{host}" if host == PLAIN else host]
    with GrpcClient(running.egress_port, host, USER) as client:
        assert (b"HELLO", (CHECKSUM,)) == client.unary(b"hello")
        assert b"abc" == client.collect([b"a", b"b", b"c"])
        assert [b"x0", b"x1", b"x2"] == client.tell(b"x")
        assert [b"A", b"B", b"C"] == client.talk([b"a", b"b", b"c"])

    assert [token] * 4 == [seen.get("authorization") for seen in api.received[-4:]]


@pytest.mark.parametrize("http2", [True, False])
def test_app_that_speaks_both_is_called_as_the_caller_calls(
    authority: Authority, service: ExtAuthzServer, *, http2: bool
) -> None:
    """With `same`."""
    service.answer = lambda _: allow()
    with (
        GrpcServer() as two,
        EchoUpstream() as one,
        Sidecar(
            parse(CONFIGURATION, {}),
            authz_address=service.address,
            authority=authority,
            certificates={},
            changes={
                "app_protocol": AppProtocol.SAME,
                "app_address": two.address if http2 else one.address,
            },
        ) as sidecar,
    ):
        if http2:
            with GrpcClient(sidecar.inbound_port) as client:
                assert b"HELLO" == client.unary(b"hello")[0]
        else:
            assert 200 == sidecar.caller.get("/chat").status_code
        assert ([1, 0] if http2 else [0, 1]) == [len(two.received), len(one.received)]
