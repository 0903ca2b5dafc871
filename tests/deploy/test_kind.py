"""`kubernetes/kind`: valid objects that fit one another, the emulator and the product's own overlays."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import jsonschema
import pytest
import yaml

import authz
from authz.config import Config, load
from authz.config.sections.clients import ClientSecret, FederatedToken
from authz.envoy_config.bootstrap import render as render_envoy
from authz.envoy_config.settings import SidecarSettings
from authz_dev.emulator import default_directory
from authz_dev.emulator.description import describe_tenants
from authz_dev.emulator.federation import KEYS, METADATA
from support.kubernetes.manifests import KUBERNETES, OVERLAYS, STATISTICS, Manifests, Object, render
from support.kubernetes.schemas import check
from support.proxy.envoy import validate

pytestmark = pytest.mark.thorough

KIND = KUBERNETES / "kind"
FOLDERS = ("emulator", "orders", *OVERLAYS)
CLUSTER_DOMAIN = "svc.cluster.local"
MADE_BY_THE_SCRIPT = {
    "emulator": {("Secret", "emulator-tls"), ("ConfigMap", "issuer")},
    "orders": {("Secret", "orders-tls")},
    "workload-identity": {("ConfigMap", "development-ca")},
    "client-secret-file": {("ConfigMap", "development-ca"), ("Secret", "agent-credential")},
}


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest, kubectl: str) -> str:
    """Return the name of each folder that the script deploys."""
    return str(request.param)


@pytest.fixture
def made(folder: str) -> Manifests:
    """Return each folder, rendered."""
    return render(KIND / folder)


@pytest.fixture(params=OVERLAYS)
def agent(request: pytest.FixtureRequest, kubectl: str) -> Manifests:
    """Return each overlay of the agent."""
    return render(KIND / str(request.param))


def _config(agent: Manifests, folder: Path, container: str = "authz") -> Config:
    """Load what authz will, with the variables that it will have; the authority's file is the test's."""
    ca_file = folder / "ca.crt"
    ca_file.touch()
    file = folder / "authz.yaml"
    file.write_text(_file(agent, "authz.yaml").replace("/etc/development-ca/ca.crt", str(ca_file)))
    variables = {**agent.containers[container].variables, **_identity(agent, container)}
    loaded = load(file, variables)
    assert loaded.warnings == ()
    return loaded.config


def _identity(agent: Manifests, container: str = "authz") -> Mapping[str, str]:
    (source,) = agent.containers[container].spec["envFrom"]
    data: Mapping[str, str] = agent.find("ConfigMap", source["configMapRef"]["name"])["data"]
    return data


def _file(agent: Manifests, name: str) -> str:
    """Return the text of a file that a generated ConfigMap holds; those of the script are not there."""
    (text,) = [item["data"][name] for item in agent.all("ConfigMap") if name in item["data"]]
    return str(text)


def _namespaces() -> Iterator[Object]:
    for name in ("namespaces.yaml", "emulator/namespace.yaml"):
        yield from yaml.safe_load_all((KIND / name).read_text())


def _services(*folders: str) -> Iterator[str]:
    for folder in folders:
        for service in render(KIND / folder).all("Service"):
            metadata = service["metadata"]
            yield f"{metadata['name']}.{metadata['namespace']}.{CLUSTER_DOMAIN}"


def test_every_object_is_valid(made: Manifests) -> None:
    """Each object fits its kind's schema, of the oldest and the newest version, without an extra key."""
    for item in made.objects:
        check(item)
    for item in _namespaces():
        check(item)


def test_the_cluster_is_valid() -> None:
    """The configuration of kind has a narrow schema of our own, closed, and open to this machine alone."""
    cluster = yaml.safe_load((KIND / "cluster.yaml").read_text())
    check(cluster)

    cluster["nodes"][0]["extraPortMappings"][0]["listenAddress"] = "10.0.0.1"
    with pytest.raises(jsonschema.ValidationError):
        check(cluster)


def test_mapped_ports_lead_to_services(kubectl: str) -> None:
    """Each port of this machine has its Service, and each node port is mapped."""
    (node,) = yaml.safe_load((KIND / "cluster.yaml").read_text())["nodes"]
    services = [item for one in FOLDERS[:3] for item in render(KIND / one).all("Service")]
    node_ports = [
        port["nodePort"]
        for service in services
        for port in service["spec"]["ports"]
        if "nodePort" in port
    ]

    assert sorted(one["containerPort"] for one in node["extraPortMappings"]) == sorted(node_ports)


def test_every_container_meets_the_restricted_profile(made: Manifests) -> None:
    """As the namespaces enforce it, and a read-only root beyond it."""
    assert made.pod["securityContext"]["runAsNonRoot"] is True
    assert made.pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert made.pod["automountServiceAccountToken"] is False
    for container in made.containers.values():
        assert container.security["allowPrivilegeEscalation"] is False
        assert container.security["readOnlyRootFilesystem"] is True
        assert container.security["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container.spec["resources"]["limits"]


def test_what_is_named_exists_or_is_made_by_the_script(folder: str, made: Manifests) -> None:
    """Volumes and mounts pair up; Secrets and ConfigMaps are rendered, or the script makes them."""
    volumes = {volume["name"] for volume in made.pod["volumes"]}
    mounted = {name for container in made.containers.values() for name in container.mounts}
    rendered = {("ConfigMap", item["metadata"]["name"]) for item in made.all("ConfigMap")}

    assert volumes == mounted
    assert {*_sources(made)} - rendered == MADE_BY_THE_SCRIPT[folder]


def _sources(made: Manifests) -> Iterator[tuple[str, str]]:
    for volume in made.pod["volumes"]:
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]


def test_selectors_and_ports_are_the_pods(made: Manifests) -> None:
    """Services and policies speak of these pods, and of ports that they have."""
    labels = made.find("Deployment")["spec"]["template"]["metadata"]["labels"]
    declared = {name for container in made.containers.values() for name in container.ports}
    policy = made.find("NetworkPolicy")["spec"]
    named = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    for service in made.all("Service"):
        assert service["spec"]["selector"].items() <= labels.items()
        named |= {port["targetPort"] for port in service["spec"]["ports"]}

    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert named <= declared
    assert made.pod["serviceAccountName"] == made.find("ServiceAccount")["metadata"]["name"]


def test_namespaces_exist(made: Manifests) -> None:
    """Every object is in a namespace that the script makes, as are the peers of policies."""
    there = {item["metadata"]["name"] for item in _namespaces()}
    peers = {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in made.find("NetworkPolicy")["spec"].get("egress", ())
        for peer in rule["to"]
        if "namespaceSelector" in peer
    }

    assert {item["metadata"]["namespace"] for item in made.objects} <= there
    assert peers <= there | {"kube-system"}


def test_images_are_those_that_the_script_builds(made: Manifests) -> None:
    """One version of both; nothing is pulled but Envoy, and the emulator is never in the product's image."""
    images = {name: container.spec["image"] for name, container in made.containers.items()}
    version = authz.__version__

    assert set(images.values()) <= {
        f"entra-authz:{version}",
        f"entra-authz-development:{version}",
        render(KUBERNETES / "workload-identity").containers["envoy"].spec["image"],
    }
    for name in ("emulator", "orders", "agent"):
        assert images.get(name) in {None, f"entra-authz-development:{version}"}
    assert images.get("entra-authz") in {None, f"entra-authz:{version}"}


def test_the_overlays_are_the_products_own(agent: Manifests) -> None:
    """What differs in the pod is an authority to trust and the demo's agent; every right is as it was."""
    kind = "client-secret-file" if _has_secret(agent) else "workload-identity"
    product = render(KUBERNETES / kind)

    assert agent.containers.keys() == product.containers.keys()
    for name, container in agent.containers.items():
        mounts = {key: value for key, value in container.mounts.items() if key != "development-ca"}
        assert mounts == product.containers[name].mounts
        assert container.security == product.containers[name].security
        assert container.probes == product.containers[name].probes
    assert "development-ca" not in agent.containers["agent"].mounts
    kept, added = (one.find("NetworkPolicy")["spec"] for one in (product, agent))
    assert added["egress"][: len(kept["egress"])] == kept["egress"]
    assert added["ingress"] == kept["ingress"]


def _has_secret(agent: Manifests) -> bool:
    (volume,) = [one for one in agent.pod["volumes"] if one["name"] == "credential"]
    return "secret" in volume


def test_the_identity_is_in_the_emulators_directory(agent: Manifests) -> None:
    """The seed of the emulator and the identifiers of the agent belong together."""
    args = render(KIND / "emulator").containers["emulator"].spec["args"]
    tenant = describe_tenants(default_directory(int(args[args.index("--seed") + 1])))[0]
    blueprint = tenant["blueprints"][0]

    assert _identity(agent) == {
        "TENANT_ID": tenant["tenant_id"],
        "CLIENT_ID": blueprint["client_id"],
        "AGENT_IDENTITY": blueprint["agents"][0]["client_id"],
        "SCOPE": "access_agent access_as_user",
        "AGENT_USER": blueprint["agents"][0]["agent_user"],
        "AZURE_AUTHORITY_HOST": args[args.index("--authority") + 1],
    }


def test_the_api_trusts_the_emulator(agent: Manifests) -> None:
    """Issuer, keys and audience of the API are those of the directory and of the emulator's address."""
    variables = render(KIND / "orders").containers["orders"].variables
    identity = _identity(agent)
    tenant = f"{identity['AZURE_AUTHORITY_HOST']}/{identity['TENANT_ID']}"
    apis = describe_tenants(default_directory(1))[0]["apis"]
    (audience,) = [api["client_id"] for api in apis if api["name"] == "orders"]

    assert variables["ORDERS_ISSUER"] == f"{tenant}/v2.0"
    assert variables["ORDERS_KEYS_URL"] == f"{tenant}/discovery/v2.0/keys"
    assert variables["ORDERS_AUDIENCE"] == audience


def test_the_emulator_trusts_the_agents_service_account(kubectl: str) -> None:
    """The subject of the overlay's projected token, and the documents where the emulator looks for them."""
    emulator = render(KIND / "emulator")
    args = emulator.containers["emulator"].spec["args"]
    at = args.index("--federate")
    agent = render(KIND / "workload-identity")
    namespace = agent.find("Deployment")["metadata"]["namespace"]
    (volume,) = [one for one in emulator.pod["volumes"] if one["name"] == "issuer"]

    assert args[at + 2] == f"system:serviceaccount:{namespace}:{agent.pod['serviceAccountName']}"
    assert args[at + 1] == emulator.containers["emulator"].mounts["issuer"]["mountPath"]
    assert {item["path"] for item in volume["configMap"]["items"]} == {str(METADATA), str(KEYS)}


def test_authz_accepts_its_configuration(agent: Manifests, tmp_path: Path) -> None:
    """Without a warning; init container and container read the same; the credential is the overlay's."""
    config = _config(agent, tmp_path)
    (credential,) = config.blueprints["agent"].credentials

    assert config == _config(agent, tmp_path, "check-config")
    assert str(config.entra.authority) == _identity(agent)["AZURE_AUTHORITY_HOST"]
    assert isinstance(credential, ClientSecret if _has_secret(agent) else FederatedToken)


def test_every_host_is_a_service(agent: Manifests, tmp_path: Path) -> None:
    """Egress routes and the agent's own addresses lead to Services of the emulator and of the API."""
    routes = {host for route in _config(agent, tmp_path).egress.values() for host in route.hosts}
    variables = agent.containers["agent"].variables
    asked = {
        value.removeprefix("http://") for key, value in variables.items() if key.endswith("_URL")
    }
    services = {*_services("emulator", "orders")}

    assert asked == routes
    assert routes | {"login.entra-emulator.svc.cluster.local"} == services


def test_envoys_configuration_is_the_rendered_one(agent: Manifests, tmp_path: Path) -> None:
    """`envoy.yaml` is what `authz envoy` makes of `authz.yaml`, with the authority to trust."""
    authority = Path(agent.containers["envoy"].mounts["development-ca"]["mountPath"], "ca.crt")
    rendered = render_envoy(
        _config(agent, tmp_path),
        SidecarSettings(upstream_ca_file=authority, statistics_address=STATISTICS),
    )

    assert yaml.safe_load(_file(agent, "envoy.yaml")) == yaml.safe_load(rendered)


def test_envoy_accepts_its_configuration(agent: Manifests, tmp_path: Path) -> None:
    """`envoy --mode validate` finds nothing, once the authority's file is there."""
    system = "/etc/ssl/certs/ca-certificates.crt"
    text = _file(agent, "envoy.yaml").replace("/etc/development-ca/ca.crt", system)

    result = validate(text, tmp_path)

    assert result.returncode == 0, result.stderr


def test_the_emulator_says_that_it_is_one(kubectl: str) -> None:
    """In the name of its namespace, hence in the issuer of every token, and where an administrator looks."""
    emulator = render(KIND / "emulator")
    (namespace,) = [
        item
        for item in _namespaces()
        if item["metadata"]["name"] == emulator.find("Deployment")["metadata"]["namespace"]
    ]
    args = emulator.containers["emulator"].spec["args"]

    assert "authz/development-only" in namespace["metadata"]["annotations"]
    assert "emulator" in args[args.index("--authority") + 1]
    assert _kinds(KUBERNETES / "base", "deployment.yaml").isdisjoint({"entra-authz-development"})


def _kinds(folder: Path, name: str) -> set[str]:
    document: Object = yaml.safe_load((folder / name).read_text())
    spec = document["spec"]["template"]["spec"]
    return {
        one["image"].partition(":")[0] for one in [*spec["initContainers"], *spec["containers"]]
    }
