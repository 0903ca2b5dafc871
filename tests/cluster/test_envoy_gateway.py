"""What Envoy Gateway makes of its overlay, by its own translator; a real Envoy carries calls with it.

Without the translator each test is skipped, and says which variable would lead to it.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from support.fakes.workload import workload_certificate
from support.istio.gateway import PROGRAM, Translation, authorities, tls_secret, with_address
from support.kubernetes.apiserver import missing
from support.kubernetes.manifests import KUBERNETES, Manifests, Object, render
from support.peers.upstream import EchoUpstream
from support.programs.stack import World
from support.proxy.envoy import EnvoyProcess
from support.proxy.shared import Shared, serving

pytestmark = pytest.mark.cluster

HOST: Final = "desk.example.com"
GATEWAY: Final = "spiffe://cluster.local/ns/envoy-gateway-system/sa/gateway"


@pytest.fixture(scope="module", autouse=True)
def _translator() -> None:
    reason = missing(PROGRAM)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def overlay() -> Manifests:
    """Return the objects of the gateway."""
    return render(KUBERNETES / "envoy-gateway")


@pytest.fixture
def shared(world: World, tmp_path: Path) -> Iterator[Shared]:
    """Run the shared service."""
    with serving(render(KUBERNETES / "shared"), world, tmp_path) as running:
        yield running


@pytest.fixture
def secrets(shared: Shared) -> list[Object]:
    """Return the gateway's two certificates: what callers see, and what authz sees."""
    seen = shared.servers.ca.issue_cert(HOST)
    chain, key = seen.cert_chain_pems[0].bytes(), seen.private_key_pem.bytes()
    return [
        tls_secret("desk", "desk-example-com", chain, key),
        tls_secret("desk", "gateway-tls", *workload_certificate(shared.workloads, GATEWAY)),
    ]


@pytest.fixture
def trusted(shared: Shared) -> Object:
    """Return whose certificate authz has."""
    return authorities("authz", "authz-ca", shared.servers.ca)


@pytest.fixture
def translation(
    overlay: Manifests, secrets: list[Object], trusted: Object, tmp_path: Path
) -> Translation:
    """Return what becomes of the overlay beside a service and an agent."""
    services = [
        with_address(render(KUBERNETES / folder).find("Service"), address)
        for folder, address in (("shared", "10.0.0.8"), ("shared/client", "10.0.0.9"))
    ]
    return Translation([*overlay.objects, *services, *secrets, trusted], tmp_path)


def test_every_object_is_accepted(translation: Translation) -> None:
    """No condition says that something is wrong, or that a reference leads nowhere."""
    wrong = [each for each in translation.statuses if each["status"] != "True"]

    assert translation.statuses
    assert [] == wrong


def test_the_check_is_asked_for_the_route(translation: Translation) -> None:
    """The filter is on for the agent's route, knows direction and route, and refuses without an answer."""
    check, router = translation.connection_manager["httpFilters"]
    (host,) = translation.routes["virtualHosts"]
    (route,) = host["routes"]
    settings = route["typedPerFilterConfig"][check["name"]]["checkSettings"]

    assert "envoy.filters.http.router" == router["name"]
    assert {"authz.direction": "inbound", "authz.route": "desk"} == settings["contextExtensions"]
    assert "failureModeAllow" not in check["typedConfig"]
    assert {"code": "ServiceUnavailable"} == check["typedConfig"]["statusOnError"]
    assert "disabled" not in settings


def test_authz_is_asked_over_mutual_tls(translation: Translation) -> None:
    """With the gateway's certificate, and authz's name and authority demanded."""
    check = translation.connection_manager["httpFilters"][0]["typedConfig"]
    cluster = translation.clusters[check["grpcService"]["envoyGrpc"]["clusterName"]]
    (match,) = cluster["transportSocketMatches"]
    tls = match["transportSocket"]["typedConfig"]
    context = tls["commonTlsContext"]
    (name,) = context["combinedValidationContext"]["defaultValidationContext"][
        "matchTypedSubjectAltNames"
    ]

    assert "authz.authz.svc" == tls["sni"] == name["matcher"]["exact"]
    assert ["desk/gateway-tls"] == [
        one["name"] for one in context["tlsCertificateSdsSecretConfigs"]
    ]
    assert (
        "authz/authz-ca"
        == context["combinedValidationContext"]["validationContextSdsSecretConfig"]["name"]
    )


@pytest.fixture
def gateway(
    translation: Translation, shared: Shared, secrets: list[Object], trusted: Object
) -> Iterator[tuple[httpx.Client, EchoUpstream]]:
    """Run the gateway's Envoy; return a caller, and the agent."""
    with EchoUpstream() as agent:
        authz = shared.process.event("serving")["grpc"]
        reached = {"httproute/": agent.address, "securitypolicy/": authz}
        with EnvoyProcess(translation.bootstrap(secrets, trusted, reached)) as envoy:
            where = f"https://127.0.0.1:{envoy.port(translation.listener['name'])}"
            extensions = {"sni_hostname": HOST}
            with httpx.Client(
                base_url=where,
                verify=ssl.create_default_context(cafile=shared.servers.file),
                trust_env=False,
                headers={"host": HOST},
                event_hooks={"request": [lambda request: request.extensions.update(extensions)]},
            ) as caller:
                yield caller, agent


def test_a_user_reaches_the_agent(
    gateway: tuple[httpx.Client, EchoUpstream], shared: Shared
) -> None:
    """By a Check of the shared service; the agent is told who calls."""
    caller, agent = gateway

    answer = caller.get("/", headers={"authorization": f"Bearer {shared.world.token()}"})

    assert 200 == answer.status_code, answer.text
    (seen,) = agent.received
    assert [shared.world.users["alice"]["object_id"]] == [*seen.values("x-authz-subject")]


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer x.y.z"}], ids=["none", "bad"])
def test_nobody_else_does(
    gateway: tuple[httpx.Client, EchoUpstream], headers: dict[str, str]
) -> None:
    """Refused by authz itself, so it was asked."""
    caller, agent = gateway

    answer = caller.get("/", headers=headers)

    assert 401 == answer.status_code
    assert answer.json()["reason"]
    assert [] == agent.received


def test_nobody_does_without_authz(
    gateway: tuple[httpx.Client, EchoUpstream], shared: Shared
) -> None:
    """503, as the SecurityPolicy says: the gateway fails closed."""
    caller, agent = gateway
    shared.process.stop()

    answer = caller.get("/", headers={"authorization": f"Bearer {shared.world.token()}"})

    assert 503 == answer.status_code
    assert [] == agent.received


def test_a_policy_without_a_service_lets_nobody_through(
    overlay: Manifests, secrets: list[Object], trusted: Object, tmp_path: Path
) -> None:
    """While authz has no address the gateway answers by itself, with 500."""
    service = with_address(render(KUBERNETES / "shared/client").find("Service"), "10.0.0.9")
    headless = render(KUBERNETES / "shared").find("Service")

    found = Translation([*overlay.objects, service, headless, *secrets, trusted], tmp_path)

    ((host),) = found.routes["virtualHosts"]
    assert [{"status": 500}] == [route.get("directResponse") for route in host["routes"]]
