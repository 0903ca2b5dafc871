"""CONNECT, which `HTTPS_PROXY` and gRPC clients ask for: real Envoy, `authz serve`, and clients as they are.

No token of a user leaves in such a connection: what Envoy can read meets the filters and routes of every
request, and what it cannot read goes to hosts that the configuration lets it go to, and to no other.
"""

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest

from authz_dev.emulator import Emulator
from support.programs.stack import World, until
from support.proxy.connecting import (
    COLLECTOR,
    GRAPH,
    LEGACY,
    ORDERS,
    RPC,
    SPEECH,
    WEATHER,
    Deployed,
    Pod,
    document,
)
from support.proxy.edge import exchange

PLAIN: Final = COLLECTOR.partition(":")[0]
"""A host that is configured with `http://`."""

PAGES: Final = """\
import json, sys, httpx
with httpx.Client() as client:
    answer = client.get(sys.argv[1], headers={"authorization": sys.argv[2]})
    # As SDKs follow `@odata.nextLink`, which is absolute whatever the first page was asked by.
    second = client.get(sys.argv[3], headers={"authorization": sys.argv[2]})
    print(json.dumps([answer.json(), second.json()]))
"""
"""An agent's code: it knows nothing of Envoy."""

CALL: Final = """\
import sys, grpc
target, authorization, tls = sys.argv[1:]
if tls:
    channel = grpc.secure_channel(target, grpc.ssl_channel_credentials())
else:
    channel = grpc.insecure_channel(target)
call = channel.unary_unary("/test.Echo/Echo")
try:
    print(call(b"", metadata=(("authorization", authorization),), timeout=20).decode())
except grpc.RpcError as error:
    sys.exit(f"{error.code()} {error.details()}")
"""
"""What an exporter of telemetry does, and any other client of gRPC: variables alone name its proxy."""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """The emulated Entra of the pods that tests share."""
    with Emulator() as running:
        yield running


@contextmanager
def shared(emulator: Emulator, folder: Path, *, https: bool) -> Iterator[Pod]:
    """Run a pod for all tests of this file."""
    world = World(emulator, folder)
    with Deployed(world, document(world, https=https), folder) as running:
        yield running


@pytest.fixture(scope="module")
def plain_pod(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod as the manifests have it: the agent holds a reference."""
    with shared(emulator, tmp_path_factory.mktemp("plain"), https=False) as running:
        yield running


@pytest.fixture(scope="module")
def https_pod(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A pod with `https`, whose Envoy ends the agent's TLS."""
    with shared(emulator, tmp_path_factory.mktemp("https"), https=True) as running:
        yield running


@pytest.fixture
def pod(plain_pod: Pod) -> Pod:
    """The first, with nothing on record."""
    plain_pod.sidecar.forget()
    return plain_pod


@pytest.fixture
def reading(https_pod: Pod) -> Pod:
    """The second, with nothing on record."""
    https_pod.sidecar.forget()
    return https_pod


@pytest.mark.parametrize("host", [f"{GRAPH}:443", f"{GRAPH.upper()}:443", f"{GRAPH}.:443", ORDERS])
def test_a_link_to_an_api_with_a_token_is_refused_and_says_what_helps(pod: Pod, host: str) -> None:
    """Before the agent has sent a byte of it; on record, as every refusal."""
    status, problem = pod.connect(host, authorization=pod.held)

    assert (403, "tunnel_refused") == (status, problem["reason"])
    assert "http://" in problem["detail"]
    # Envoy takes the dot away before anybody reads it.
    assert f"allows tunnels to {host.replace('.:', ':')}." in problem["detail"]
    with pytest.raises(httpx.ProxyError, match="403"):
        pod.get(f"https://{host}/v1.0/users?$skiptoken=2")
    assert [] == pod.values()
    metrics = pod.process.admin("/metrics").text
    assert 'reason="tunnel_refused"' in metrics


@pytest.mark.parametrize("host", ["evil.example:443", "evil.example:80", "127.0.0.1:9902"])
def test_an_unknown_host_is_an_unknown_route(pod: Pod, host: str) -> None:
    """As without CONNECT: whoever wants it has to name it."""
    status, problem = pod.connect(host)

    assert (403, "unknown_route") == (status, problem["reason"])
    assert f"No route is configured for {host}, or Envoy's" in problem["detail"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8443", "10.9.8.7:8080"])
def test_a_request_to_an_unknown_host_is_answered_with_its_name(pod: Pod, host: str) -> None:
    """Else nobody knows which of an agent's calls it was."""
    problem = pod.get(f"http://{host}/path?query").json()

    expected = (
        f"No route is configured for {host}, or Envoy's configuration is older than authz's. An operator must add "
        "the route, or render Envoy's configuration again."
    )
    assert ("unknown_route", expected) == (problem["reason"], problem["detail"])
    assert f"Unknown route (unknown_route, authz): {expected}" == problem["error"]["message"]


def test_a_host_without_a_token_has_a_tunnel(pod: Pod) -> None:
    """The client sees the host's own certificate. What leaves is a reference, worth nothing there."""
    answer = pod.get(f"https://{WEATHER}/today")

    assert 200 == answer.status_code
    assert [pod.held] == pod.values()
    assert pod.token not in pod.held
    stolen = pod.sidecar.caller.get("/", headers={"authorization": pod.held})
    assert 401 == stolen.status_code


def test_a_route_may_have_none(pod: Pod) -> None:
    """An operator's word counts against the default."""
    status, problem = pod.connect(f"{LEGACY}:443")

    assert (403, "tunnel_refused") == (status, problem["reason"])


def test_a_tunnel_leads_to_the_port_of_its_host_alone(pod: Pod) -> None:
    """Another port is another service."""
    assert 403 == pod.connect(f"{WEATHER}:25")[0]
    assert 403 == pod.connect(f"{WEATHER}:8443")[0]


def test_an_agent_that_is_given_the_token_again_has_no_tunnel_any_more(
    world: World, tmp_path: Path
) -> None:
    """The service decides: a configuration counts once it is read, before Envoy's is rendered again."""
    found = {**document(world), "reload_interval": "100ms"}
    deployed = Deployed(world, found, tmp_path)
    with deployed as pod:
        assert 200 == pod.get(f"https://{WEATHER}/").status_code
        deployed.file.write_text(json.dumps(document(world, forward="bearer")))
        # The Envoy of before asks as before.
        asyncio.run(until(lambda: pod.connect(f"{WEATHER}:443")[0] == 403))
        assert "tunnel_refused" == pod.connect(f"{WEATHER}:443")[1]["reason"]


def test_a_prepared_reply_is_none_to_a_connection(world: World, tmp_path: Path) -> None:
    """Without an edge cache both are one question but for the method, and that is not overlooked."""
    found = {**document(world), "cache": {"edge": {"max_ttl": 0}}}
    with Deployed(world, found, tmp_path) as pod:
        statuses = [pod.get(f"http://{LEGACY}/").status_code for _ in range(3)]

        assert [200, 200, 200] == statuses
        assert 403 == pod.connect(f"{LEGACY}:443", authorization=pod.held)[0]
        # Envoy has nowhere to go with it in any case: it is the service that has to refuse.
        assert 'reason="tunnel_refused"' in pod.process.admin("/metrics").text


def test_a_tunnel_needs_a_decision(world: World, tmp_path: Path) -> None:
    """Without the service nothing goes on (law 3)."""
    with Deployed(world, document(world), tmp_path) as pod:
        pod.process.stop()

        status, problem = pod.connect(f"{WEATHER}:443")

    assert (503, "authz_unavailable") == (status, problem["reason"])


@pytest.mark.parametrize("host", [GRAPH, WEATHER])
def test_plain_http_in_a_connection_is_read(pod: Pod, host: str) -> None:
    """Node.js and others ask for a connection for `http://` too: that is a request like any other."""
    request = f"GET /v1.0/me HTTP/1.1\r\nhost: {host}\r\nauthorization: {pod.held}\r\nconnection: close\r\n\r\n"
    text = f"CONNECT {host}:80 HTTP/1.1\r\nhost: {host}:80\r\n\r\n{request}"

    answer = exchange(pod.sidecar.egress_port, text.encode())

    seen = json.loads(answer.rpartition(b"\r\n\r\n")[2])
    if host == GRAPH:
        assert pod.acts_for_the_user(seen["headers"])
    else:
        assert [] == pod.values()
    assert "/v1.0/me" == seen["path"]


def test_the_host_inside_decides(pod: Pod) -> None:
    """Whatever host the connection was asked for."""
    for inside, expected in (("evil.example", b"unknown_route"), (LEGACY, b'"path": "/x"')):
        request = (
            f"GET /x HTTP/1.1\r\nhost: {inside}\r\nauthorization: a\r\nconnection: close\r\n\r\n"
        )
        text = f"CONNECT {GRAPH}:80 HTTP/1.1\r\nhost: {GRAPH}:80\r\n\r\n{request}"
        assert expected in exchange(pod.sidecar.egress_port, text.encode())
    assert [] == pod.values()


def test_tls_where_plain_http_is_expected_ends_before_it_has_begun(pod: Pod) -> None:
    """Envoy may not end it, and does not let it pass: the client hears that, and the log has why."""
    for host, url in ((GRAPH, f"https://{GRAPH}:80/v1.0/me"), (PLAIN, f"https://{COLLECTOR}/")):
        with pytest.raises(httpx.ConnectError, match=r"(?i)alert.access.denied"):
            pod.get(url)
        line = pod.refused_tls(host)

        expected = {"direction": "egress", "decision": "deny", "reason": "tunnel_refused"}
        assert expected == {name: line[name] for name in expected}
    assert [] == pod.values()


def test_a_grpc_client_has_the_agents_token(pod: Pod) -> None:
    """It asks its proxy for a connection even for a channel without TLS, and speaks HTTP/2 in it."""
    done = pod.python(CALL, f"{RPC}:80", pod.held, "")

    assert 0 == done.returncode, done.stderr
    assert pod.acts_for_the_user(json.loads(done.stdout))


def test_a_grpc_client_with_tls_has_it_where_envoy_ends_that(reading: Pod) -> None:
    """By the variable of the component; elsewhere it is refused like a link."""
    bundle = str(reading.world.folder / "bundle.pem")
    done = reading.python(
        CALL, f"{RPC}:443", reading.held, "tls", GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=bundle
    )

    assert 0 == done.returncode, done.stderr
    assert reading.acts_for_the_user(json.loads(done.stdout))


def test_a_grpc_client_with_tls_has_a_tunnel_to_a_host_without_a_token(pod: Pod) -> None:
    """By its own TLS, so what it says there arrives, a key of the app's own as well."""
    done = pod.python(
        CALL,
        f"{SPEECH}:443",
        "Bearer key-of-the-app",
        "tls",
        GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=str(pod.authority),
    )

    assert 0 == done.returncode, done.stderr
    assert ["authorization", "Bearer key-of-the-app"] in json.loads(done.stdout)


def test_telemetry_by_grpc_arrives_without_anything_of_the_user(pod: Pod) -> None:
    """An exporter obeys `http_proxy` as well: its collector is a host like any other."""
    pod.collector.received.clear()
    done = pod.python(CALL, COLLECTOR, pod.held, "")

    assert 0 == done.returncode, done.stderr
    (metadata,) = pod.collector.received
    assert "authorization" not in dict(metadata)
    assert pod.held.removeprefix("Bearer ") not in str(metadata)


@pytest.mark.parametrize(("target", "tls"), [(f"{RPC}:443", "tls"), ("evil.example:4317", "")])
def test_a_grpc_client_hears_that_it_is_refused(pod: Pod, target: str, tls: str) -> None:
    """Where nobody could replace the token, and where nobody has named the host."""
    done = pod.python(CALL, target, pod.held, tls)

    assert 1 == done.returncode
    assert "StatusCode.UNAVAILABLE" in done.stderr
    assert "HTTP proxy returned response code 403" in done.stderr


def test_pages_are_followed_where_envoy_ends_tls(reading: Pod) -> None:
    """By the variables of the agent's container alone: `http://` first, then the absolute link."""
    link = f"https://{GRAPH}/v1.0/users?$skiptoken=2"
    arguments = (PAGES, f"http://{GRAPH}/v1.0/users", reading.held, link)
    done = reading.python(*arguments, SSL_CERT_FILE=str(reading.world.folder / "bundle.pem"))

    assert 0 == done.returncode, done.stderr
    first, second = json.loads(done.stdout)
    assert reading.acts_for_the_user(first["headers"])
    assert reading.acts_for_the_user(second["headers"])
    assert "/v1.0/users?$skiptoken=2" == second["path"]


def test_pages_are_refused_where_it_does_not(pod: Pod) -> None:
    """The agent hears 403 of its proxy; nothing of what it would have sent has left."""
    link = f"https://{GRAPH}/v1.0/users?$skiptoken=2"
    done = pod.python(PAGES, f"http://{GRAPH}/v1.0/users", pod.held, link)

    assert 1 == done.returncode
    assert "403 Forbidden" in done.stderr
    (value,) = pod.values()
    assert "Bearer" == value.split()[0]
    assert pod.token not in value


def test_tls_to_hosts_without_a_token_is_read_as_well(reading: Pod) -> None:
    """So the user's token is removed there too, were it one; a host that has no certificate is refused."""
    with httpx.Client(
        proxy=reading.proxy,
        verify=ssl.create_default_context(cafile=reading.world.folder / "pod.pem"),
        trust_env=False,
    ) as client:
        answer = client.get(f"https://{WEATHER}/", headers={"authorization": reading.held})
    assert 200 == answer.status_code
    assert [] == reading.values()
    assert 403 == reading.connect("evil.example:443")[0]
