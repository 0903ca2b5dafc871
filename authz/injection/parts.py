"""`parts_for`: what is added to one pod, made of `parts.yaml` and of what its annotations ask for."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

from authz.injection.annotations import (
    CLIENT_SECRET,
    CONFIG,
    ENVOY_CONFIG,
    EXCLUDE_CIDRS,
    EXCLUDE_PORTS,
    HTTPS,
    IDENTITY,
    INTERCEPTION,
    INTERCEPTION_CONFIG,
    is_on,
)

Object = dict[str, Any]
"""A part of a Kubernetes object."""

_CONFIG_MAPS: Final = {
    "authz-config": CONFIG,
    "envoy-config": ENVOY_CONFIG,
    "interception": INTERCEPTION_CONFIG,
}
"""Which annotation names the ConfigMap of a volume."""
_EXCLUDED: Final = {"EXCLUDE_CIDRS": EXCLUDE_CIDRS, "EXCLUDE_PORTS": EXCLUDE_PORTS}
"""Which annotation has the value of a variable."""


@dataclass(frozen=True, slots=True)
class Additions:
    """What is the same for every pod.

    Attributes:
        image: Of authz; None for the one that fits this version.
        envoy_image: Of Envoy; None likewise.
        intercept_image: Of the container that redirects; None where no pod may ask for that.
        csi_drivers: Drivers whose volumes an app may have. Others might hand out the credential.
        native: Whether Envoy and authz are native sidecars (Kubernetes 1.29), which start before the
            app's containers and stop after them.
    """

    image: str | None = None
    envoy_image: str | None = None
    intercept_image: str | None = None
    csi_drivers: tuple[str, ...] = ()
    native: bool = False


@cache
def all_parts() -> Object:
    """Return everything that may be added to a pod. Not to be changed."""
    found: Object = yaml.safe_load(files(__package__).joinpath("parts.yaml").read_text("utf-8"))
    return found


def parts_for(annotations: Mapping[str, str], additions: Additions) -> Object:
    """Return what is added to a pod with these annotations, which have no fault."""
    parts = deepcopy(all_parts())
    secret = annotations.get(CLIENT_SECRET)
    credential = parts["credentials"]["client-secret" if secret else "workload-identity"]
    if secret:
        credential["volume"]["secret"]["secretName"] = secret
    parts["volumes"].append(credential["volume"])
    for container in (*parts["initContainers"], *parts["containers"]):
        image = additions.envoy_image if container["name"] == "envoy" else additions.image
        container["image"] = image or container["image"]
        if container["name"] == "envoy":
            continue
        if annotations.get(IDENTITY):
            container["envFrom"][0]["configMapRef"]["name"] = annotations[IDENTITY]
        container["env"] += credential["env"]
        if container["name"] == "authz":
            container["volumeMounts"].append(credential["mount"])
    if is_on(annotations, INTERCEPTION):
        _intercept(parts, annotations, additions)
    if is_on(annotations, HTTPS):
        _end_tls(parts)
    for volume in parts["volumes"]:
        name = annotations.get(_CONFIG_MAPS.get(volume["name"], ""))
        if name:
            volume["configMap"]["name"] = name
    return parts


def _intercept(parts: Object, annotations: Mapping[str, str], additions: Additions) -> None:
    container = parts["interception"]["container"]
    container["image"] = additions.intercept_image
    for variable in container["env"]:
        name = _EXCLUDED.get(variable["name"], "")
        variable["value"] = annotations.get(name, variable["value"])
    # First, so that the init containers after it are redirected as well.
    parts["initContainers"].insert(0, container)
    parts["volumes"].append(parts["interception"]["volume"])
    parts["app"]["env"] = []


def _end_tls(parts: Object) -> None:
    https = parts["https"]
    for container in (*parts["initContainers"], *parts["containers"]):
        if container["name"] not in ("check-config", "authz"):
            continue
        container["env"] += https["env"]
        container["volumeMounts"] += https["volumeMounts"]
        if container["name"] == "check-config":
            container["args"].append(https["prepare"])
    parts["volumes"] += https["volumes"]
    for key in ("env", "volumeMounts"):
        parts["app"][key] += https["app"][key]
