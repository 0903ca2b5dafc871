"""`inject`: a pod with Envoy and authz beside its own containers. Plain data in, plain data out.

Doing it twice is doing it once. A pod in which the app could reach a credential is refused.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

from authz import __version__
from authz.injection.containment import breaches, injected_names, injected_volumes

Object = dict[str, Any]
"""A part of a Kubernetes object."""

LABEL: Final = "authz/inject"
WANTED: Final = "enabled"
INJECTED: Final = "authz/injected"
"""Annotation of a pod that was injected; its value is the version that did it."""
CONFIG: Final = "authz/config"
ENVOY_CONFIG: Final = "authz/envoy-config"
IDENTITY: Final = "authz/identity"
CLIENT_SECRET: Final = "authz/client-secret"
"""Annotations that name the pod's ConfigMaps and its Secret, where they differ from the defaults."""
_DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
_ANNOTATIONS: Final = (INJECTED, CONFIG, ENVOY_CONFIG, IDENTITY, CLIENT_SECRET)
_GROUP: Final = 65532
_GRACE: Final = 30
"""Seconds that Envoy and authz need to stop in order."""


class InjectionError(Exception):
    """The pod cannot be injected.

    Args:
        faults: Why, each with the path of the field that should change.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Additions:
    """What is the same for every pod.

    Attributes:
        image: Of authz; None for the one that fits this version.
        envoy_image: Of Envoy; None likewise.
        native: Whether Envoy and authz are native sidecars (Kubernetes 1.29), which start before the
            app's containers and stop after them.
    """

    image: str | None = None
    envoy_image: str | None = None
    native: bool = False


def is_wanted(metadata: Mapping[str, Any]) -> bool:
    """Whether a pod's metadata asks for injection."""
    return (metadata.get("labels") or {}).get(LABEL) == WANTED


def inject(metadata: Object, spec: Object, additions: Additions) -> tuple[Object, Object]:
    """Return metadata and spec of the pod with Envoy and authz in it; the arguments stay as they are.

    Raises:
        InjectionError: With every fault.
    """
    metadata, spec = deepcopy(metadata), deepcopy(spec)
    annotations = metadata["annotations"] = metadata.get("annotations") or {}
    if INJECTED in annotations:
        _remove(spec)
    faults = [
        *_faults_of_annotations(annotations),
        *_faults_of_end(spec, additions),
        *breaches(metadata, spec, _parts()),
    ]
    if faults:
        raise InjectionError(faults)
    parts = _parts_for(annotations, additions)
    app = spec["containers"]
    for container in (*app, *((spec.get("initContainers") or ()) if additions.native else ())):
        given = {variable["name"] for variable in container.get("env") or ()}
        more = [variable for variable in parts["app"] if variable["name"] not in given]
        container["env"] = [*(container.get("env") or ()), *more]
    annotations.setdefault(_DEFAULT_CONTAINER, app[0]["name"])
    annotations[INJECTED] = __version__
    if additions.native:
        # authz first: Envoy's own start probe waits for its secrets.
        sidecars = [_native(container) for container in reversed(parts["containers"])]
        spec["initContainers"] = [
            *parts["initContainers"],
            *sidecars,
            *(spec.get("initContainers") or ()),
        ]
    else:
        spec["initContainers"] = [*parts["initContainers"], *(spec.get("initContainers") or ())]
        spec["containers"] = [*app, *parts["containers"]]
        grace = spec.get("terminationGracePeriodSeconds")
        spec["terminationGracePeriodSeconds"] = max(_GRACE, _GRACE if grace is None else grace)
    spec["volumes"] = [*(spec.get("volumes") or ()), *parts["volumes"]]
    spec["securityContext"] = _with_group(spec.get("securityContext") or {})
    return metadata, spec


@cache
def _parts() -> Object:
    found: Object = yaml.safe_load(files(__package__).joinpath("parts.yaml").read_text("utf-8"))
    return found


def _parts_for(annotations: Mapping[str, str], additions: Additions) -> Object:
    parts = deepcopy(_parts())
    secret = annotations.get(CLIENT_SECRET)
    credential = parts["credentials"]["client-secret" if secret else "workload-identity"]
    if secret:
        credential["volume"]["secret"]["secretName"] = secret
    parts["volumes"].append(credential["volume"])
    config_maps = {
        "authz-config": annotations.get(CONFIG),
        "envoy-config": annotations.get(ENVOY_CONFIG),
    }
    for volume in parts["volumes"]:
        if config_maps.get(volume["name"]):
            volume["configMap"]["name"] = config_maps[volume["name"]]
    for container in (*parts["initContainers"], *parts["containers"]):
        image = additions.envoy_image if container["name"] == "envoy" else additions.image
        container["image"] = image or container["image"]
        if container["name"] == "envoy":
            continue
        if annotations.get(IDENTITY):
            container["envFrom"][0]["configMapRef"]["name"] = annotations[IDENTITY]
        container["env"] = [*container["env"], *credential["env"]]
        if container["name"] == "authz":
            container["volumeMounts"].append(credential["mount"])
    return parts


def _native(container: Object) -> Object:
    # It is stopped after the app, so it need not wait for it.
    rest = {key: value for key, value in container.items() if key != "lifecycle"}
    return {**rest, "restartPolicy": "Always"}


def _with_group(security: Object) -> Object:
    """Let Envoy and authz share what belongs to the group: the socket and the credential."""
    if security.get("fsGroup") in (None, _GROUP):
        return {"fsGroupChangePolicy": "OnRootMismatch", **security, "fsGroup": _GROUP}
    groups = security.get("supplementalGroups") or []
    return {**security, "supplementalGroups": [*groups, *({_GROUP} - set(groups))]}


def _remove(spec: Object) -> None:
    """Take out what an earlier injection put in."""
    names, volumes = injected_names(_parts()), injected_volumes(_parts())
    for key in ("initContainers", "containers"):
        spec[key] = [each for each in spec.get(key) or () if each["name"] not in names]
    spec["volumes"] = [each for each in spec.get("volumes") or () if each["name"] not in volumes]


def _faults_of_end(spec: Object, additions: Additions) -> Iterator[str]:
    if not additions.native and spec.get("restartPolicy", "Always") != "Always":
        yield (
            f"spec.restartPolicy: {spec['restartPolicy']}: the pod would never end, because Envoy does "
            "not: expected native sidecars"
        )


def _faults_of_annotations(annotations: Mapping[str, Any]) -> Iterator[str]:
    for name, value in annotations.items():
        if not name.startswith("authz/"):
            continue
        if name not in _ANNOTATIONS:
            yield f"metadata.annotations[{name}]: is not known"
        elif not isinstance(value, str) or not value:
            yield f"metadata.annotations[{name}]: expected a name"
