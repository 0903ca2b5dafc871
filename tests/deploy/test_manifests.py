"""The rendered objects are valid, and what one of them names exists in another."""

import kubernetes_validate
import pytest
import yaml

import authz
from authz.cli.drain_envoy import drain_envoy
from authz.envoy_config.administration import FAIL_HEALTH
from support.kubernetes.manifests import KUBERNETES, OVERLAYS, Manifests, render
from support.kubernetes.schemas import BEFORE, LATEST, NEWER, VERSIONS, check_core


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(manifests: Manifests, version: str) -> None:
    """Each object fits its kind's schema, of the oldest and of the newest version, without extra keys."""
    for item in manifests.objects:
        # An unknown kind raises SchemaNotFoundError and fails the test, as it should.
        check_core(item, version)


@pytest.mark.parametrize("kind", sorted(NEWER))
def test_a_kind_that_is_exempt_does_not_exist_there(kind: str) -> None:
    """What is not compared with the schemas of the version before has none in it."""
    item = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind}

    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate(item, BEFORE, strict=True)


def test_an_unknown_key_would_be_found(manifests: Manifests) -> None:
    """The validation that these tests rely on refuses a key that Kubernetes does not know."""
    deployment = manifests.find("Deployment")
    faulty = {**deployment, "spec": {**deployment["spec"], "replicaCount": 2}}

    with pytest.raises(kubernetes_validate.ValidationError, match="replicaCount"):
        check_core(faulty, LATEST)


def test_an_overlay_has_exactly_these_objects(manifests: Manifests) -> None:
    """None is missing, the network policy least of all, and there is no Secret among them."""
    kinds = sorted(item["kind"] for item in manifests.objects)

    assert kinds == [
        "ConfigMap",
        "ConfigMap",
        "ConfigMap",
        "Deployment",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    ]


def test_selectors_match_the_pods(manifests: Manifests) -> None:
    """Deployment, Service, disruption budget and network policy all speak of the same pods."""
    deployment = manifests.find("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"]["matchLabels"],
        manifests.find("Service")["spec"]["selector"],
        manifests.find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        manifests.find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]

    assert [selector.items() <= labels.items() for selector in selectors] == [True] * 4
    assert all(selectors)


def test_named_ports_exist(manifests: Manifests) -> None:
    """Service and network policy name the ports that containers declare, probes their own container's."""
    containers = manifests.containers.values()
    declared = {name for container in containers for name in container.ports}
    named = {port["targetPort"] for port in manifests.find("Service")["spec"]["ports"]}
    for rule in manifests.find("NetworkPolicy")["spec"]["ingress"]:
        named |= {port["port"] for port in rule["ports"]}

    assert named == declared == {"http", "admin", "statistics"}
    for container in containers:
        for probe in container.probes.values():
            assert (probe.get("httpGet") or probe["tcpSocket"])["port"] in container.ports


def test_mounts_and_volumes_pair_up(manifests: Manifests) -> None:
    """Every mount has its volume, and every volume is mounted somewhere."""
    volumes = {volume["name"] for volume in manifests.pod["volumes"]}
    mounted = {name for container in manifests.containers.values() for name in container.mounts}

    assert mounted == volumes


def test_referenced_config_maps_exist(manifests: Manifests, identity: dict[str, str]) -> None:
    """The files and variables of the containers come from ConfigMaps that the overlay generates."""
    assert set(manifests.files) == {"authz.yaml", "envoy.yaml"}
    for name in ("check-config", "authz"):
        (source,) = manifests.containers[name].spec["envFrom"]
        data = manifests.find("ConfigMap", source["configMapRef"]["name"])["data"]
        assert set(data) == set(identity)


def test_a_changed_file_rolls_the_pods(manifests: Manifests) -> None:
    """The names of generated ConfigMaps end in a hash of their content."""
    names = [item["metadata"]["name"] for item in manifests.objects if item["kind"] == "ConfigMap"]

    assert sorted(name.rpartition("-")[0] for name in names) == ["agent-identity", "authz", "envoy"]


def test_the_service_account_exists(manifests: Manifests) -> None:
    """The pods run as the service account that is rendered with them."""
    account = manifests.find("ServiceAccount")["metadata"]["name"]

    assert manifests.pod["serviceAccountName"] == account


def test_configuration_files_are_where_programs_look(manifests: Manifests) -> None:
    """The paths that Envoy and authz are given lie in the mounts of their ConfigMaps."""
    envoy = manifests.containers["envoy"]
    args = envoy.spec["args"]
    folder = envoy.mounts["envoy-config"]["mountPath"]

    assert args[args.index("--config-path") + 1] == f"{folder}/envoy.yaml"
    for name in ("check-config", "authz"):
        container = manifests.containers[name]
        folder = container.mounts["authz-config"]["mountPath"]
        assert container.variables["AUTHZ_CONFIG"] == f"{folder}/authz.yaml"


def test_images_are_pinned(manifests: Manifests) -> None:
    """No image has the tag `latest` or none, and authz's tag is this version."""
    images = {name: item.spec["image"] for name, item in manifests.containers.items()}

    assert images == {
        "check-config": f"entra-authz:{authz.__version__}",
        "authz": f"entra-authz:{authz.__version__}",
        "envoy": "docker.io/envoyproxy/envoy:distroless-v1.40.0",
        "agent": "agent:replace-me",
    }


def test_containers_stop_in_order(manifests: Manifests) -> None:
    """Agent first, then Envoy, then authz, and all of it within the grace period."""
    listen = yaml.safe_load(manifests.files["authz.yaml"])["listen"]
    delay = int(listen["drain_delay"].removesuffix("s"))
    timeout = int(listen["drain_timeout"].removesuffix("s"))
    agent, envoy = (manifests.containers[name].stop_delay for name in ("agent", "envoy"))

    assert 0 < agent < envoy <= delay
    assert delay + timeout < manifests.pod["terminationGracePeriodSeconds"]


def test_callers_are_let_go_before_the_agent_stops(manifests: Manifests) -> None:
    """Authz's hook tells Envoy so at once, where the rendered configuration has its administration."""
    command = manifests.containers["authz"].spec["lifecycle"]["preStop"]["exec"]["command"]
    admin = yaml.safe_load(manifests.files["envoy.yaml"])["admin"]
    address = admin["address"]["socket_address"]
    (told,) = [option.default for option in drain_envoy.params if option.name == "admin"]

    assert command == ["authz", drain_envoy.name]
    assert told == f"{address['address']}:{address['port_value']}"
    assert {"exact": FAIL_HEALTH} in admin["allow_paths"]


def test_the_overlays_differ_in_the_credential_alone(kubectl: str) -> None:
    """There is one configuration: what an overlay adds is a mounted file, and a variable that names it."""
    secret, token = (render(KUBERNETES / name) for name in OVERLAYS)

    assert secret.files == token.files
    assert "credentials" not in yaml.safe_load(secret.files["authz.yaml"])["blueprints"]["agent"]
