"""The init container compares Envoy's configuration with authz's: a pair that does not fit does not start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support.kubernetes.manifests import KUBERNETES, OVERLAYS, Manifests, composed, render

pytestmark = pytest.mark.thorough

COMPONENTS = ("https", "interception", "interception https")
PODS = ("istio-sidecar", *OVERLAYS, *COMPONENTS)


@pytest.fixture(params=PODS)
def pod(request: pytest.FixtureRequest, kubectl: str) -> Manifests:
    """Return each kind of pod in turn."""
    name = str(request.param)
    if name in COMPONENTS:
        return composed("client-secret-file", *name.split())
    return render(KUBERNETES / name)


def started(
    pod: Manifests, identity: dict[str, str], folder: Path, *, authz: str = "", envoy: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the init container as the pod has it, with its folders here."""
    container = pod.containers["check-config"]
    folders = {mount["mountPath"]: folder / name for name, mount in container.mounts.items()}
    for place in folders.values():
        place.mkdir()
    for mount, name, text in (
        ("/etc/authz", "authz.yaml", authz or pod.files["authz.yaml"]),
        ("/etc/envoy", "envoy.yaml", envoy or pod.files.get("envoy.yaml", "")),
    ):
        if mount in folders:
            (folders[mount] / name).write_text(text)
    variables = dict(container.variables)
    for name, value in variables.items():
        for mount, place in folders.items():
            if value.startswith(f"{mount}/"):
                variables[name] = value.replace(mount, str(place))
    return subprocess.run(
        [sys.executable, "-m", "authz", *container.spec["args"]],
        env={"PATH": os.environ["PATH"], **variables, **identity},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_pair_of_the_manifests_starts(
    pod: Manifests, identity: dict[str, str], tmp_path: Path
) -> None:
    """The init container compares wherever there is an Envoy of ours."""
    done = started(pod, identity, tmp_path)

    assert (0, "envoy" in pod.containers) == (
        done.returncode,
        "envoy.yaml was rendered from it" in done.stdout,
    ), done.stderr


def test_a_pair_that_does_not_fit_is_named_with_its_hosts(
    kubectl: str, identity: dict[str, str], tmp_path: Path
) -> None:
    """What `kubectl logs` shows of the init container, which ends there."""
    pod = render(KUBERNETES / "client-secret-file")
    document = yaml.safe_load(pod.files["authz.yaml"])
    document["egress"]["orders"] = {"hosts": ["orders.example"], "flow": "none"}
    done = started(pod, identity, tmp_path, authz=yaml.safe_dump(document))

    assert 1 == done.returncode
    assert "was rendered from another configuration: render it again" in done.stderr
    assert "  it lacks the host orders.example\n" in done.stderr


def test_an_envoy_that_was_written_by_hand_starts_with_a_warning(
    kubectl: str, identity: dict[str, str], tmp_path: Path
) -> None:
    """It does not say what it belongs to."""
    pod = render(KUBERNETES / "client-secret-file")
    done = started(pod, identity, tmp_path, envoy="static_resources: {}\n")

    assert (0, True) == (
        done.returncode,
        "does not say what it was rendered from" in done.stderr,
    ), done.stderr
