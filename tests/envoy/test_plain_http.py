"""Destinations of plain HTTP: services of the cluster that have no TLS, through Envoy as we render it."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import httpx
import pytest
from hypothesis import given

from authz._pb.external_auth_pb2 import CheckResponse
from authz.config.reading.document import parse
from authz.core.decision import Allow
from authz.core.secret import Secret
from authz.doors.envoy.ext_authz import encode
from support.fakes.properties import brief
from support.fakes.records import record_of
from support.peers.http2_peer import Http2Upstream, http2_call
from support.peers.upstream import EchoUpstream, Seen
from support.proxy.edge import Eager, denial
from support.proxy.ext_authz_server import PUSHED, ExtAuthzServer
from support.proxy.host_spellings import send, spellings
from support.proxy.sidecar import Authority, Sidecar

TENANT: Final = "11111111-0000-4000-8000-000000000001"
TOOLS: Final = "mcp.tools.svc:8000"
OLLAMA: Final = "ollama"
COLLECTOR: Final = "otel-collector:4317"
ASKED: Final = "orders.svc:8080"
WITH_TOKEN: Final = "stock.svc:8080"
SECURE: Final = "mcp.tools.svc:8443"
CONFIGURATION: Final = f"""
applications:
  a: {{tenant_id: {TENANT}, client_id: {TENANT}, credentials: [client_secret: {{file: /run/secret}}]}}
inbound:
  chat: {{application: a}}
egress:
  tools: {{flow: none, hosts: ["http://{TOOLS}", "http://{OLLAMA}", "http://{COLLECTOR}", "http://*"]}}
  secure: {{flow: none, hosts: ["https://{SECURE}"]}}
  asked: {{flow: app_on_behalf_of, application: a, scopes: [api://x/read], hosts: ["http://{ASKED}"],
    token_over_plain_http: true}}
  pushed: {{flow: app, application: a, scopes: [api://x/.default], hosts: ["http://{WITH_TOKEN}"],
    token_over_plain_http: true}}
"""
USER: Final = {"authorization": "Bearer user-token"}


def answer(token: str | None) -> CheckResponse:
    """Return what the service says: the route's token, or with flow `none` that Authorization is removed."""
    return encode(
        record_of(
            Allow(remove=("authorization",))
            if token is None
            else Allow(authorization=Secret(token)),
        )
    )


@dataclass(frozen=True)
class Cluster:
    """Services without TLS, one with it, and the agent's Envoy."""

    services: dict[str, EchoUpstream]
    collector: Http2Upstream
    pod: Sidecar

    def get(self, host: str) -> httpx.Response:
        """Call as the agent, with the user's token."""
        return self.pod.agent.get(f"http://{host}/items", headers=USER)

    def seen(self, host: str) -> Seen:
        """Return the only request that a service got, and forget it."""
        received = self.services[host].received
        (seen,) = received
        received.clear()
        return seen


@pytest.fixture(scope="module")
def started(authority: Authority, service: ExtAuthzServer) -> Iterator[Cluster]:
    """Envoy before them."""
    services = {host: EchoUpstream() for host in (TOOLS, OLLAMA, ASKED, WITH_TOKEN)}
    services[SECURE] = EchoUpstream(authority.server_context(SECURE.partition(":")[0]))
    with ExitStack() as stack:
        collector = stack.enter_context(Http2Upstream())
        for one in services.values():
            stack.enter_context(one)
        servers = {f"http://{host}": one.address for host, one in services.items()}
        servers[SECURE] = servers.pop(f"http://{SECURE}")
        servers[f"http://{COLLECTOR}"] = collector.address
        pod = Eager(
            parse(CONFIGURATION, {}),
            authz_address=service.address,
            authority=authority,
            certificates={},
            servers=servers,
        )
        yield Cluster(services, collector, stack.enter_context(pod))


@pytest.fixture
def cluster(started: Cluster, service: ExtAuthzServer) -> Cluster:
    """The same with nothing on record, and a service that gives no token."""
    service.answer = lambda _: answer(None)
    service.requests.clear()
    for one in started.services.values():
        one.received.clear()
    return started


@pytest.mark.parametrize(
    ("written", "host"), [(TOOLS, TOOLS), (OLLAMA, OLLAMA), (f"{OLLAMA}:80", OLLAMA)]
)
def test_service_without_tls_is_reached_by_plain_http(
    cluster: Cluster, service: ExtAuthzServer, written: str, host: str
) -> None:
    """After a Check, by its name as configured, without the user's token and without a word of https."""
    request = {**USER, "host": written}
    status = httpx.get(
        f"http://127.0.0.1:{cluster.pod.egress_port}/items", headers=request, trust_env=False
    ).status_code

    seen = cluster.seen(host)
    (asked,) = service.requests
    assert (200, "/items", [host]) == (status, seen.path, seen.values("host"))
    assert [] == seen.values("authorization")
    assert "https" not in str(seen.headers)
    assert "tools" == asked.attributes.context_extensions["authz.route"]


def test_one_name_may_speak_both_by_different_ports(cluster: Cluster) -> None:
    """The port that a request names decides, and with it whether there is TLS."""
    assert [200, 200] == [cluster.get(host).status_code for host in (TOOLS, SECURE)]

    assert [TOOLS] == cluster.seen(TOOLS).values("host")
    assert [SECURE] == cluster.seen(SECURE).values("host")


def test_wildcard_of_plain_http_goes_to_the_port_that_the_request_names(cluster: Cluster) -> None:
    """Whatever the name resolves to, without TLS."""
    with EchoUpstream() as anywhere:
        status = cluster.get(f"any.localhost:{anywhere.port}").status_code

        (seen,) = anywhere.received
    assert (200, []) == (status, seen.values("authorization"))


@pytest.mark.parametrize(("host", "token"), [(ASKED, "Bearer agent-token"), (WITH_TOKEN, PUSHED)])
def test_token_goes_where_the_route_allows_it(
    cluster: Cluster, service: ExtAuthzServer, host: str, token: str
) -> None:
    """With `token_over_plain_http`, by a Check and where it is pushed: the agent's, never the user's."""
    service.answer = lambda _: answer("agent-token")

    assert 200 == cluster.get(host).status_code

    assert [token] == cluster.seen(host).values("authorization")


def test_agent_that_speaks_http2_is_passed_on_in_http2(cluster: Cluster) -> None:
    """As a client of gRPC does, an OTLP exporter for example; trailers of the answer arrive."""
    headers = [("authorization", "Bearer user-token"), ("te", "trailers")]

    told = http2_call(cluster.pod.egress_port, COLLECTOR, headers=headers, body=b"spans")

    seen = cluster.collector.received[-1]
    assert (200, b"seen", (("grpc-status", "0"),)) == (told.status, told.body, told.trailers)
    assert (b"spans", ["http"], [COLLECTOR], []) == (
        seen.body,
        seen.values(":scheme"),
        seen.values(":authority"),
        seen.values("authorization"),
    )


@given(written=spellings(TOOLS))
@brief
def test_no_spelling_of_a_host_goes_around_the_check(
    started: Cluster, service: ExtAuthzServer, written: str
) -> None:
    """What is denied reaches no service, by its port or another."""
    service.answer = lambda _: denial()
    for one in started.services.values():
        one.received.clear()

    send(started.pod.egress_port, TOOLS, written)

    assert [] == [seen for one in started.services.values() for seen in one.received]
