"""The component for HTTPS that the agent starts itself: what it adds, and that its parts fit together.

What becomes of the calls is in `test_redirected_pod`.
"""

import copy
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from authz.config import Config, load
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import SidecarSettings, Transparent
from support.kubernetes.manifests import (
    KUBERNETES,
    OVERLAYS,
    ROOT,
    STATISTICS,
    Manifests,
    composed,
    intercepted,
    with_https,
)
from support.kubernetes.manifests import render as kustomize
from support.kubernetes.schemas import check
from support.proxy.envoy import validate

KEY: Final = "authz-ca"
TRUST: Final = "authz-trust"
PAGE: Final = ROOT / "docs" / "https.md"


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, kubectl: str) -> str:
    """Return the name of each overlay in turn."""
    return str(request.param)


@pytest.fixture
def manifests(overlay: str) -> Manifests:
    """Return each overlay with interception and the component."""
    return with_https(overlay)


@pytest.fixture
def config(manifests: Manifests, identity: dict[str, str], tmp_path: Path) -> Config:
    """Return the configuration of the pod, as authz reads it there."""
    return _load(manifests, identity, tmp_path)


def _load(
    manifests: Manifests, identity: Mapping[str, str], folder: Path, container: str = "authz"
) -> Config:
    file = folder / "authz.yaml"
    file.write_text(manifests.files["authz.yaml"])
    loaded = load(file, {**manifests.containers[container].variables, **identity})
    assert loaded.warnings == ()
    return loaded.config


def _named(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in items}


def _pod(manifests: Manifests) -> dict[str, Any]:
    text = re.sub(
        r"\b(authz|envoy|interception|agent-identity)-[a-z0-9]{10}\b",
        r"\1",
        yaml.safe_dump(manifests.pod),
    )
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@pytest.mark.parametrize("components", [("interception", "https"), ("https",)])
def test_every_object_is_valid(overlay: str, components: tuple[str, ...]) -> None:
    """As those of the overlays are; also where something else redirects."""
    for item in composed(overlay, *components).objects:
        check(item)


def test_agent_keeps_its_proxy_where_nothing_is_redirected(overlay: str) -> None:
    """Then that is what leads its TLS to Envoy, and the pod needs no right that an ordinary one has not."""
    pod = composed(overlay, "https")

    plain = kustomize(KUBERNETES / overlay).containers["agent"].variables
    assert plain.items() <= pod.containers["agent"].variables.items()
    assert plain["HTTPS_PROXY"] == plain["HTTP_PROXY"]
    assert {"check-config"} == {each["name"] for each in pod.pod["initContainers"]}


def test_component_changes_nothing_but_what_it_is_for(manifests: Manifests, overlay: str) -> None:
    """Without volumes, variables and Envoy's configuration, it is the overlay with interception."""
    plain, ours = _pod(intercepted(overlay)), _pod(manifests)
    agent = _named(ours["containers"])["agent"]
    check_config = _named(ours["initContainers"])["check-config"]

    assert check_config["args"].pop() == "--prepare"
    agent["env"] = []
    for container in (agent, check_config, _named(ours["containers"])["authz"]):
        for key in ("env", "volumeMounts"):
            container[key] = [
                item
                for item in container[key]
                if not item["name"].startswith("AUTHZ_HTTPS_") and item["name"] not in (KEY, TRUST)
            ]
    ours["volumes"] = [item for item in ours["volumes"] if item["name"] not in (KEY, TRUST)]

    for pod in (plain, ours):
        for kind in ("initContainers", "containers", "volumes"):
            pod[kind].sort(key=lambda item: str(item["name"]))
    assert ours == plain
    others = [copy.deepcopy(m.objects) for m in (intercepted(overlay), manifests)]
    kinds = [sorted(item["kind"] for item in objects) for objects in others]
    assert kinds[0] == kinds[1]


def test_mounts_and_volumes_pair_up(manifests: Manifests) -> None:
    """Every mount has its volume, every volume is mounted somewhere, and none lies inside of another."""
    volumes = {volume["name"] for volume in manifests.pod["volumes"]}
    mounted = {name for one in manifests.containers.values() for name in one.mounts}

    assert mounted == volumes
    for container in manifests.containers.values():
        paths = [Path(mount["mountPath"]) for mount in container.mounts.values()]
        assert [p for p in paths for q in paths if p != q and p.is_relative_to(q)] == []


def test_the_key_is_authzs_alone(manifests: Manifests) -> None:
    """In memory, as is what the agent trusts; the agent may read that and nothing else, Envoy neither."""
    holders = {
        volume: {name for name, one in manifests.containers.items() if volume in one.mounts}
        for volume in (KEY, TRUST)
    }
    volumes = _named(manifests.pod["volumes"])

    assert holders == {KEY: {"check-config", "authz"}, TRUST: {"check-config", "authz", "agent"}}
    assert set(manifests.containers["agent"].mounts) == {TRUST, "agent-tmp"}
    assert manifests.containers["agent"].mounts[TRUST]["readOnly"] is True
    assert [volumes[name]["emptyDir"]["medium"] for name in (KEY, TRUST)] == ["Memory", "Memory"]
    assert manifests.containers["agent"].security["runAsUser"] not in {
        manifests.containers[name].security["runAsUser"] for name in holders[KEY]
    }


def test_files_are_written_before_the_agent_starts(
    manifests: Manifests, config: Config, identity: dict[str, str], tmp_path: Path
) -> None:
    """By an init container that reads what authz reads, and has the same volumes in the same places."""
    names = ("check-config", "authz")
    mounts = [
        {volume: manifests.containers[name].mounts[volume] for volume in (KEY, TRUST)}
        for name in names
    ]

    assert config == _load(manifests, identity, tmp_path, "check-config")
    assert mounts[0] == mounts[1]
    assert all("readOnly" not in mount for mount in mounts[0].values())
    assert config.https is not None
    assert config.https.key_file.parent == Path(mounts[0][KEY]["mountPath"])
    trusted = {config.https.ca_file, config.https.bundle_file, config.https.truststore_file}
    assert {file.parent for file in trusted if file} == {Path(mounts[0][TRUST]["mountPath"])}


def test_the_agents_variables_name_files_that_there_are(
    manifests: Manifests, config: Config
) -> None:
    """Those that replace all authorities name the bundle; the one that adds names the authority alone."""
    agent = manifests.containers["agent"]
    assert config.https is not None
    bundle, alone = str(config.https.bundle_file), str(config.https.ca_file)

    assert agent.variables == {
        **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), bundle),
        "NODE_EXTRA_CA_CERTS": alone,
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": bundle,
    }
    assert agent.mounts[TRUST]["mountPath"] == str(config.https.ca_file.parent)


def test_the_page_names_the_same_variables_and_files(manifests: Manifests, config: Config) -> None:
    """docs/https.md: what to give an app by hand is what the component gives, and Java's file is there."""
    named = dict(re.findall(r"`(\w+)=(/run/\S+)`", PAGE.read_text()))
    (java,) = re.findall(r"-Djavax\.net\.ssl\.trustStore=(/run/[\w/.-]+)", PAGE.read_text())

    assert named == manifests.containers["agent"].variables
    assert config.https is not None
    assert java == str(config.https.truststore_file)


def test_envoys_configuration_is_the_rendered_one(
    manifests: Manifests, config: Config, tmp_path: Path
) -> None:
    """`authz envoy --transparent pass-tls` makes it with the pod's variables, and Envoy accepts it."""
    expected = render(
        config, SidecarSettings(transparent=Transparent.PASS_TLS, statistics_address=STATISTICS)
    )

    assert yaml.safe_load(manifests.files["envoy.yaml"]) == yaml.safe_load(expected)
    outcome = validate(manifests.files["envoy.yaml"], tmp_path)
    assert outcome.returncode == 0, outcome.stderr


def test_the_pages_command_renders_with_the_same_variables(manifests: Manifests) -> None:
    """What the page sets before `authz envoy` are variables of the manifests; the rest are placeholders."""
    (block,) = re.findall(
        r"^```sh\n(.*?authz envoy .*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    words = shlex.split(block.replace("\\\n", " "))
    given = dict(word.split("=", 1) for word in words if word.startswith("AUTHZ_HTTPS_"))

    assert given.items() <= manifests.containers["authz"].variables.items()
    assert {"AUTHZ_HTTPS_CA_FILE", "AUTHZ_HTTPS_KEY_FILE"} <= given.keys()
    assert words[words.index("--transparent") + 1] == "pass-tls"
