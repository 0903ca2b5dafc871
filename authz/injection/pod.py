"""`inject`: a pod with Envoy and authz beside its own containers. Plain data in, plain data out.

Doing it twice is doing it once. A pod in which the app could reach a credential is refused.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from authz import __version__
from authz.injection import annotations as asked
from authz.injection.annotations import INJECTED, INTERCEPTION
from authz.injection.containment import (
    breaches,
    breaches_of_debugging,
    injected_names,
    injected_volumes,
)
from authz.injection.parts import Additions, Object, all_parts, parts_for

LABEL: Final = "authz/inject"
WANTED: Final = "enabled"
_DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
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
        # Parts with our names are replaced, also the author's; everything else is judged as the author's.
        _remove(spec)
    faults = [
        *asked.faults(annotations, can_intercept=additions.intercept_image is not None),
        *_faults_of_end(spec, additions),
        *breaches(
            metadata,
            spec,
            all_parts(),
            redirected=asked.is_on(annotations, INTERCEPTION),
            csi_drivers=additions.csi_drivers,
        ),
    ]
    if faults:
        raise InjectionError(faults)
    return add(metadata, spec, additions)


def check_debugging(spec: Object) -> None:
    """Compare the ephemeral containers of an injected pod with what its author's containers may be.

    Raises:
        InjectionError: With every fault.
    """
    faults = list(breaches_of_debugging(spec, all_parts()))
    if faults:
        raise InjectionError(faults)


def add(metadata: Object, spec: Object, additions: Additions) -> tuple[Object, Object]:
    """Return a pod with Envoy and authz in it, whatever else is in it: `inject` is what judges.

    Args:
        metadata: The pod's, which may be changed. Its annotations have no fault.
        spec: The pod's, without anything of an earlier injection; may be changed.
        additions: What every pod gets.
    """
    annotations = metadata["annotations"] = metadata.get("annotations") or {}
    parts = parts_for(annotations, additions)
    app = spec["containers"]
    for container in (*app, *((spec.get("initContainers") or ()) if additions.native else ())):
        _equip(container, parts["app"])
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


def _equip(container: Object, parts: Object) -> None:
    """Give one of the app's containers what it needs; its own variables stay."""
    given = {variable["name"] for variable in container.get("env") or ()}
    more = [variable for variable in parts["env"] if variable["name"] not in given]
    container["env"] = [*(container.get("env") or ()), *more]
    if parts["volumeMounts"]:
        mounts = container.get("volumeMounts") or ()
        container["volumeMounts"] = [*mounts, *parts["volumeMounts"]]


def _native(container: Object) -> Object:
    # It is stopped after the app, so it need not wait for it. What is run before, is run for all at once.
    rest = {
        key: value
        for key, value in container.items()
        if key != "lifecycle" or "sleep" not in value["preStop"]
    }
    return {**rest, "restartPolicy": "Always"}


def _with_group(security: Object) -> Object:
    """Let Envoy and authz share what belongs to the group: the socket and the credential."""
    if security.get("fsGroup") in (None, _GROUP):
        return {"fsGroupChangePolicy": "OnRootMismatch", **security, "fsGroup": _GROUP}
    groups = security.get("supplementalGroups") or []
    return {**security, "supplementalGroups": [*groups, *({_GROUP} - set(groups))]}


def _remove(spec: Object) -> None:
    """Take out what an earlier injection put in, which may have had another form."""
    parts = all_parts()
    names, volumes = injected_names(parts), injected_volumes(parts)
    for key in ("initContainers", "containers"):
        spec[key] = [each for each in spec.get(key) or () if each["name"] not in names]
        for container in spec[key]:
            for part in ("env", "volumeMounts"):
                ours = [*parts["app"][part], *parts["https"]["app"][part]]
                if container.get(part):
                    container[part] = [each for each in container[part] if each not in ours]
    spec["volumes"] = [each for each in spec.get("volumes") or () if each["name"] not in volumes]


def _faults_of_end(spec: Object, additions: Additions) -> Iterator[str]:
    if not additions.native and spec.get("restartPolicy", "Always") != "Always":
        yield (
            f"spec.restartPolicy: {spec['restartPolicy']}: the pod would never end, because Envoy does "
            "not: expected native sidecars"
        )
