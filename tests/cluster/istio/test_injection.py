"""What Istio's injector makes of the overlay's pod, with the template and the values of its own chart.

`TEST_ASSET_ISTIO_CHART` names the chart `istio-discovery` of pilot's version.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from support.istio.mesh import AGENTS, pod_of
from support.istio.meshed import ISTIO_PROXY
from support.istio.pilot import CHART, Pilot, find_chart
from support.kubernetes.apiserver import ApiServer
from support.kubernetes.manifests import Manifests, Object

pytestmark = pytest.mark.cluster


@pytest.fixture
def injected(pilot: Pilot, overlay: Manifests) -> Object:
    """Return the pod with Istio's proxy in it, or skip."""
    if find_chart() is None:
        pytest.skip(f"nothing is injected: set {CHART} (CONTRIBUTING.md)")
    return pilot.inject(AGENTS, pod_of(overlay))


def test_the_proxy_reaches_authz_and_the_agent_does_not(injected: Object) -> None:
    """The annotation mounts the socket's folder, read-only; nothing else changes who has it."""
    containers = _containers(injected)
    holders = {name for name, one in containers.items() if "authz-socket" in _mounts(one)}

    assert {"istio-proxy", "authz"} == holders
    mount = _mounts(containers["istio-proxy"])["authz-socket"]
    assert {"mountPath": "/run/authz", "name": "authz-socket", "readOnly": True} == mount


def test_the_proxy_may_use_the_socket(injected: Object) -> None:
    """It runs as a user of its own, without root, and the pod's group makes it a member of the socket's."""
    security = _containers(injected)["istio-proxy"]["securityContext"]
    users = {
        name: one["securityContext"]["runAsUser"] for name, one in _containers(injected).items()
    }

    assert ISTIO_PROXY == security["runAsUser"] == security["runAsGroup"]
    assert 65532 == injected["spec"]["securityContext"]["fsGroup"]
    others = {"agent", "authz", "check-config"}
    assert not {users[name] for name in others} & {ISTIO_PROXY}


def test_probes_of_authz_still_ask_authz(injected: Object) -> None:
    """The kubelet asks Istio's agent, which knows where each probe was for."""
    (probers,) = [
        json.loads(one["value"])
        for one in _containers(injected)["istio-proxy"]["env"]
        if one["name"] == "ISTIO_KUBE_APP_PROBERS"
    ]
    authz = _containers(injected)["authz"]

    for kind, path in (("readiness", "/readyz"), ("liveness", "/livez"), ("startup", "/livez")):
        asked = authz[f"{kind}Probe"]["httpGet"]
        assert {"path": path, "port": 9902} == {
            key: probers[asked["path"]]["httpGet"][key] for key in ("path", "port")
        }


def test_the_agent_is_not_changed(injected: Object, overlay: Manifests) -> None:
    """Nothing is mounted into its container but what the overlay gives it."""
    agent = _containers(injected)["agent"]

    assert {"agent-tmp"} == set(_mounts(agent))
    assert [] == agent.get("env", [])


def test_the_proxy_starts_before_what_needs_it(injected: Object) -> None:
    """As a native sidecar it is up before `check-config`, and stays until agent and authz have ended."""
    order = [one["name"] for one in injected["spec"]["initContainers"]]

    assert order.index("istio-proxy") < order.index("check-config")
    assert "Always" == _containers(injected)["istio-proxy"]["restartPolicy"]


def test_a_restricted_namespace_takes_the_injected_pod(injected: Object, server: ApiServer) -> None:
    """With Istio's CNI plugin the pod keeps to the profile; and nothing of the one is in the other's way."""
    answer = server.post(
        f"/api/v1/namespaces/{AGENTS}/pods",
        {**injected, "metadata": {**injected["metadata"], "name": "injected"}},
        dryRun="All",
    )

    assert answer.is_success, answer.text


def _containers(pod: Object) -> Mapping[str, Any]:
    spec = pod["spec"]
    return {one["name"]: one for one in (*spec["initContainers"], *spec["containers"])}


def _mounts(container: Object) -> Mapping[str, Any]:
    return {mount["name"]: mount for mount in container.get("volumeMounts", ())}
