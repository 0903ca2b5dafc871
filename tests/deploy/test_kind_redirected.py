"""The pod of `kubernetes/kind` with the component that redirects its connections, in containers.

The component's own image runs its script as an init container of the pod, in the pod's network and with no
right but that of the manifest; the agent has no proxy variable. `test_redirected_pod` has what is caught.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from authz.config import load
from authz.envoy_config.bootstrap import render as render_envoy
from authz.envoy_config.settings import SidecarSettings, Transparent
from support.kubernetes.engine import Engine
from support.kubernetes.images import INTERCEPT, build_intercept_image
from support.kubernetes.laptop import Laptop, checkout, missing, up
from support.kubernetes.manifests import render

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def laptop(development_images: Engine, kubectl: str) -> Iterator[Laptop]:
    """Return the laptop whose agent is redirected: the overlay with the component, as its README says."""
    if (reason := missing()) is not None:
        pytest.skip(f"there is no network between the pods: {reason}")
    build_intercept_image(development_images)
    folder = Path(tempfile.mkdtemp(prefix="authz-kind-"))
    folder.chmod(0o755)
    copy = checkout(folder / "checkout")
    _redirect(copy / "kubernetes/kind/workload-identity")
    try:
        with up(development_images, kubectl, copy) as found:
            yield found
    finally:
        shutil.rmtree(folder)


def _redirect(overlay: Path) -> None:
    """Put the component on top of an overlay, and on top of that a rendering of the overlay's own routes."""
    (variables,) = [
        one["data"] for one in render(overlay).all("ConfigMap") if "TENANT_ID" in one["data"]
    ]
    authority = Path("/etc/development-ca/ca.crt")
    text = (overlay.parent / "agent/authz.yaml").read_text()
    (overlay / "authz.yaml").write_text(text.replace(str(authority), str(overlay / "authz.yaml")))
    config = load(overlay / "authz.yaml", {**variables, "AZURE_FEDERATED_TOKEN_FILE": "any"}).config
    settings = SidecarSettings(transparent=Transparent("pass-tls"), upstream_ca_file=authority)
    (overlay / "envoy.yaml").write_text(render_envoy(config, settings))
    shutil.copytree(overlay, overlay.with_name("before"))
    name, _, tag = INTERCEPT.removeprefix("localhost/").partition(":")
    below = {
        "resources": ["../before"],
        "components": ["../../components/interception"],
        "images": [{"name": "intercept", "newName": name, "newTag": tag}],
    }
    (overlay.parent / "redirected").mkdir()
    (overlay.parent / "redirected/kustomization.yaml").write_text(yaml.safe_dump(below))
    routes = {"name": "envoy", "behavior": "merge", "files": ["envoy.yaml"]}
    on_top = {"namespace": "agent", "resources": ["../redirected"], "configMapGenerator": [routes]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(on_top))


def test_an_agent_without_proxy_variable_gets_its_tokens(laptop: Laptop) -> None:
    """Its calls reach Envoy by the kernel's rules, and the API sees the agent acting for the user."""
    environment = laptop.node.within("agent", "agent", "env").stdout

    status, body = laptop.ask("/my-orders", laptop.mint("alice"))

    assert "proxy" not in environment.lower()
    assert (status, body.get("by_an_agent")) == (200, True), body
    assert laptop.ask("/jobs/nightly", laptop.mint("alice"))[0] == 200


def test_other_hosts_are_refused_and_no_right_is_left(laptop: Laptop) -> None:
    """What no route names ends at Envoy, and the agent has no right with which rules could be changed."""
    stranger = f"http://{laptop.node.address('emulator')}/"
    status, body = laptop.ask(f"/fetch?url={stranger}", laptop.mint("alice"))
    rights = laptop.node.within("agent", "agent", "grep", "CapBnd", "/proc/self/status").stdout

    assert (status, body["reason"]) == (403, "unknown_route")
    assert rights.split() == ["CapBnd:", "0" * 16]
