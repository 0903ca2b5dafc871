"""`breaches`: why a pod's app would get at Envoy's place, at the socket, or at a credential.

Envoy and authz protect nothing from an app that shares their network with others, their memory, their
users or their volumes. Such pods are refused, each with the field that should change.
"""

from collections.abc import Iterator
from typing import Any, Final

Object = dict[str, Any]

_EGRESS_PORT: Final = 15001
_SHARED: Final = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
_VOUCHING: Final = "azureadtokenexchange"
_WEBHOOK_LABEL: Final = "azure.workload.identity/use"
_CAPABILITIES: Final = {"ALL", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE"}
"""With one of these a container reaches past what Kubernetes puts around it."""


def injected_names(parts: Object) -> set[str]:
    """Return the names of the containers that are added."""
    return {each["name"] for each in (*parts["initContainers"], *parts["containers"])}


def injected_volumes(parts: Object) -> set[str]:
    """Return the names of the volumes that are added."""
    credentials = {each["volume"]["name"] for each in parts["credentials"].values()}
    return {volume["name"] for volume in parts["volumes"]} | credentials


def breaches(metadata: Object, spec: Object, parts: Object) -> Iterator[str]:
    """Return every fault of a pod that is to be injected.

    Args:
        metadata: The pod's.
        spec: The pod's, as its author wrote it.
        parts: What is added.
    """
    for key in _SHARED:
        if spec.get(key):
            yield f"spec.{key}: expected false: what is shared is not contained"
    if (metadata.get("labels") or {}).get(_WEBHOOK_LABEL) == "true":
        yield (
            f"metadata.labels[{_WEBHOOK_LABEL}]: leave it out: Azure's webhook gives the credential to "
            "the app as well"
        )
    if not spec.get("containers"):
        yield "spec.containers: expected the app"
    yield from _of_volumes(spec, injected_volumes(parts))
    pod_user = (spec.get("securityContext") or {}).get("runAsUser")
    for key in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(key) or ()):
            yield from _of_container(f"spec.{key}[{index}]", container, pod_user, parts)


def _of_volumes(spec: Object, taken: set[str]) -> Iterator[str]:
    for index, volume in enumerate(spec.get("volumes") or ()):
        path = f"spec.volumes[{index}]"
        if volume["name"] in taken:
            yield f"{path}.name: {volume['name']} is the name of an injected volume"
        for source in (volume.get("projected") or {}).get("sources") or ():
            audience = (source.get("serviceAccountToken") or {}).get("audience") or ""
            if _VOUCHING in audience.lower():
                yield f"{path}.projected: a token for {audience} is the credential itself"


def _of_container(path: str, container: Object, pod_user: Any, parts: Object) -> Iterator[str]:
    if container["name"] in injected_names(parts):
        yield f"{path}.name: {container['name']} is the name of an injected container"
    security = container.get("securityContext") or {}
    if security.get("privileged"):
        yield f"{path}.securityContext.privileged: expected false: it reaches every credential"
    for capability in (security.get("capabilities") or {}).get("add") or ():
        if str(capability).upper().removeprefix("CAP_") in _CAPABILITIES:
            yield f"{path}.securityContext.capabilities.add: {capability} reaches past Envoy"
    user = security.get("runAsUser", pod_user)
    users = {each["securityContext"]["runAsUser"]: each["name"] for each in parts["containers"]}
    if user in users:
        yield f"{path}.securityContext.runAsUser: {user} is the user of {users[user]}"
    taken = injected_volumes(parts)
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        if mount["name"] in taken:
            yield f"{path}.volumeMounts[{number}].name: {mount['name']} is not the app's"
    ports = {port["containerPort"] for each in parts["containers"] for port in each["ports"]}
    for number, port in enumerate(container.get("ports") or ()):
        if port.get("containerPort") in ports | {_EGRESS_PORT}:
            number_taken = port["containerPort"]
            yield f"{path}.ports[{number}].containerPort: {number_taken} is Envoy's or authz's"
