"""The shared service, its clients and gateways name the same things."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.config import Config, load
from authz.envoy_config.bootstrap import render as render_envoy
from authz.envoy_config.settings import SECRET_NAMES, AuthzTls, SidecarSettings
from support.kubernetes.manifests import KUBERNETES, STATISTICS, Manifests, Object, render
from support.kubernetes.schemas import check
from support.proxy.envoy import validate
from support.proxy.sidecar import Authority

SECRETS = Path("/run/secrets/envoy")
NAMES = Path("/etc/envoy")


@pytest.fixture
def shared(kubectl: str) -> Manifests:
    """Return the service."""
    return render(KUBERNETES / "shared")


@pytest.fixture
def client(kubectl: str) -> Manifests:
    """Return an agent."""
    return render(KUBERNETES / "shared" / "client")


@pytest.fixture
def gateway(kubectl: str) -> Manifests:
    """Return the gateway's objects."""
    return render(KUBERNETES / "envoy-gateway")


@pytest.fixture
def config(shared: Manifests, identity: dict[str, str], tmp_path: Path) -> Config:
    """Return the configuration of the service, as it reads it."""
    file = tmp_path / "authz.yaml"
    file.write_text(shared.files["authz.yaml"])
    agents = {f"{name}_AGENT_IDENTITY": identity["AGENT_IDENTITY"] for name in ("DESK", "CLERK")}
    return load(file, {**shared.containers["authz"].variables, **identity, **agents}).config


def _name(manifests: Manifests) -> str:
    metadata = manifests.find("Service")["metadata"]
    return f"{metadata['name']}.{metadata['namespace']}.svc"


def _settings(shared: Manifests) -> SidecarSettings:
    (port,) = shared.find("Service")["spec"]["ports"]
    return SidecarSettings(
        inbound_route="desk",
        egress_hosts={"desk-graph": ("graph.microsoft.com",)},
        authz_address=f"{_name(shared)}:{port['port']}",
        authz_tls=AuthzTls(None, _name(shared), secrets_folder=NAMES),
        statistics_address=STATISTICS,
    )


def test_ports_are_where_authz_listens(shared: Manifests, config: Config) -> None:
    """Container, Service and configuration agree; the Service shows every replica."""
    assert config.listen.admin is not None
    addresses = {"grpc": config.listen.grpc, "admin": config.listen.admin}
    service = shared.find("Service")["spec"]
    (port,) = service["ports"]

    assert shared.containers["authz"].ports == {
        name: int(address.rpartition(":")[2]) for name, address in addresses.items()
    }
    assert (port["targetPort"], port["port"]) == ("grpc", shared.containers["authz"].ports["grpc"])
    assert service["clusterIP"] == "None"


def test_tls_files_are_where_they_are_mounted(shared: Manifests, config: Config) -> None:
    """Certificate and key from one Secret, the workloads' authorities from another."""
    tls = config.listen.tls
    assert tls is not None
    folder = shared.containers["authz"].mounts["authz-tls"]["mountPath"]
    (volume,) = [item for item in shared.pod["volumes"] if item["name"] == "authz-tls"]
    sources = {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }

    files = [tls.certificate_file, tls.key_file, tls.client_ca_file]
    assert [str(file) for file in files] == [f"{folder}/{name}" for name in sources]
    assert sources == {
        "tls.crt": ("authz-tls", "tls.crt"),
        "tls.key": ("authz-tls", "tls.key"),
        "ca.crt": ("authz-client-ca", "ca.crt"),
    }
    assert volume["projected"]["defaultMode"] == 0o440


def test_every_agent_is_bound_to_one_workload(config: Config) -> None:
    """No agent is for everyone who connects, and no workload is several agents."""
    workloads = [name for agent in config.agents.values() for name in agent.workloads]

    assert all(agent.workloads for agent in config.agents.values())
    assert len(set(workloads)) == len(workloads) == len(config.agents)
    assert all(route.agent in config.agents for route in config.egress.values())


def test_replicas_scale_and_stay(shared: Manifests, config: Config) -> None:
    """At least two, spread, never drained at once; new ones are found within minutes."""
    scaler = shared.find("HorizontalPodAutoscaler")["spec"]
    deployment = shared.find("Deployment")

    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
    assert "replicas" not in deployment["spec"]
    assert shared.find("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert config.listen.max_connection_age <= 600


def test_the_clients_configuration_is_the_rendered_one(
    shared: Manifests, client: Manifests, config: Config
) -> None:
    """`envoy.yaml` is what `authz envoy` makes of the service's configuration, as the README says."""
    assert yaml.safe_load(client.files["envoy.yaml"]) == yaml.safe_load(
        render_envoy(config, _settings(shared))
    )
    text = (KUBERNETES / "shared" / "README.md").read_text()
    for option in (
        "--inbound-route desk --egress-route desk-graph=graph.microsoft.com",
        f"--authz-address {_settings(shared).authz_address} --authz-name {_name(shared)}",
        f"--authz-secrets {NAMES}",
    ):
        assert option in text


def test_envoy_accepts_the_clients_configuration(client: Manifests, tmp_path: Path) -> None:
    """`envoy --mode validate` finds nothing, given the files of the Secrets."""
    authority = Authority.create(tmp_path)
    leaf = authority.ca.issue_cert("envoy.example")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    leaf.private_key_pem.write_to_path(tmp_path / "tls.key")
    authority.ca.cert_pem.write_to_path(tmp_path / "ca.crt")

    for name in SECRET_NAMES:
        text = client.files[f"{name}.yaml"].replace(str(SECRETS), str(tmp_path))
        (tmp_path / f"{name}.yaml").write_text(text)

    result = validate(client.files["envoy.yaml"].replace(str(NAMES), str(tmp_path)), tmp_path)

    assert result.returncode == 0, result.stderr


def test_the_client_is_the_workload_of_its_agent(client: Manifests, config: Config) -> None:
    """Namespace and service account of the example are those in the SPIFFE id."""
    account = client.find("ServiceAccount")["metadata"]
    (workload,) = config.agents["desk"].workloads

    assert workload.endswith(f"/ns/{account['namespace']}/sa/{client.pod['serviceAccountName']}")


def test_the_clients_key_is_in_envoy_alone(client: Manifests) -> None:
    """Whoever has it is that agent. There is nothing left in the pod to take a credential from."""
    holders = [name for name, one in client.containers.items() if "envoy-tls" in one.mounts]

    assert holders == ["envoy"]
    assert client.containers["envoy"].mounts["envoy-tls"]["mountPath"] == str(SECRETS)
    assert set(client.containers) == {"agent", "envoy"}
    assert {item["kind"] for item in client.objects} >= {"NetworkPolicy", "ServiceAccount"}


def test_network_policies_let_them_meet(shared: Manifests, client: Manifests) -> None:
    """The client may go to the service's namespace and port, and the service admits by label."""
    (port,) = shared.find("Service")["spec"]["ports"]
    namespace = shared.find("Service")["metadata"]["namespace"]
    there = {
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}],
        "ports": [{"port": port["port"], "protocol": "TCP"}],
    }
    admitted = shared.find("NetworkPolicy")["spec"]["ingress"][0]

    assert there in client.find("NetworkPolicy")["spec"]["egress"]
    assert admitted["ports"] == [{"port": "grpc", "protocol": "TCP"}]
    assert admitted["from"] == [{"namespaceSelector": {"matchLabels": {"authz-client": "true"}}}]


def _component(name: str) -> list[Object]:
    return [
        item
        for file in sorted((KUBERNETES / "components" / name).glob("*.yaml"))
        for item in yaml.safe_load_all(file.read_text())
        if item["kind"] not in {"Component", "Deployment"}
    ]


def test_cert_manager_makes_what_authz_mounts(shared: Manifests) -> None:
    """The Secret and the name; its authority signs for nobody else in these files."""
    objects = _component("cert-manager")
    for item in objects:
        check(item)
    named: dict[tuple[str, str], Any] = {
        (item["kind"], item["metadata"]["name"]): item["spec"] for item in objects
    }
    leaf = named["Certificate", "authz"]

    assert leaf["secretName"] == "authz-tls"
    assert leaf["dnsNames"] == [_name(shared)]
    assert named["Issuer", leaf["issuerRef"]["name"]] == {
        "ca": {"secretName": named["Certificate", "authz-ca"]["secretName"]}
    }
    signed = [
        item for item in objects if item["spec"].get("issuerRef", {}).get("name") == "authz-ca"
    ]
    assert len(signed) == 1


def test_the_gateway_asks_the_service(
    shared: Manifests, gateway: Manifests, config: Config
) -> None:
    """Policy, grant and TLS speak of the same Service, and of an inbound route that exists."""
    service = shared.find("Service")
    external = gateway.find("SecurityPolicy")["spec"]["extAuth"]
    (backend,) = external["grpc"]["backendRefs"]
    told = {item["name"]: item["value"] for item in external["contextExtensions"]}
    tls = gateway.find("BackendTLSPolicy")
    (granted,) = gateway.find("ReferenceGrant")["spec"]["to"]

    assert backend == {
        "name": service["metadata"]["name"],
        "namespace": service["metadata"]["namespace"],
        "port": service["spec"]["ports"][0]["port"],
    }
    assert told["authz.direction"] == "inbound"
    assert told["authz.route"] in config.inbound
    assert external["failOpen"] is False
    # All headers, so that authz can take away what a client sent as x-authz-.
    assert "headersToExtAuth" not in external
    assert granted["name"] == tls["spec"]["targetRefs"][0]["name"] == backend["name"]
    assert tls["metadata"]["namespace"] == backend["namespace"]
    assert tls["spec"]["validation"]["hostname"] == _name(shared)


def test_the_gateways_objects_lead_to_the_agent(gateway: Manifests, client: Manifests) -> None:
    """Policy to route, route to gateway and Service, gateway to the certificate for authz."""
    namespace = client.find("Service")["metadata"]["namespace"]
    route, policy = gateway.find("HTTPRoute"), gateway.find("SecurityPolicy")
    (backend,) = route["spec"]["rules"][0]["backendRefs"]
    (target,) = policy["spec"]["targetRefs"]
    (parent,) = route["spec"]["parentRefs"]
    front = gateway.find("Gateway")
    (source,) = gateway.find("ReferenceGrant")["spec"]["from"]

    assert target["name"] == route["metadata"]["name"]
    assert parent["name"] == front["metadata"]["name"]
    assert parent["sectionName"] in {listener["name"] for listener in front["spec"]["listeners"]}
    assert backend["name"] == client.find("Service")["metadata"]["name"]
    assert backend["port"] == client.find("Service")["spec"]["ports"][0]["port"]
    assert (
        front["spec"]["infrastructure"]["parametersRef"]["name"]
        == gateway.find("EnvoyProxy")["metadata"]["name"]
    )
    places = {item["metadata"]["namespace"] for item in (route, policy, front)}
    assert places == {namespace, source["namespace"]} == {namespace}
