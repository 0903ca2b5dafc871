"""`breaches`: why a pod's app would get at Envoy's place, at the socket, or at a credential.

Envoy and authz protect nothing from an app that shares their network with others, their memory, their
users or their volumes. Such pods are refused, each with the field that should change. What is refused is the
table of `rules`; here a pod is compared with it, and the few rules that have no field of their own.
"""

import posixpath
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from authz.injection.annotations import CLIENT_SECRET
from authz.injection.parts import Object
from authz.injection.rules import (
    KINDS_EXPECTED,
    RULES,
    VOLUMES,
    Holds,
    Known,
    Lacks,
    Only,
    Outside,
    Positive,
    Rule,
    Scope,
    Test,
)

EGRESS_PORT: Final = 15001
"""Envoy's, which no container names as one of its ports."""
EPHEMERAL: Final = "ephemeralContainers"
_CONTAINERS: Final = ("initContainers", "containers", EPHEMERAL)
_LONGEST: Final = 80
"""Characters of a value that are repeated in a message."""

Sets = Mapping[Known, Collection[Any]]


def injected_names(parts: Object) -> set[str]:
    """Return the names of the containers that are added."""
    added = (*parts["initContainers"], *parts["containers"], parts["interception"]["container"])
    return {each["name"] for each in added}


def injected_volumes(parts: Object) -> set[str]:
    """Return the names of the volumes that are added."""
    credentials = (each["volume"] for each in parts["credentials"].values())
    more = (*credentials, parts["interception"]["volume"], *parts["https"]["volumes"])
    return {volume["name"] for volume in (*parts["volumes"], *more)}


def known(parts: Object) -> dict[Known, Collection[Any]]:
    """Return the sets of the rules, as far as what is added decides them."""
    ports = [port for each in parts["containers"] for port in each["ports"]]
    return {
        Known.CONTAINERS: sorted(injected_names(parts)),
        Known.VOLUMES: sorted(injected_volumes(parts)),
        Known.SECRETS: [],
        Known.USERS: sorted(each["securityContext"]["runAsUser"] for each in parts["containers"]),
        Known.PORTS: sorted({port["containerPort"] for port in ports} | {EGRESS_PORT}),
        Known.PORT_NAMES: sorted(port["name"] for port in ports),
    }


def breaches(
    metadata: Object,
    spec: Object,
    parts: Object,
    *,
    redirected: bool = False,
    csi_drivers: Collection[str] = (),
) -> Iterator[str]:
    """Return every fault of a pod that is to be injected.

    Args:
        metadata: The pod's.
        spec: The pod's, as its author wrote it.
        parts: What may be added.
        redirected: Whether the pod's connections are to be redirected.
        csi_drivers: Those whose volumes an app may have.
    """
    sets = _sets(metadata, parts)
    if not spec.get("containers"):
        yield "spec.containers: expected the app"
    yield from _compare(Scope.METADATA, "metadata", metadata, sets)
    yield from _compare(Scope.POD, "spec", spec, sets)
    for index, volume in enumerate(spec.get("volumes") or ()):
        path = f"spec.volumes[{index}]"
        for kind in volume.keys() - {"name", *VOLUMES}:
            if kind != "csi" or volume[kind].get("driver") not in csi_drivers:
                yield f"{path}.{kind}: {KINDS_EXPECTED}"
        yield from _compare(Scope.VOLUME, path, volume, sets)
    for key in _CONTAINERS:
        yield from _of_containers(key, spec, parts, sets, redirected=redirected)


def breaches_of_debugging(spec: Object, parts: Object) -> Iterator[str]:
    """Return every fault of the ephemeral containers of an injected pod, which `kubectl debug` adds to it.

    What the pod is goes by what was injected, which lasts; annotations may have changed since.
    """
    taken = injected_volumes(parts)
    volumes = [each for each in spec.get("volumes") or () if each["name"] in taken]
    secrets = [each["secret"]["secretName"] for each in volumes if each.get("secret")]
    intercept = parts["interception"]["container"]["name"]
    redirected = intercept in {each["name"] for each in spec.get("initContainers") or ()}
    sets = {**known(parts), Known.SECRETS: secrets}
    yield from _of_containers(EPHEMERAL, spec, parts, sets, redirected=redirected)


def _sets(metadata: Object, parts: Object) -> Sets:
    secret = (metadata.get("annotations") or {}).get(CLIENT_SECRET)
    return {**known(parts), Known.SECRETS: [secret] if secret else []}


def _of_containers(
    key: str, spec: Object, parts: Object, sets: Sets, *, redirected: bool
) -> Iterator[str]:
    places = {mount["mountPath"] for mount in parts["https"]["app"]["volumeMounts"]}
    pod_user = (spec.get("securityContext") or {}).get("runAsUser")
    for index, written in enumerate(spec.get(key) or ()):
        path = f"spec.{key}[{index}]"
        container = _with_user(written, pod_user)
        yield from _compare(Scope.CONTAINER, path, container, sets, redirected=redirected)
        if key == EPHEMERAL:
            yield from _compare(Scope.EPHEMERAL, path, container, sets)
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            place = posixpath.normpath(mount.get("mountPath") or "/")
            # POSIX keeps two leading slashes apart from one; a mount does not.
            if f"/{place.lstrip('/')}" in places:
                yield f"{path}.volumeMounts[{number}].mountPath: {place} is not the app's"


def _with_user(container: Object, pod_user: Any) -> Object:
    # Null is not a user of its own: the pod's counts.
    security = container.get("securityContext") or {}
    user = security.get("runAsUser")
    return {
        **container,
        "securityContext": {**security, "runAsUser": pod_user if user is None else user},
    }


def _compare(
    scope: Scope, path: str, item: Object, sets: Sets, *, redirected: bool = False
) -> Iterator[str]:
    found: dict[str, None] = {}
    for rule in RULES:
        if rule.scope is scope and (redirected or not rule.redirected):
            for field, value in _values(path, item, rule.field.split(".")):
                # Of two rules of one field the first speaks.
                if field not in found and not _fits(rule.test, value, sets):
                    found[field] = None
                    yield f"{field}: {_told(value, rule)}"


def _values(path: str, item: Any, keys: list[str]) -> Iterator[tuple[str, Any]]:
    """Return the places and values of a field; None for a value that is not there."""
    if not keys:
        yield path, item
        return
    key, *rest = _split(keys)
    if key.endswith("[]"):
        name = key.removesuffix("[]")
        for index, each in enumerate((item or {}).get(name) or ()):
            yield from _values(f"{path}.{name}[{index}]", each, rest)
    elif key.endswith("}"):
        name, _, prefix = key.removesuffix("}").partition("{")
        for found, value in ((item or {}).get(name) or {}).items():
            if found.startswith(prefix):
                yield from _values(f"{path}.{name}[{found}]", value, rest)
    else:
        yield from _values(f"{path}.{key}", (item or {}).get(key), rest)


def _split(keys: list[str]) -> list[str]:
    # The text of a key may have dots of its own.
    joined = ".".join(keys)
    return [joined] if "{" in joined else keys


def _fits(test: Test, value: Any, sets: Sets) -> bool:
    match test:
        case Only(values, required):
            return not required if value is None else value in values
        case Holds(wanted):
            return isinstance(value, list) and wanted in value
        case Lacks(texts):
            return not any(text in str(value or "").lower() for text in texts)
        case Outside(named):
            return value is None or value not in sets[named]
        case Positive():
            return isinstance(value, int) and value > 0


def _told(value: Any, rule: Rule) -> str:
    # What is a value of its own is named: a list shows where, and a switch says it already.
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return f"found {str(value)[:_LONGEST]}, {rule.expected}"
    return rule.expected
