"""`breaches`: why a pod's app would get at Envoy's place, at the socket, or at a credential.

Envoy and authz protect nothing from an app that shares their network with others, their memory, their
users or their volumes. Such pods are refused, each with the field that should change. Where connections
are redirected, the rules go by users, so each container must have one, and no way to another's: the same
that kubernetes/components/interception/admission-policy.yaml demands.
"""

from collections.abc import Iterator
from typing import Any, Final

from authz.injection.parts import Object

_EGRESS_PORT: Final = 15001
_SHARED: Final = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
_VOUCHING: Final = "azureadtokenexchange"
_WEBHOOK_LABEL: Final = "azure.workload.identity/use"
_CAPABILITIES: Final = {"ALL", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE"}
"""With one of these a container reaches past what Kubernetes puts around it."""


def injected_names(parts: Object) -> set[str]:
    """Return the names of the containers that are added."""
    added = (*parts["initContainers"], *parts["containers"], parts["interception"]["container"])
    return {each["name"] for each in added}


def injected_volumes(parts: Object) -> set[str]:
    """Return the names of the volumes that are added."""
    credentials = (each["volume"] for each in parts["credentials"].values())
    more = (*credentials, parts["interception"]["volume"], *parts["https"]["volumes"])
    return {volume["name"] for volume in (*parts["volumes"], *more)}


def breaches(
    metadata: Object, spec: Object, parts: Object, *, redirected: bool = False
) -> Iterator[str]:
    """Return every fault of a pod that is to be injected.

    Args:
        metadata: The pod's.
        spec: The pod's, as its author wrote it.
        parts: What may be added.
        redirected: Whether the pod's connections are to be redirected.
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
            path = f"spec.{key}[{index}]"
            yield from _of_container(path, container, pod_user, parts)
            if redirected:
                yield from _of_redirected(f"{path}.securityContext", container, pod_user)


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
    user = _user_of(security, pod_user)
    users = {each["securityContext"]["runAsUser"]: each["name"] for each in parts["containers"]}
    if user in users:
        yield f"{path}.securityContext.runAsUser: {user} is the user of {users[user]}"
    yield from _of_mounts(path, container, parts)
    ports = {port["containerPort"] for each in parts["containers"] for port in each["ports"]}
    for number, port in enumerate(container.get("ports") or ()):
        if port.get("containerPort") in ports | {_EGRESS_PORT}:
            number_taken = port["containerPort"]
            yield f"{path}.ports[{number}].containerPort: {number_taken} is Envoy's or authz's"


def _user_of(security: Object, pod_user: Any) -> Any:
    # Null is not a user of its own: the pod's counts.
    found = security.get("runAsUser")
    return pod_user if found is None else found


def _of_mounts(path: str, container: Object, parts: Object) -> Iterator[str]:
    taken = injected_volumes(parts)
    places = {mount["mountPath"] for mount in parts["https"]["app"]["volumeMounts"]}
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        if mount["name"] in taken:
            yield f"{path}.volumeMounts[{number}].name: {mount['name']} is not the app's"
        elif mount.get("mountPath") in places:
            yield f"{path}.volumeMounts[{number}].mountPath: {mount['mountPath']} is not the app's"


def _of_redirected(path: str, container: Object, pod_user: Any) -> Iterator[str]:
    security = container.get("securityContext") or {}
    user = _user_of(security, pod_user)
    if user is None:
        yield (
            f"{path}.runAsUser: expected a number: the image's user is not known here, and connections are "
            "redirected by user"
        )
    elif user == 0:
        yield f"{path}.runAsUser: found root, who can become a user whose connections are not redirected"
    if security.get("allowPrivilegeEscalation") is not False:
        yield f"{path}.allowPrivilegeEscalation: expected false: it is a way to another user"
    added = (security.get("capabilities") or {}).get("add") or ()
    for capability in added:
        if str(capability).upper().removeprefix("CAP_") not in _CAPABILITIES:
            yield f"{path}.capabilities.add: found {capability}, expected none"
