"""The Istio overlay in a mesh with a real control plane: API server, pilot, Envoy, authz, the emulated Entra.

Needs root and netfilter, and pilot-discovery, which `TEST_ASSET_PILOT_DISCOVERY` names. Envoy is upstream's
and not Istio's own build, and a stand-in serves it certificates (`support.istio.meshed`).
"""

import json

import pytest

from support.istio.mesh import AGENTS
from support.istio.meshed import GRAPH_URL, NEIGHBOUR, OPEN_PORT, TRUST_BUNDLE, MeshedPod, headers
from support.kubernetes.namespaces import OTHER
from support.peers.internet import GRAPH
from support.programs.stack import claims
from support.proxy.host_spellings import fixed

pytestmark = pytest.mark.cluster

ROUTED = [
    GRAPH,
    f"{GRAPH}:",
    f"{GRAPH}:80",
    f"{GRAPH}:+80",
    f"{GRAPH}:0x50",
    f"{GRAPH}:443",
    GRAPH.upper(),
    GRAPH.title(),
    f"{GRAPH}.",
    f"{GRAPH}.:",
    f"{GRAPH.upper()}.:80",
]
"""Spellings that the proxy takes for the API."""
VERSIONS = ["--http1.1", "--http2-prior-knowledge"]


def test_the_agents_token_arrives_and_the_users_never(pod: MeshedPod) -> None:
    """An unmodified agent's `http://` call gets to Graph over TLS with the agent's token for the caller."""
    told = pod.relay()

    assert 200 == told["status"], told
    graph = dict(json.loads(told["body"])["headers"])
    arrived = claims(graph["authorization"].removeprefix("Bearer "))
    assert pod.tenant["blueprints"][0]["agents"][0]["client_id"] == arrived["appid"]
    assert claims(pod.token)["oid"] == arrived["oid"]
    assert pod.token not in told["headers"]["authorization"]


@pytest.mark.parametrize("protocol", ["--http1.0", "--http1.1", "--http2-prior-knowledge"])
def test_no_version_of_http_goes_around_the_check(pod: MeshedPod, protocol: str) -> None:
    """Asked about, or not taken at all: Istio knows no HTTP/1.0 where it guesses the protocol."""
    answer = pod.curl(GRAPH_URL, protocol, *headers(f"Bearer {pod.token}"))

    assert (0 if protocol == "--http1.0" else 401) == answer.status


def test_headers_of_the_mesh_stay_in_the_mesh(pod: MeshedPod) -> None:
    """The API hears nothing of what agent, proxy and service say to one another."""
    inside = ("x-authz-subject: someone", "x-envoy-peer-metadata: pod", "proxy-authorization: x")

    answer = pod.curl(GRAPH_URL, *headers(pod.reference(), *inside))

    assert 200 == answer.status, answer.body
    names = {name for name, _ in answer.json()["headers"]}
    assert set() == {name for name in names if name.startswith(("x-authz-", "x-envoy-"))}
    assert set() == names & {"proxy-authorization", "x-forwarded-proto"}


@pytest.mark.parametrize("token", ["none", "user", "invented"])
def test_without_the_reference_nothing_is_called(pod: MeshedPod, token: str) -> None:
    """Not even a user's own valid token opens the way out: this route takes references only."""
    value = {"user": f"Bearer {pod.token}", "invented": "Bearer abc"}.get(token)

    answer = pod.curl(GRAPH_URL, *(headers(value) if value else ()))

    assert 401 == answer.status, answer.body
    assert answer.json()["reason"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("written", ROUTED)
def test_each_spelling_that_leads_to_the_api_is_asked_about(
    pod: MeshedPod, written: str, version: str
) -> None:
    """Once for each request: the user's own token is refused, the reference becomes the agent's token."""
    host = f"host: {written}"
    checks = _checks(pod)

    refused = pod.curl(GRAPH_URL, version, *headers(f"Bearer {pod.token}", host))
    served = pod.curl(GRAPH_URL, version, *headers(pod.reference(), host))

    # The reference comes from a call to the agent, which is asked about as well.
    assert checks + 3 == _checks(pod)
    assert (401, "missing_token") == (refused.status, refused.json()["reason"])
    assert 200 == served.status, served.body
    (value,) = [value for name, value in served.json()["headers"] if name == "authorization"]
    agent = pod.tenant["blueprints"][0]["agents"][0]["client_id"]
    assert agent == claims(value.removeprefix("Bearer "))["appid"]


def test_no_way_to_write_the_host_goes_around_the_check(pod: MeshedPod) -> None:
    """What arrives at the API has the agent's token; what the agent sent itself never does."""
    reference = pod.reference()
    arrived = 0

    for written in fixed(GRAPH):
        sent = headers(reference, f"host: {written}")
        for version in VERSIONS:
            answer = pod.curl(GRAPH_URL, version, *sent)
            if answer.status == 200:
                value = dict(answer.json()["headers"])["authorization"]
                assert reference != value
                assert claims(pod.token)["oid"] == claims(value.removeprefix("Bearer "))["oid"]
                arrived += 1
            else:
                # Asked about and refused, a name that the mesh does not know, or nonsense.
                assert answer.status in {0, 400, 401, 403, 404, 502}, (written, answer)

    # Else nothing above could fail.
    assert 6 <= arrived


@pytest.mark.parametrize("method", ["TRACE", "trace", "Trace", "dEBUG"])
def test_no_answer_shows_a_request(pod: MeshedPod, method: str) -> None:
    """Methods that reflect reach neither the API nor the agent, whoever is asking."""
    asked = ("--request", method, "--http2-prior-knowledge")

    outward = pod.curl(GRAPH_URL, *asked, *headers(pod.reference()))
    inward = pod.call("/", *asked, *headers(f"Bearer {pod.token}"))

    assert (405, "method_not_allowed") == (outward.status, outward.json()["reason"])
    assert 403 == inward.status


def test_no_caller_speaks_in_a_proxys_name(pod: MeshedPod) -> None:
    """What steers Envoys does not reach the agent, and has no effect on the way."""
    said = ("x-envoy-original-path: /admin", "x-envoy-upstream-rq-timeout-ms: 1")

    answer = pod.call("/", *headers(f"Bearer {pod.token}", "x-forwarded-for: 10.0.0.1", *said))

    assert 200 == answer.status, answer.body
    names = answer.json()["headers"]
    assert [] == [name for name in names if name.lower().startswith("x-envoy-")]


def test_a_caller_without_token_does_not_reach_the_agent(pod: MeshedPod) -> None:
    """The CUSTOM policy's Check has no direction of its own; the configuration gives it one."""
    answer = pod.call("/")

    assert (401, "missing_token") == (answer.status, answer.json()["reason"])


@pytest.mark.parametrize("name", ["x-authz-subject", "x_authz_subject", "X-Authz_Subject"])
def test_the_agent_is_told_who_calls_by_authz_alone(pod: MeshedPod, name: str) -> None:
    """What a caller says of itself does not get to the agent, which may read an underscore as a hyphen."""
    answer = pod.call("/", *headers(f"Bearer {pod.token}", f"{name}: invented"))

    assert claims(pod.token)["oid"] == answer.json()["headers"]["x-authz-subject"]
    assert "invented" not in answer.body


def test_callers_of_no_mesh_are_not_heard(pod: MeshedPod) -> None:
    """Neither without TLS nor without a workload's certificate, whatever token they bring."""
    token = headers(f"Bearer {pod.token}")

    assert 0 == pod.call("/", *token, scheme="http").status
    assert 0 == pod.call("/", *token, known=False).status


def test_only_metrics_are_read_without_token(pod: MeshedPod) -> None:
    """From outside of the mesh and from inside; the proxy's own interface is not to be reached."""
    metrics = pod.call("/metrics", port=9902, scheme="http")

    assert 200 == metrics.status
    assert "authz_checks_total" in metrics.body
    assert 200 == pod.call_by_proxy(9902, "/metrics")
    assert 0 == pod.call("/stats", port=15000, scheme="http").status


@pytest.mark.parametrize("port", [8000, OPEN_PORT])
def test_no_port_of_the_agent_is_a_way_around(pod: MeshedPod, port: int) -> None:
    """A port that nothing names is asked about like the agent's own, and closed to plain text."""
    assert 401 == pod.call_by_proxy(port)
    assert 0 == pod.call("/", port=port, scheme="http").status


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
def test_the_agent_cannot_ask_authz(pod: MeshedPod, protocol: str) -> None:
    """The name under which the proxy finds authz leads containers to a refusal."""
    named = ("--resolve", f"authz.internal:9901:{OTHER[0]}")

    answer = pod.curl("http://authz.internal:9901/", protocol, *named)

    assert 403 == answer.status


def test_other_hosts_are_left_alone(pod: MeshedPod) -> None:
    """A neighbour in the mesh is called as ever, and authz is not asked."""
    own = headers("Basic of-the-neighbour", "x-authz-subject: of-the-neighbour")
    checks = _checks(pod)

    answer = pod.curl(f"http://{NEIGHBOUR}.{AGENTS}/", *own)

    assert 200 == answer.status, answer.body
    arrived = dict(answer.json()["headers"])
    assert "Basic of-the-neighbour" == arrived["authorization"]
    assert "of-the-neighbour" == arrived["x-authz-subject"]
    assert checks == _checks(pod)


def test_unregistered_hosts_are_not_reached(pod: MeshedPod) -> None:
    """REGISTRY_ONLY: there is nowhere to go, and no token to go there with. Nor past the Check by TLS."""
    assert 502 == pod.curl("http://api.example/").status
    assert 0 == pod.curl("--insecure", "https://api.example/").status
    assert 0 == pod.curl("--insecure", f"https://{GRAPH}/").status


@pytest.mark.parametrize("url", [f"http://{GRAPH}:443/", f"http://{GRAPH}:9901/"])
def test_other_ports_of_an_api_lead_nowhere(pod: MeshedPod, url: str) -> None:
    """The Check is on port 80, and on no other port is there a way to the API."""
    assert pod.curl(url, *headers(pod.reference())).status in {0, 502}


def test_a_token_goes_to_who_proves_the_name(pod: MeshedPod) -> None:
    """An address whose certificate is good, but another's, gets no request."""
    reference = pod.reference()

    with pod.graph_answered_by_entra():
        answer = pod.curl(GRAPH_URL, *headers(reference))

    assert 503 == answer.status
    assert 1 <= pod.statistic(f"cluster.outbound|80||{GRAPH};.ssl.fail_verify_san")
    assert 200 == pod.curl(GRAPH_URL, *headers(reference)).status


def test_nothing_passes_without_authz(pod: MeshedPod) -> None:
    """Fail closed in both directions: refused as a failure that may pass, not as a denial."""
    reference = pod.reference()
    pod.stop_authz()
    try:
        outward = pod.curl(GRAPH_URL, *headers(reference))
        inward = pod.call("/", *headers(f"Bearer {pod.token}"))
    finally:
        pod.start_authz()

    for answer in (outward, inward):
        assert (503, "authz_unavailable") == (answer.status, answer.json()["reason"])


def test_no_secret_is_missing(pod: MeshedPod) -> None:
    """The proxy asked for the authorities that the DestinationRule names, and took all that it was given."""
    assert {"default", "ROOTCA", f"file-root:{TRUST_BUNDLE}"} == pod.proxy.asked
    assert [] == pod.proxy.refused
    assert "rejected" not in pod.log("istio-proxy")


def _checks(pod: MeshedPod) -> int:
    """Return how often the proxy has asked authz, in both directions."""
    return pod.statistic("cluster.outbound|9901||authz.internal;.upstream_rq_total")
