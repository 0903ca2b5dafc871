"""The patches of the Istio overlay at work: real Envoy, `authz serve`, the emulated Entra.

How Istio itself would apply them is not tested here; `support.istio` reads the objects as we understand them.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from support.fakes.properties import brief
from support.istio.istio import NEIGHBOUR, Istio, Proxy, Surroundings
from support.kubernetes.manifests import KUBERNETES, Manifests, render
from support.peers.bytes_of_http import exchange
from support.peers.http2_peer import http2_call
from support.peers.upstream import EchoUpstream
from support.programs.stack import Process, World, claims
from support.proxy.edge import first_line
from support.proxy.envoy import validate
from support.proxy.host_spellings import fixed, requests, spellings
from support.proxy.sidecar import Authority

OVERLAY: Final = KUBERNETES / "istio-sidecar"
GRAPH: Final = "graph.microsoft.com"


@pytest.fixture(scope="module")
def overlay(kubectl: str) -> Manifests:
    """Return the overlay for a pod."""
    return render(OVERLAY)


@pytest.fixture(scope="module")
def istio(overlay: Manifests) -> Istio:
    """Return what Istio would make of the overlay and of what the mesh has for it."""
    return istio_for(overlay)


def istio_for(overlay: Manifests) -> Istio:
    """Return what Istio would make of an overlay."""
    settings = yaml.safe_load((OVERLAY / "mesh" / "meshconfig.yaml").read_text())
    return Istio(overlay, render(OVERLAY / "mesh"), settings)


@dataclass
class Pod:
    """A running pod in the mesh."""

    world: World
    proxy: Proxy
    graph: EchoUpstream
    file: Path
    authz: Process

    def token_of_app(self) -> str:
        """Let a user call the agent, and return what the agent received in `Authorization`."""
        token = self.world.token()
        answer = self.proxy.caller.get("/", headers={"authorization": f"Bearer {token}"})
        assert 200 == answer.status_code, answer.text
        (value,) = self.proxy.app.received[-1].values("authorization")
        assert token not in value
        return value


def _configuration(overlay: Manifests, world: World) -> dict[str, Any]:
    """Return the overlay's configuration, with what only a cluster has replaced."""
    found: dict[str, Any] = yaml.safe_load(overlay.files["authz.yaml"])
    found["listen"] = {
        "grpc": f"unix:{world.folder}/authz.sock",
        "admin": "127.0.0.1:0",
        "direction": found["listen"]["direction"],
    }
    found["blueprints"]["agent"]["credentials"] = [
        {"client_secret": {"file": str(world.secret_file)}}
    ]
    found["entra"] = {"authority": world.emulator.authority, "ca_file": str(world.emulator.ca_file)}
    return found


def _serve(world: World, file: Path) -> Process:
    identity = {
        "TENANT_ID": world.tenant_id,
        "CLIENT_ID": world.blueprint["client_id"],
        "AGENT_IDENTITY": world.agent["client_id"],
        "SCOPE": "access_agent access_as_user",
    }
    return Process("serve", "--config", str(file), environ=identity).wait_ready()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the APIs' certificates."""
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def running_pod(
    overlay: Manifests, istio: Istio, shared_world: World, authority: Authority
) -> Iterator[Pod]:
    """A running pod of the overlay."""
    yield from running(overlay, istio, shared_world, authority)


@pytest.fixture
def pod(running_pod: Pod) -> Pod:
    """The running pod, with nothing on record."""
    for server in (running_pod.graph, running_pod.proxy.app, running_pod.proxy.neighbour):
        server.received.clear()
    return running_pod


def running(overlay: Manifests, istio: Istio, world: World, authority: Authority) -> Iterator[Pod]:
    """Run the pod that Istio would make of an overlay."""
    file = world.folder / "authz.yaml"
    file.write_text(json.dumps(_configuration(overlay, world)))
    graph = EchoUpstream(authority.server_context("*.microsoft.com"))
    with (
        _serve(world, file) as authz,
        Proxy(
            istio,
            socket=f"{world.folder}/authz.sock",
            apis={GRAPH: graph},
            ca_file=authority.file,
        ) as proxy,
    ):
        yield Pod(world, proxy, graph, file, authz)


def test_envoy_accepts_the_patched_configuration(istio: Istio, tmp_path: Path) -> None:
    """`envoy --mode validate` finds neither fault nor warning in what the patches make of a listener."""
    around = Surroundings(
        socket="/run/authz/authz.sock",
        app="127.0.0.1:8000",
        apis={GRAPH: "127.0.0.1:1"},
        neighbour="127.0.0.1:2",
        ca_file=Path("/etc/ssl/certs/ca-certificates.crt"),
    )

    result = validate(istio.bootstrap(around), tmp_path)

    assert 0 == result.returncode, result.stderr


def test_the_agents_token_arrives_and_the_users_never(pod: Pod) -> None:
    """The agent holds a reference for the user, and the API gets the agent's token for that user."""
    reference = pod.token_of_app()

    answer = pod.proxy.call(GRAPH, [("authorization", reference)])

    assert 200 == answer.status_code, answer.text
    (seen,) = pod.graph.received
    (value,) = seen.values("authorization")
    arrived = claims(value.removeprefix("Bearer "))
    assert pod.world.agent["client_id"] == arrived["appid"]
    assert pod.world.users["alice"]["object_id"] == arrived["oid"]
    assert "https://graph.microsoft.com" == arrived["aud"].rstrip("/")


def test_what_ordinary_clients_send_is_served(pod: Pod) -> None:
    """HTTP/1.0, and the offer of TLS that Apache HttpClient makes with each request."""
    reference, token = pod.token_of_app(), pod.world.token()
    pod.proxy.app.received.clear()
    inbound, outbound = (pod.proxy.envoy.port(name) for name in ("inbound", "outbound"))
    offer = "HTTP/1.1\r\nconnection: upgrade, close\r\nupgrade: TLS/1.2"

    statuses = [
        status_of(port, f"GET / {version}\r\nhost: {host}\r\nauthorization: {value}\r\n\r\n")
        for port, host, value in (
            (inbound, "agent", f"Bearer {token}"),
            (outbound, GRAPH, reference),
        )
        for version in ("HTTP/1.0", offer)
    ]

    assert [200, 200, 200, 200] == statuses
    assert (2, 2) == (len(pod.proxy.app.received), len(pod.graph.received))


def status_of(port: int, request: str) -> int:
    """Send a request as it is written, and return the status of the answer."""
    return int(exchange(port, request.encode()).split(b" ", 2)[1])


def test_headers_of_the_mesh_stay_in_the_mesh(pod: Pod) -> None:
    """The API hears nothing of what agent, proxy and service say to one another."""
    inside = [
        ("x-authz-subject", "someone"),
        ("x-envoy-peer-metadata", "pod"),
        ("proxy-authorization", "x"),
    ]

    answer = pod.proxy.call(GRAPH, [("authorization", pod.token_of_app()), *inside])

    assert 200 == answer.status_code, answer.text
    names = {name for name, _ in pod.graph.received[0].headers}
    assert set() == {name for name in names if name.startswith(("x-authz-", "x-envoy-"))}
    assert set() == names & {"proxy-authorization", "x-forwarded-proto"}


@pytest.mark.parametrize("token", ["none", "user", "invented"])
def test_without_the_reference_nothing_is_called(pod: Pod, token: str) -> None:
    """Not even a user's own valid token opens the way out: this route takes references only."""
    value = {"user": f"Bearer {pod.world.token()}", "invented": "Bearer abc"}.get(token)

    answer = pod.proxy.call(GRAPH, [("authorization", value)] if value else [])

    assert 401 == answer.status_code, answer.text
    assert [] == pod.graph.received


def _send(pod: Pod, written: str, token: str) -> None:
    """Send a host as it is written, in every place where it can stand, by HTTP/1.1 and HTTP/2."""
    port = pod.proxy.envoy.port("outbound")
    for request in requests(GRAPH, written, f"authorization: {token}\r\nbaggage: a=b\r\n"):
        first_line(port, request)
    headers = [("authorization", token)]
    http2_call(port, written, headers=headers)
    http2_call(port, GRAPH, headers=[*headers, ("host", written)])
    http2_call(port, "elsewhere.example", headers=[*headers, ("host", written)])


def test_no_way_to_write_the_host_goes_around_the_check(pod: Pod) -> None:
    """What arrives at the API has the agent's token; what the agent sent itself never does."""
    reference = pod.token_of_app()
    user = f"Bearer {pod.world.token()}"

    @given(written=spellings(GRAPH), token=st.sampled_from([reference, user]))
    @brief
    def check(written: str, token: str) -> None:
        pod.graph.received.clear()
        _send(pod, written, token)
        for seen in pod.graph.received:
            (value,) = seen.values("authorization")
            assert token not in {value, user}
            assert pod.world.agent["client_id"] == claims(value.removeprefix("Bearer "))["appid"]

    check()
    for written in fixed(GRAPH):
        _send(pod, written, user)
        assert user not in {value for seen in pod.graph.received for _, value in seen.headers}
        _send(pod, written, reference)
        assert reference not in {value for seen in pod.graph.received for _, value in seen.headers}
    # Else nothing above could fail.
    assert 3 <= len(pod.graph.received)


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "trace", "Trace", "tRaCk", "Debug"])
def test_no_answer_shows_a_request(pod: Pod, method: str) -> None:
    """Methods that reflect reach neither the API nor the agent, whoever is asking."""
    outbound, inbound = (pod.proxy.envoy.port(name) for name in ("outbound", "inbound"))
    reference = [("authorization", pod.token_of_app())]
    user = [("authorization", f"Bearer {pod.world.token()}")]
    pod.proxy.app.received.clear()

    outward = http2_call(outbound, GRAPH, method=method, headers=reference)
    inward = http2_call(inbound, "agent", method=method, headers=user)

    assert (405, 403) == (outward.status, inward.status)
    assert "method_not_allowed" == json.loads(outward.body)["reason"]
    assert ["application/problem+json"] == outward.values("content-type")
    assert ([], []) == (pod.graph.received, pod.proxy.app.received)


def test_no_caller_speaks_in_a_proxys_name(pod: Pod) -> None:
    """What steers Envoys does not reach the agent, and has no effect on the way."""
    said = {"x-envoy-original-path": "/admin", "x-envoy-upstream-rq-timeout-ms": "1"}
    near = {"x-forwarded-for": "10.0.0.1", "authorization": f"Bearer {pod.world.token()}"}

    answer = pod.proxy.caller.get("/", headers=said | near)

    assert 200 == answer.status_code
    (seen,) = pod.proxy.app.received
    assert [] == [name for name, _ in seen.headers if name.startswith("x-envoy-")]


@pytest.mark.parametrize("name", ["x_authz_subject", "X_Authz-Subject", "x-authz_subject"])
def test_no_caller_speaks_in_the_name_of_authz(pod: Pod, name: str) -> None:
    """Many frameworks read underscore and hyphen as one, and Istio's proxy lets both pass."""
    answer = pod.proxy.caller.get(
        "/", headers={name: "somebody", "authorization": f"Bearer {pod.world.token()}"}
    )

    assert 200 == answer.status_code
    (seen,) = pod.proxy.app.received
    assert [] == [value for _, value in seen.headers if value == "somebody"]


def test_a_caller_without_token_does_not_reach_the_agent(pod: Pod) -> None:
    """The CUSTOM policy's Check has no direction of its own; the configuration gives it one."""
    answer = pod.proxy.caller.get("/")

    assert (401, "missing_token") == (answer.status_code, answer.json()["reason"])
    assert [] == pod.proxy.app.received


def test_other_hosts_are_left_alone(pod: Pod) -> None:
    """A neighbour in the mesh is called as ever, and authz is not asked."""
    own = [("authorization", "Basic of-the-neighbour"), ("x-authz-subject", "of-the-neighbour")]
    checks = pod.authz.admin("/metrics").text.count('direction="egress"')

    answer = pod.proxy.call(NEIGHBOUR, own)

    assert 200 == answer.status_code
    (seen,) = pod.proxy.neighbour.received
    assert ["Basic of-the-neighbour"] == seen.values("authorization")
    assert ["of-the-neighbour"] == seen.values("x-authz-subject")
    assert checks == pod.authz.admin("/metrics").text.count('direction="egress"')


def test_unregistered_hosts_are_not_reached(pod: Pod) -> None:
    """REGISTRY_ONLY: there is nowhere to go, and no token to go there with."""
    assert 502 == pod.proxy.call("api.example").status_code


def test_nothing_passes_without_authz(pod: Pod) -> None:
    """Fail closed in both directions: refused as a failure that may pass, not as a denial."""
    reference = pod.token_of_app()
    pod.authz.stop()
    pod.proxy.app.received.clear()

    outward = pod.proxy.call(GRAPH, [("authorization", reference)])
    inward = pod.proxy.caller.get("/", headers={"authorization": f"Bearer {pod.world.token()}"})

    for answer in (outward, inward):
        assert (503, "authz_unavailable") == (answer.status_code, answer.json()["reason"])
        assert "application/problem+json" == answer.headers["content-type"]
        assert str(answer.json()["retry_after"]) == answer.headers["retry-after"]
    assert ([], []) == (pod.graph.received, pod.proxy.app.received)


def test_a_host_whose_patch_was_not_applied_is_denied(
    overlay: Manifests, world: World, authority: Authority
) -> None:
    """The Check happens all the same, does not say what it is about, and is answered as inbound: no."""
    maimed = Manifests(tuple(deepcopy(item) for item in overlay.objects))
    spec = maimed.find("EnvoyFilter")["spec"]
    spec["configPatches"] = [
        patch for patch in spec["configPatches"] if patch["applyTo"] != "VIRTUAL_HOST"
    ]
    for pod in running(overlay, istio_for(maimed), world, authority):
        answer = pod.proxy.call(GRAPH, [("authorization", pod.token_of_app())])

        assert 401 == answer.status_code
        assert [] == pod.graph.received


def test_without_any_patch_only_a_reference_leaves(
    overlay: Manifests, world: World, authority: Authority
) -> None:
    """Should Istio not apply the EnvoyFilter at all, the API gets a value that is worthless to it."""
    bare = Manifests(tuple(item for item in overlay.objects if item["kind"] != "EnvoyFilter"))
    for pod in running(overlay, istio_for(bare), world, authority):
        reference = pod.token_of_app()
        pod.proxy.call(GRAPH, [("authorization", reference)])

        (seen,) = pod.graph.received
        assert [reference] == seen.values("authorization")
        assert 2 != reference.count(".")
