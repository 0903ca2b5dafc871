"""`applied`: the objects of the Istio overlay in a real API server, with a pod of theirs and a neighbour.

The pod is as a kubelet would report it, and is nowhere; `support.istio.meshed` runs it.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest
import yaml

from support.istio.meshed import NAME, NEIGHBOUR, NEIGHBOUR_IP
from support.istio.pilot import NAMESPACE
from support.kubernetes.apiserver import ApiServer
from support.kubernetes.custom_resources import DEFINITIONS
from support.kubernetes.manifests import KUBERNETES, Manifests, Object, render
from support.kubernetes.namespaces import OTHER, POD

OVERLAY: Final = KUBERNETES / "istio-sidecar"
AGENTS: Final = "agents"
"""The namespace of the pod."""
ELSEWHERE: Final = "elsewhere"
"""A service in a namespace of its own; both have this name."""
_DEFINITIONS: Final = DEFINITIONS / "istio.yaml"
_PORTS: Final = [{"name": "http", "port": 80, "appProtocol": "http"}]


def mesh_config() -> Object:
    """Return Istio's mesh configuration, with what the overlay adds to it."""
    text = (OVERLAY / "mesh" / "meshconfig.yaml").read_text()
    found: Object = yaml.safe_load(text)["meshConfig"]
    return {"trustDomain": "cluster.local", **found}


def applied(server: ApiServer) -> Manifests:
    """Apply everything that Istio looks at, and return the overlay."""
    if not _DEFINITIONS.exists():
        pytest.skip("istio.yaml is not in ../shared/data/crds: no API server takes Istio's objects")
    run(server, "apply", "--server-side", "--filename", _DEFINITIONS)
    run(server, "wait", "--for=condition=established", "crd", "--all", "--timeout=60s")
    overlay, mesh = render(OVERLAY), render(OVERLAY / "mesh")
    apply(server, [_namespace(name) for name in (NAMESPACE, ELSEWHERE)])
    apply(server, [_namespace(AGENTS, {"pod-security.kubernetes.io/enforce": "restricted"})])
    apply(server, [_service(ELSEWHERE)], ELSEWHERE)
    apply(server, mesh.objects)
    apply(server, overlay.objects, AGENTS)
    apply(server, _neighbour(), AGENTS)
    _create_pod(server, overlay)
    return overlay


def apply(server: ApiServer, objects: Iterable[Object], namespace: str | None = None) -> None:
    """Apply objects, as strictly as the server can."""
    more = ["--namespace", namespace] if namespace else []
    text = yaml.safe_dump_all(objects)
    run(server, "apply", "--server-side", "--validate=strict", *more, "--filename=-", given=text)


def run(server: ApiServer, *arguments: str | Path, given: str | None = None) -> None:
    """Run kubectl as the administrator; it must succeed."""
    ended = server.kubectl(*arguments, given=given)
    assert ended.returncode == 0, ended.stderr


def _namespace(name: str, labels: Object | None = None) -> Object:
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def pod_of(overlay: Manifests) -> Object:
    """Return the pod that the overlay's Deployment makes, before anything is injected into it."""
    template = overlay.find("Deployment")["spec"]["template"]
    metadata = {**template["metadata"], "name": NAME, "namespace": AGENTS}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _create_pod(server: ApiServer, overlay: Manifests) -> None:
    pod = pod_of(overlay)
    pod["spec"] = {**pod["spec"], "nodeName": "node-0"}
    made = server.post(f"/api/v1/namespaces/{AGENTS}/pods", pod)
    assert made.is_success, made.text
    status = {
        "phase": "Running",
        "podIP": POD[0],
        "podIPs": [{"ip": POD[0]}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    run(
        server,
        *("patch", "pod", NAME, "--namespace", AGENTS, "--subresource=status", "--type=merge"),
        f"--patch={json.dumps({'status': status})}",
    )


def _neighbour() -> list[Object]:
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": NEIGHBOUR, "labels": {"kubernetes.io/service-name": NEIGHBOUR}},
        "addressType": "IPv4",
        "ports": [{**port, "protocol": "TCP"} for port in _PORTS],
        "endpoints": [{"addresses": [OTHER[0]], "conditions": {"ready": True}}],
    }
    return [_service(NEIGHBOUR, NEIGHBOUR_IP), slice_]


def _service(name: str, address: str | None = None) -> Object:
    fixed = {"clusterIP": address} if address else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": _PORTS, **fixed},
    }
