"""Every overlay beside the plain sidecar: valid objects, and what one of them names exists in another."""

import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import jsonschema
import pytest
import yaml

import authz
from authz.config import load
from authz.config.sections.clients import Certificate, ClientSecret, FederatedToken
from support.kubernetes.manifests import (
    CREDENTIALS,
    KUBERNETES,
    TOPOLOGIES,
    Manifests,
    Object,
    render,
)
from support.kubernetes.schemas import OLDEST, check, mesh_config_schema

pytestmark = pytest.mark.thorough

WITH_PODS = ("istio-sidecar", "shared", "shared/client")
WITH_AUTHZ = ("istio-sidecar", "shared")
WEBHOOK = {"AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/azure/tokens/azure-identity-token"}
"""What Azure's webhook sets in the containers that it does not skip."""


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest, kubectl: str) -> Manifests:
    """Return each overlay in turn."""
    return render(KUBERNETES / str(request.param))


@pytest.fixture(params=WITH_PODS)
def pods(request: pytest.FixtureRequest, kubectl: str) -> Manifests:
    """Return each overlay that has pods."""
    return render(KUBERNETES / str(request.param))


@pytest.fixture(params=WITH_AUTHZ)
def served(request: pytest.FixtureRequest, kubectl: str) -> Manifests:
    """Return each overlay that has authz in it."""
    return render(KUBERNETES / str(request.param))


@pytest.fixture
def everyone(identity: dict[str, str]) -> dict[str, str]:
    """Return the variables of every overlay."""
    agents = {f"{name}_AGENT_IDENTITY": identity["AGENT_IDENTITY"] for name in ("DESK", "CLERK")}
    return {**identity, **agents}


def test_every_object_is_valid(topology: Manifests) -> None:
    """Each object fits its kind's schema, without a key that the schema does not know."""
    for item in topology.objects:
        check(item)


def test_the_mesh_configuration_is_valid() -> None:
    """MeshConfig is no custom resource, so its schema is our own."""
    file = KUBERNETES / "istio-sidecar" / "mesh" / "meshconfig.yaml"
    found = yaml.safe_load(file.read_text())
    jsonschema.validate(found, mesh_config_schema())

    found["meshConfig"]["extensionProviders"][0]["envoyExtAuthzGrpc"]["failOpen"] = True
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, mesh_config_schema())


@pytest.mark.parametrize(
    ("kind", "path", "key"),
    [
        ("EnvoyFilter", ("spec",), "configPatchs"),
        ("AuthorizationPolicy", ("spec", "rules", 0, "to", 0, "operation"), "path"),
        ("ServiceEntry", ("spec", "ports", 0), "proto"),
        ("DestinationRule", ("spec", "trafficPolicy", "portLevelSettings", 0, "tls"), "ca"),
        ("VirtualService", ("spec", "http", 1, "retries"), "attempt"),
        ("Sidecar", ("spec", "outboundTrafficPolicy"), "modus"),
        ("PeerAuthentication", ("spec", "mtls"), "strict"),
    ],
)
def test_an_unknown_key_would_be_found(
    kubectl: str, kind: str, path: tuple[str | int, ...], key: str
) -> None:
    """The schemas that these tests rely on are closed at every depth."""
    text = yaml.safe_dump(render(KUBERNETES / "istio-sidecar").all(kind)[0])
    faulty = yaml.safe_load(text)
    place = faulty
    for step in path:
        place = place[step]
    place[key] = "anything"

    with pytest.raises(jsonschema.ValidationError) as refusal:
        check(faulty)

    assert f"'{key}' was unexpected" in refusal.value.message


def test_a_duration_of_nothing_would_be_found(kubectl: str) -> None:
    """An API server refuses it in Istio's objects, where it is no way to say "without end"."""
    faulty = deepcopy(render(KUBERNETES / "istio-sidecar").find("VirtualService"))
    faulty["spec"]["http"][0]["timeout"] = "0s"

    with pytest.raises(jsonschema.ValidationError) as refusal:
        check(faulty)

    assert ["spec", "http", 0, "timeout"] == list(refusal.value.absolute_path)


def test_a_kind_without_schema_would_be_found() -> None:
    """What nobody has a schema for has not been checked, and does not pass for valid."""
    with pytest.raises(KeyError):
        check({"apiVersion": "networking.istio.io/v9", "kind": "ServiceEntry", "metadata": {}})


def test_every_container_meets_the_restricted_profile(pods: Manifests) -> None:
    """Pod Security Standards, profile restricted, and a read-only root beyond it; init containers too."""
    assert pods.pod["securityContext"]["runAsNonRoot"] is True
    assert pods.pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pods.pod["automountServiceAccountToken"] is False
    for container in pods.containers.values():
        context = container.security
        assert context["runAsUser"] > 0
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container.spec["resources"]["limits"]
        assert [mount for mount in container.mounts.values() if "subPath" in mount] == []


def test_mounts_and_volumes_pair_up(pods: Manifests) -> None:
    """Every mount has its volume, every volume is mounted somewhere, and none lies inside of another."""
    volumes = {volume["name"] for volume in pods.pod["volumes"]}
    mounted = {name for container in pods.containers.values() for name in container.mounts}

    assert mounted == volumes
    for container in pods.containers.values():
        paths = [Path(mount["mountPath"]) for mount in container.mounts.values()]
        assert [p for p in paths for q in paths if p != q and p.is_relative_to(q)] == []


def test_selectors_ports_and_accounts_exist(pods: Manifests) -> None:
    """Service, disruption budget, network policy and mesh objects speak of these pods and their ports."""
    labels = pods.find("Deployment")["spec"]["template"]["metadata"]["labels"]
    ports = {name for container in pods.containers.values() for name in container.ports}
    named = {port["targetPort"] for port in pods.find("Service")["spec"]["ports"]}
    for rule in pods.find("NetworkPolicy")["spec"]["ingress"]:
        named |= {port["port"] for port in rule["ports"]}

    assert named <= ports
    assert all(selector.items() <= labels.items() for selector in _selectors(pods))
    assert pods.pod["serviceAccountName"] == pods.find("ServiceAccount")["metadata"]["name"]
    for container in pods.containers.values():
        for probe in container.probes.values():
            assert (probe.get("httpGet") or probe["tcpSocket"])["port"] in container.ports


def _selectors(pods: Manifests) -> Iterator[Object]:
    for item in pods.objects:
        spec = item.get("spec", {})
        match item["kind"]:
            case "Deployment" | "PodDisruptionBudget":
                yield spec["selector"]["matchLabels"]
            case "NetworkPolicy":
                yield spec["podSelector"]["matchLabels"]
            case "Service":
                yield spec["selector"]
            case "AuthorizationPolicy" | "PeerAuthentication":
                yield spec["selector"]["matchLabels"]
            case "EnvoyFilter" | "Sidecar":
                yield spec["workloadSelector"]["labels"]
            case _:
                continue


def test_images_are_those_of_the_base(pods: Manifests) -> None:
    """Placeholders, pinned: one tag of authz and one of Envoy, wherever they run."""
    expected = {
        "check-config": f"entra-authz:{authz.__version__}",
        "authz": f"entra-authz:{authz.__version__}",
        "envoy": "docker.io/envoyproxy/envoy:distroless-v1.40.0",
        "agent": "agent:replace-me",
    }

    images = {name: item.spec["image"] for name, item in pods.containers.items()}

    assert images.items() <= expected.items()


def test_authz_accepts_its_configuration_without_a_warning(
    served: Manifests, everyone: dict[str, str], tmp_path: Path
) -> None:
    """The loader that serves accepts the file; init container and container read the same."""
    file = tmp_path / "authz.yaml"
    file.write_text(served.files["authz.yaml"])
    loaded = {
        name: load(file, {**served.containers[name].variables, **everyone})
        for name in ("check-config", "authz")
    }
    (source,) = served.containers["authz"].spec["envFrom"]
    names = served.find("ConfigMap", source["configMapRef"]["name"])["data"].keys()

    assert loaded["authz"].warnings == ()
    assert loaded["authz"] == loaded["check-config"]
    assert {name for name in everyone if f"${{{name}}}" in file.read_text()} == names


def test_authz_has_time_to_stop(served: Manifests) -> None:
    """What it waits for by itself is shorter than the patience of the kubelet."""
    listen = yaml.safe_load(served.files["authz.yaml"])["listen"]
    needed = sum(int(listen[key].removesuffix("s")) for key in ("drain_delay", "drain_timeout"))

    assert needed < served.pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("overlay", [*WITH_AUTHZ, "client-secret-file"])
@pytest.mark.parametrize("credential", CREDENTIALS)
def test_every_credential_goes_with_every_overlay(
    kubectl: str, everyone: dict[str, str], tmp_path: Path, overlay: str, credential: str
) -> None:
    """One line changes in an overlay; the file is in authz alone, where the configuration reads it."""
    folder = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, folder, ignore=shutil.ignore_patterns(".env"))
    file = folder / overlay / "kustomization.yaml"
    document = yaml.safe_load(file.read_text())
    document["components"] = [f"../components/credentials/{credential}"]
    file.write_text(yaml.safe_dump(document))
    made = render(folder / overlay)
    for item in made.all("Deployment"):
        check(item)
    (tmp_path / "authz.yaml").write_text(made.files["authz.yaml"])
    variables = {**everyone, **made.containers["authz"].variables}
    if credential == "workload-identity-aks":
        variables |= WEBHOOK

    config = load(tmp_path / "authz.yaml", variables).config

    (blueprint,) = config.blueprints.values()
    (found,) = blueprint.credentials
    assert isinstance(found, Certificate | ClientSecret | FederatedToken)
    kinds = {"certificate": "certificate", "client-secret": "client_secret"}
    assert found.kind == kinds.get(credential, "federated_token")
    holders = [name for name, one in made.containers.items() if "credential" in one.mounts]
    if credential == "workload-identity-aks":
        metadata = made.find("Deployment")["spec"]["template"]["metadata"]
        skipped = metadata["annotations"]["azure.workload.identity/skip-containers"].split(";")
        # Not in the agent, not in a proxy; in check-config, which must know that there will be one.
        assert made.containers.keys() - {*skipped, "check-config"} == {"authz"}
        assert metadata["labels"]["azure.workload.identity/use"] == "true"
        assert holders == []
    else:
        assert holders == ["authz"]
        assert found.file is not None
        mount = made.containers["authz"].mounts["credential"]
        assert mount["readOnly"] is True
        assert str(found.file.parent) == mount["mountPath"]
        assert found.file.name in str(made.pod["volumes"])


def test_the_oldest_version_is_the_plain_sidecars() -> None:
    """All overlays say the same of the versions that they need."""
    assert f"Kubernetes {OLDEST}" in (KUBERNETES.parent / "docs" / "kubernetes.md").read_text()
