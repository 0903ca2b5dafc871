"""The component that redirects the pod's connections: what it adds to an overlay, and the script's inputs.

What the rules do is in `test_redirected_pod`.
"""

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from authz.config import load
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import SidecarSettings, Transparent
from authz.injection.policy import render as render_policy
from authz.injection.rules import RULES
from support.kubernetes.manifests import (
    KUBERNETES,
    OVERLAYS,
    ROOT,
    STATISTICS,
    Manifests,
    intercepted,
)
from support.kubernetes.manifests import render as kustomize
from support.kubernetes.schemas import VERSIONS, check_core
from support.proxy.envoy import validate

COMPONENT: Final = KUBERNETES / "components" / "interception"
SCRIPT: Final = COMPONENT / "intercept.sh"
POLICY: Final = COMPONENT / "admission-policy.yaml"
OWN: Final = {"envoy", "authz", "check-config"}
"""Containers that may have a user whose connections are not redirected."""


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, kubectl: str) -> str:
    """Return the name of each overlay in turn."""
    return str(request.param)


@pytest.fixture
def redirected(overlay: str) -> Manifests:
    """Return each overlay with the component."""
    return intercepted(overlay)


def _dry_run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    # Rules are printed without the programs that would set them.
    command = ["sh", str(SCRIPT), "--dry-run", *arguments]
    return subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", "INTERCEPT_FORM": "nft", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def _without_hashes(objects: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    text = yaml.safe_dump_all(objects)
    found: list[dict[str, Any]] = list(
        yaml.safe_load_all(re.sub(r"\b(envoy|interception)-[a-z0-9]{10}\b", r"\1", text))
    )
    return found


def _find(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (
        item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)
    )
    return found


def _in_order_of(
    model: list[dict[str, Any]], objects: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    assert len(model) == len(objects)
    return [_find(objects, item["kind"], item["metadata"]["name"]) for item in model]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(redirected: Manifests, version: str) -> None:
    """As those of the overlays are, in `test_manifests`; the policy beside them too."""
    policies = tuple(yaml.safe_load_all(POLICY.read_text()))

    for item in (*redirected.objects, *policies):
        check_core(item, version)


def test_component_changes_nothing_but_what_it_is_for(redirected: Manifests, overlay: str) -> None:
    """Without init container, script, Envoy's configuration and the missing proxy, it is the overlay.

    So whatever other tests say of an overlay holds with the component too.
    """
    plain = _without_hashes(kustomize(KUBERNETES / overlay).objects)
    ours = _without_hashes(copy.deepcopy(redirected.objects))

    ours.remove(_find(ours, "ConfigMap", "interception"))
    _find(ours, "ConfigMap", "envoy")["data"] = _find(plain, "ConfigMap", "envoy")["data"]
    pod = _find(ours, "Deployment", "agent")["spec"]["template"]["spec"]
    theirs = _find(plain, "Deployment", "agent")["spec"]["template"]["spec"]
    (agent,) = (item for item in pod["containers"] if item["name"] == "agent")
    (proxied,) = (item for item in theirs["containers"] if item["name"] == "agent")
    assert agent["env"] == []
    agent["env"] = proxied["env"]
    # First, so that the init containers after it are redirected as well.
    assert pod["initContainers"].pop(0)["name"] == "intercept"
    (volume,) = (item for item in pod["volumes"] if item["name"] == "interception")
    pod["volumes"].remove(volume)

    # kustomize orders what a patch has touched anew; the order counts among init containers only.
    for each in (pod, theirs):
        for kind in ("containers", "volumes"):
            each[kind].sort(key=lambda item: str(item["name"]))
    assert ours == _in_order_of(ours, plain)


def test_init_container_has_one_right_more_and_no_other(redirected: Manifests) -> None:
    """Root and NET_ADMIN, which Kubernetes gives to nobody else, and nothing besides."""
    container = redirected.containers["intercept"]

    assert container.security == {
        "runAsNonRoot": False,
        "runAsUser": 0,
        "runAsGroup": 0,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
    }
    assert set(container.mounts) == {"interception"}
    assert container.mounts["interception"]["readOnly"] is True
    assert {"requests", "limits"} == set(container.spec["resources"])
    for name, other in redirected.containers.items():
        if name != "intercept":
            assert other.security["capabilities"] == {"drop": ["ALL"]}


def test_only_envoy_and_authz_are_excluded(redirected: Manifests) -> None:
    """The script leaves their users alone, and no other container has one of them."""
    excluded = set(redirected.containers["intercept"].variables["EXCLUDE_UIDS"].split(","))
    users = {
        name: str(container.security["runAsUser"])
        for name, container in redirected.containers.items()
    }

    assert excluded == {users["envoy"], users["authz"]}
    assert not excluded & {user for name, user in users.items() if name not in OWN}


def test_policy_is_the_rendered_one() -> None:
    """`make docs` makes it of the rules of injection: there is no second truth."""
    assert POLICY.read_text() == render_policy()


def test_the_page_puts_images_into_the_policy() -> None:
    """By the command as it is printed, which would change nothing if the file were written otherwise."""
    page = (ROOT / "docs" / "interception.md").read_text()
    (command,) = (
        block
        for block in re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        if block.startswith("sed ")
    )
    printed = command.replace("kubectl apply --filename -", "cat")
    done = subprocess.run(printed, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S602

    policy, _ = yaml.safe_load_all(done.stdout)
    images = yaml.safe_load(policy["spec"]["variables"][0]["expression"])

    assert {
        "authz": ["registry.example/entra-authz"],
        "envoy": ["docker.io/envoyproxy/envoy"],
        "intercept": ["registry.example/intercept"],
    } == images


def test_policy_has_every_rule_of_injection_that_a_pod_shows_afterwards() -> None:
    """But for names that are taken only until something is injected."""
    policy, _ = yaml.safe_load_all(POLICY.read_text())
    messages = [each["message"] for each in policy["spec"]["validations"]]

    missing = [rule for rule in RULES if not any(rule.expected in text for text in messages)]

    assert [rule for rule in RULES if rule.before] == missing
    # The kinds of volumes have no row, nor have the rights of the pod's account.
    rows = [text for text in messages if not text.startswith("spec.serviceAccountName: ")]
    assert len(rows) == len(set(rows)) == len(RULES) - len(missing) + 1


def test_policy_speaks_of_the_same_users(redirected: Manifests) -> None:
    """Admission refuses for other containers what the script excludes."""
    policy, _ = yaml.safe_load_all(POLICY.read_text())
    variables = {item["name"]: item["expression"] for item in policy["spec"]["variables"]}
    excluded = redirected.containers["intercept"].variables["EXCLUDE_UIDS"]

    assert sorted(yaml.safe_load(variables["users"])) == sorted(map(int, excluded.split(",")))


def test_envoys_configuration_is_the_rendered_one(
    redirected: Manifests, identity: dict[str, str], tmp_path: Path
) -> None:
    """`authz envoy --transparent pass-tls` makes it of `authz.yaml`, and Envoy accepts it."""
    file = tmp_path / "authz.yaml"
    file.write_text(redirected.files["authz.yaml"])
    environment = {**redirected.containers["authz"].variables, **identity}
    settings = SidecarSettings(transparent=Transparent.PASS_TLS, statistics_address=STATISTICS)

    expected = render(load(file, environment).config, settings)

    assert yaml.safe_load(redirected.files["envoy.yaml"]) == yaml.safe_load(expected)
    outcome = validate(redirected.files["envoy.yaml"], tmp_path)
    assert outcome.returncode == 0, outcome.stderr


def test_envoy_listens_where_connections_are_redirected_to(redirected: Manifests) -> None:
    """The port of the rules is the one of the egress listener, on both loopback addresses."""
    port = int(redirected.containers["intercept"].variables["ENVOY_PORT"])
    listeners = yaml.safe_load(redirected.files["envoy.yaml"])["static_resources"]["listeners"]
    (egress,) = (item for item in listeners if item["name"] == "egress")
    addresses = [egress["address"], *(item["address"] for item in egress["additional_addresses"])]

    assert [item["socket_address"] for item in addresses] == [
        {"address": "127.0.0.1", "port_value": port},
        {"address": "::1", "port_value": port},
    ]


def test_script_of_the_config_map_is_run(redirected: Manifests) -> None:
    """It is the shipped file, where the command looks for it, and takes the manifest's variables."""
    container = redirected.containers["intercept"]
    folder = container.mounts["interception"]["mountPath"]

    assert container.spec["command"] == ["/bin/sh", f"{folder}/intercept.sh"]
    assert redirected.files["intercept.sh"] == SCRIPT.read_text()
    assert _dry_run(**container.variables).returncode == 0


def test_linters_find_nothing() -> None:
    """ShellCheck and hadolint, each where it is installed."""
    hadolint = Path(sys.executable).with_name("hadolint")
    commands = []
    if hadolint.exists():
        commands.append(
            [str(hadolint), "--failure-threshold", "style", str(COMPONENT / "Dockerfile")]
        )
    if (shellcheck := shutil.which("shellcheck")) is not None:
        commands.append([shellcheck, str(SCRIPT)])
    if not commands:
        pytest.skip(
            "neither ShellCheck nor hadolint is installed: hadolint has no wheel for this machine"
        )

    outcomes = [
        subprocess.run(command, capture_output=True, text=True, check=False) for command in commands
    ]

    assert all((0, "") == (outcome.returncode, outcome.stdout) for outcome in outcomes)


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        ({"EXCLUDE_UIDS": ""}, "EXCLUDE_UIDS", "not set"),
        *(
            ({"EXCLUDE_UIDS": text}, "EXCLUDE_UIDS", text)
            for text in ("0", "envoy", "-1", "4294967295", "1,,2", "1,", ",1", "1 2", "01", "$(id)")
        ),
        *(
            ({"ENVOY_PORT": text}, "ENVOY_PORT", text)
            for text in ("0", "65536", "15001;", "http", "015001", "99999999999999999999")
        ),
        *(
            ({name: text}, name, text)
            for name in ("EXCLUDE_PORTS", "REJECT_UDP_PORTS")
            for text in ("0", "53,", "1-2", "53 80", "*")
        ),
        *(
            ({"EXCLUDE_CIDRS": text}, "EXCLUDE_CIDRS", text)
            for text in (
                "10.0.0.0/0",
                "::/0",
                "10.0.0.0/33",
                "fd00::/129",
                "10.0.0",
                "10.0.0.0.",
                "10.0.0.256",
                "10.0.0.01",
                "fd00:::1",
                "fd00::1::2",
                "1:2:3:4:5:6:7",
                "1:2:3:4:5:6:7:8:9",
                "fd00:",
                "::ffff:10.0.0.1",
                "fe80::1%eth0",
                "example.com",
                "10.0.0.0/8 drop",
                "10.0.0.0/8\n",
                "/8",
            )
        ),
        ({"INTERCEPT_FORM": "ipvs"}, "INTERCEPT_FORM", "ipvs"),
    ],
)
def test_bad_variable_is_named(variables: Mapping[str, str], name: str, value: str) -> None:
    """The message has name and value; no rule is printed, none would be set."""
    result = _dry_run(**{"EXCLUDE_UIDS": "65532", **variables})

    assert (result.returncode, result.stdout) == (2, "")
    assert name in result.stderr
    assert value in result.stderr


def test_all_faults_are_told_at_once() -> None:
    """One run, one list."""
    result = _dry_run(EXCLUDE_UIDS="x", ENVOY_PORT="y", EXCLUDE_CIDRS="10.0.0.0/8,z")

    assert [line.split(":")[0].strip() for line in result.stderr.splitlines()[1:]] == [
        "ENVOY_PORT",
        "EXCLUDE_UIDS",
        "EXCLUDE_CIDRS",
    ]


@pytest.mark.parametrize("form", ["nft", "iptables"])
def test_rules_are_printed(form: str) -> None:
    """Every entry of every list is in them, and the lists may be empty."""
    full = _dry_run(
        *("--form", form),
        EXCLUDE_UIDS="4711,4712",
        ENVOY_PORT="15999",
        EXCLUDE_CIDRS="10.1.0.0/16,fd12::/16,192.0.2.1,2001:db8::1",
        EXCLUDE_PORTS="5432,6379",
        REJECT_UDP_PORTS="443,8443",
    )
    bare = _dry_run("--form", form, EXCLUDE_UIDS="4711", EXCLUDE_PORTS="", REJECT_UDP_PORTS="")

    assert (full.returncode, full.stderr, bare.returncode, bare.stderr) == (0, "", 0, "")
    for text in ("4711", "4712", "15999", "10.1.0.0/16", "fd12::/16", "192.0.2.1", "2001:db8::1"):
        assert full.stdout.count(text) in {1, 2, 4}, text
    for text in ("5432", "6379", "443", "8443"):
        assert f"dport {text}" in full.stdout
    assert "dport" not in bare.stdout


def test_unknown_argument_is_refused() -> None:
    """Rather than ignored: it may have been meant to keep something out."""
    result = _dry_run("--dryrun", EXCLUDE_UIDS="1")

    assert (result.returncode, result.stdout) == (2, "")
    assert "--dryrun" in result.stderr


def test_routes_of_ones_own_go_on_top(overlay: str, kubectl: str, tmp_path: Path) -> None:
    """Merged in a second kustomization they count; in the component's own its file would win."""
    (tmp_path / "kubernetes").symlink_to(KUBERNETES)
    (below := tmp_path / "below").mkdir()
    own = "configMapGenerator: [{name: envoy, behavior: merge, files: [envoy.yaml]}]\n"
    both = f"resources: [../kubernetes/{overlay}]\ncomponents: [../kubernetes/components/interception]\n"
    (below / "kustomization.yaml").write_text(both)
    (on_top := tmp_path / "on-top").mkdir()
    (on_top / "kustomization.yaml").write_text(f"resources: [../below]\n{own}")
    (at_once := tmp_path / "at-once").mkdir()
    (at_once / "kustomization.yaml").write_text(both + own)
    for folder in (on_top, at_once):
        (folder / "envoy.yaml").write_text("routes: mine\n")

    assert kustomize(on_top).files["envoy.yaml"] == "routes: mine\n"
    assert kustomize(at_once).files["envoy.yaml"] == (COMPONENT / "envoy.yaml").read_text()
