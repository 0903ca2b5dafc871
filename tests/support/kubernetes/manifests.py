"""`Manifests`: a kustomize overlay as `kubectl kustomize` renders it, with names for its parts.

Nothing here judges; the rules are in `tests/deploy`.
"""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[3]
KUBERNETES: Final = ROOT / "kubernetes"
OVERLAYS: Final = ("client-secret-file", "workload-identity")
STATISTICS: Final = "0.0.0.0:9903"
"""Where the Envoys of the manifests have their statistics."""
"""Those of the sidecar with an Envoy of our own, which `deploy.sh` deploys."""
TOPOLOGIES: Final = (
    "istio-sidecar",
    "istio-sidecar/mesh",
    "shared",
    "shared/client",
    "envoy-gateway",
)
"""The others."""
CREDENTIALS: Final = (
    "certificate",
    "client-secret",
    "workload-identity",
    "workload-identity-aks",
)
"""Components that any overlay with authz in it takes."""

Object = dict[str, Any]
"""One Kubernetes object, or a part of one, as plain data."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of the pod, init containers included."""

    spec: Object

    @property
    def security(self) -> Object:
        """Its security context."""
        found: Object = self.spec["securityContext"]
        return found

    @property
    def ports(self) -> Mapping[str, int]:
        """Numbers of its ports by name."""
        return {port["name"]: port["containerPort"] for port in self.spec.get("ports", [])}

    @property
    def probes(self) -> Mapping[str, Object]:
        """Its probes by kind: startup, readiness, liveness."""
        kinds = ("startup", "readiness", "liveness")
        return {kind: self.spec[f"{kind}Probe"] for kind in kinds if f"{kind}Probe" in self.spec}

    @property
    def variables(self) -> Mapping[str, str]:
        """The variables that have their value in the manifest."""
        return {variable["name"]: variable["value"] for variable in self.spec.get("env", [])}

    @property
    def mounts(self) -> Mapping[str, Object]:
        """Its mounts by the name of their volume."""
        return {mount["name"]: mount for mount in self.spec.get("volumeMounts", [])}

    @property
    def stop_delay(self) -> int:
        """Seconds between the order to stop the pod and this container's SIGTERM."""
        seconds: int = self.spec["lifecycle"]["preStop"]["sleep"]["seconds"]
        return seconds


@dataclass(frozen=True, slots=True)
class Manifests:
    """Every object of one overlay."""

    objects: tuple[Object, ...]

    def find(self, kind: str, name: str | None = None) -> Object:
        """Return the one object of a kind, or of a kind and name."""
        wanted = [
            item
            for item in self.objects
            if item["kind"] == kind and name in {None, item["metadata"]["name"]}
        ]
        assert len(wanted) == 1, f"{len(wanted)} objects of kind {kind} and name {name}"
        return wanted[0]

    def all(self, kind: str) -> Sequence[Object]:
        """Return every object of a kind."""
        return [item for item in self.objects if item["kind"] == kind]

    @property
    def pod(self) -> Object:
        """The specification of the Deployment's pods."""
        spec: Object = self.find("Deployment")["spec"]["template"]["spec"]
        return spec

    @property
    def containers(self) -> Mapping[str, Container]:
        """Every container of the pod by name, init containers first."""
        specs = [*self.pod.get("initContainers", ()), *self.pod["containers"]]
        return {spec["name"]: Container(spec) for spec in specs}

    @property
    def files(self) -> Mapping[str, str]:
        """Text of the files that the pod's ConfigMap volumes hold, by file name."""
        return {
            name: text
            for volume in self.pod["volumes"]
            if "configMap" in volume
            for name, text in self.find("ConfigMap", volume["configMap"]["name"])["data"].items()
        }


@cache
def render(folder: Path) -> Manifests:
    """Return what `kubectl kustomize` makes of a folder.

    Raises:
        subprocess.CalledProcessError: It refuses the folder.
    """
    rendered = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, check=True
    )
    return Manifests(tuple(yaml.safe_load_all(rendered.stdout)))


@cache
def composed(overlay: str, *components: str, namespace: str | None = None) -> Manifests:
    """Return an overlay with components on top of it, in order, as a user's own kustomization has them."""
    with tempfile.TemporaryDirectory() as folder:
        # kustomize wants relative paths, and its temporary root must see what it refers to.
        (Path(folder) / "kubernetes").symlink_to(KUBERNETES)
        document = {
            "resources": [f"kubernetes/{overlay}"],
            "components": [f"kubernetes/components/{component}" for component in components],
            **({"namespace": namespace} if namespace else {}),
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(document))
        return render(Path(folder))


def intercepted(overlay: str) -> Manifests:
    """Return an overlay with the component that redirects the pod's connections to Envoy."""
    return composed(overlay, "interception")


def with_https(overlay: str) -> Manifests:
    """Return such an overlay in whose pods Envoy ends the agent's TLS as well."""
    return composed(overlay, "interception", "https")
