"""The ConfigMaps hold configurations that authz and Envoy accept, and that fit the pod around them."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
import yaml

from authz.config import Config, ConfigError, load
from authz.config.clouds import cloud_of
from authz.config.sections.clients import ClientSecret, FederatedToken
from authz.core.exchange import Flow
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import SidecarSettings
from support.kubernetes.manifests import KUBERNETES, OVERLAYS, ROOT, STATISTICS, Manifests
from support.kubernetes.manifests import render as kustomize
from support.proxy.envoy import validate

ANYWHERE = [str(IPv4Address(0)), str(IPv6Address(0))]


@pytest.fixture
def config(manifests: Manifests, identity: dict[str, str], tmp_path: Path) -> Config:
    """Return the configuration of the pod, as authz reads it there."""
    return _load(manifests, identity, tmp_path)


@pytest.fixture
def envoy(manifests: Manifests) -> dict[str, Any]:
    """Return Envoy's configuration of the pod, as plain data."""
    parsed: dict[str, Any] = yaml.safe_load(manifests.files["envoy.yaml"])
    return parsed


def _load(
    manifests: Manifests, identity: Mapping[str, str], folder: Path, container: str = "authz"
) -> Config:
    file = folder / "authz.yaml"
    file.write_text(manifests.files["authz.yaml"])
    return load(file, {**manifests.containers[container].variables, **identity}).config


def test_authz_accepts_its_configuration_without_a_warning(
    manifests: Manifests, identity: dict[str, str], tmp_path: Path
) -> None:
    """The loader that serves accepts the file, given the variables of the pod."""
    file = tmp_path / "authz.yaml"
    file.write_text(manifests.files["authz.yaml"])

    loaded = load(file, {**manifests.containers["authz"].variables, **identity})

    assert loaded.warnings == ()
    assert loaded.config.egress["graph"].flow is Flow.ON_BEHALF_OF


def test_the_init_container_reads_the_same_configuration(
    manifests: Manifests, identity: dict[str, str], tmp_path: Path
) -> None:
    """What `check-config` approves is what `serve` will run."""
    checked = _load(manifests, identity, tmp_path, "check-config")

    assert checked == _load(manifests, identity, tmp_path, "authz")
    assert manifests.containers["check-config"].spec["args"] == ["check-config"]
    assert manifests.containers["authz"].spec["args"] == ["serve"]


def test_placeholders_are_refused_by_name(manifests: Manifests, tmp_path: Path) -> None:
    """Applied without an identity, the pods stop in `check-config`, which names each missing value."""
    source = manifests.containers["authz"].spec["envFrom"][0]["configMapRef"]["name"]
    placeholders = manifests.find("ConfigMap", source)["data"]

    with pytest.raises(ConfigError) as refusal:
        _load(manifests, placeholders, tmp_path)

    assert [fault.path for fault in refusal.value.faults] == [
        "blueprints.agent.tenant_id",
        "blueprints.agent.client_id",
        "agents.agent.agent_identity",
    ]


def test_the_credential_is_read_where_it_is_mounted(manifests: Manifests, config: Config) -> None:
    """The file of the only credential is one that the mounted volume has."""
    (credential,) = config.blueprints["agent"].credentials
    folder = manifests.containers["authz"].mounts["credential"]["mountPath"]
    (volume,) = [item for item in manifests.pod["volumes"] if item["name"] == "credential"]

    match credential:
        case ClientSecret():
            (item,) = volume["secret"]["items"]
            assert credential.file == Path(folder, item["path"])
        case FederatedToken():
            (source,) = volume["projected"]["sources"]
            assert credential.file == Path(folder, source["serviceAccountToken"]["path"])
        case _:
            pytest.fail(f"an overlay has a credential of kind {credential.kind}")


def test_the_projected_token_is_meant_for_entra(
    kubectl: str, identity: dict[str, str], tmp_path: Path
) -> None:
    """Its audience is the token exchange of the cloud that is configured."""
    overlay = kustomize(KUBERNETES / "workload-identity")
    (volume,) = [item for item in overlay.pod["volumes"] if item["name"] == "credential"]
    token = volume["projected"]["sources"][0]["serviceAccountToken"]
    authority = _load(overlay, identity, tmp_path).entra.authority

    assert token["audience"] == cloud_of(authority).exchange_resource
    assert token["expirationSeconds"] == 3600


def test_the_socket_is_the_same_for_all(
    manifests: Manifests, config: Config, envoy: dict[str, Any]
) -> None:
    """Envoy connects where authz listens; both mount the folder, which authz alone can write."""
    sockets = {}
    for cluster in envoy["static_resources"]["clusters"]:
        if cluster["name"] in ("authz", "authz-checks"):
            endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            sockets[cluster["name"]] = f"unix:{endpoint['address']['pipe']['path']}"
    folders = {str(Path(socket.removeprefix("unix:")).parent) for socket in sockets.values()}
    mounts = {
        name: manifests.containers[name].mounts["authz-socket"] for name in ("envoy", "authz")
    }

    assert sockets == {"authz": config.listen.grpc, "authz-checks": config.listen.checks}
    assert {mount["mountPath"] for mount in mounts.values()} == folders
    assert mounts["envoy"]["readOnly"] is True
    assert "readOnly" not in mounts["authz"]


def test_envoy_may_use_the_socket(manifests: Manifests, config: Config) -> None:
    """The socket is open to a group, and that group is the one that every container of the pod has."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    group = manifests.pod["securityContext"]["fsGroup"]

    assert config.listen.socket_mode == "0660"
    assert f"groupadd --gid {group} {config.listen.socket_group}" in dockerfile


def test_probes_ask_authz_where_it_listens(manifests: Manifests, config: Config) -> None:
    """The kubelet comes over the network, by either family: the port fits, the address is not loopback."""
    container = manifests.containers["authz"]
    assert config.listen.admin is not None
    host, _, port = config.listen.admin.rpartition(":")

    assert container.ports == {"admin": int(port)}
    assert host == f"[{ANYWHERE[1]}]"
    assert {kind: probe["httpGet"]["path"] for kind, probe in container.probes.items()} == {
        "startup": "/livez",
        "readiness": "/readyz",
        "liveness": "/livez",
    }


def test_envoy_listens_where_it_is_expected(manifests: Manifests, envoy: dict[str, Any]) -> None:
    """Inbound on the port that Service and probes mean, egress where the agent's proxy variables point.

    Both by either family of addresses: the Service may have both.
    """
    listeners = {
        item["name"]: [
            each["address"]["socket_address"] for each in (item, *item["additional_addresses"])
        ]
        for item in envoy["static_resources"]["listeners"]
        if "address" in item
    }
    agent = manifests.containers["agent"].variables
    egress, _ = listeners["egress"]
    proxy = f"http://{egress['address']}:{egress['port_value']}"

    assert [where["address"] for where in listeners["inbound"]] == ANYWHERE
    (port,) = {where["port_value"] for where in listeners["inbound"]}
    (statistics,) = {where["port_value"] for where in listeners["statistics"]}
    assert [where["address"] for where in listeners["statistics"]] == ANYWHERE
    assert manifests.containers["envoy"].ports == {"http": port, "statistics": statistics}
    assert manifests.find("Service", "agent")["spec"]["ipFamilyPolicy"] == "PreferDualStack"
    assert [where["address"] for where in listeners["egress"]] == ["127.0.0.1", "::1"]
    names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
    assert {proxy} == {agent[name] for name in names}
    assert agent["NO_PROXY"] == agent["no_proxy"]


def test_envoys_configuration_is_the_rendered_one(config: Config, envoy: dict[str, Any]) -> None:
    """`envoy.yaml` is what `authz envoy` makes of `authz.yaml`, in both overlays."""
    assert envoy == yaml.safe_load(render(config, SidecarSettings(statistics_address=STATISTICS)))


def test_envoy_accepts_its_configuration(manifests: Manifests, tmp_path: Path) -> None:
    """`envoy --mode validate` finds nothing."""
    result = validate(manifests.files["envoy.yaml"], tmp_path)

    assert result.returncode == 0, result.stderr


def test_no_secret_stands_in_a_file() -> None:
    """No manifest is a Secret, the examples hold no values, and git ignores what a user fills in."""
    assert [
        file
        for file in KUBERNETES.rglob("*.yaml")
        if "kind: Secret" in file.read_text().splitlines()
    ] == []
    for overlay in OVERLAYS:
        example = (KUBERNETES / overlay / "env.example").read_text()
        values = [line.partition("=")[2] for line in example.splitlines() if "=" in line]
        assert all(value.startswith("''") for value in values)
        assert (KUBERNETES / overlay / ".gitignore").read_text() == ".env\n"
