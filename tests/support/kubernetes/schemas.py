"""Strict schemas of every kind that the overlays use: `check` compares an object with its own.

`check_core` does so for one version of Kubernetes.

Kubernetes' own kinds have theirs in `kubernetes-validate`, those of Istio and Envoy Gateway are upstream's
(`custom_resources`). For the few kinds of others there are schemas of our own in `schemas.yaml`.
"""

from functools import cache
from pathlib import Path
from typing import Final

import jsonschema
import kubernetes_validate
import yaml

from support.kubernetes import custom_resources
from support.kubernetes.manifests import Object

OLDEST: Final = "1.30"
"""The first version that runs these manifests: `preStop.sleep` is on from here."""
LATEST: Final = kubernetes_validate.latest_version()
BEFORE: Final = "1.29"
"""It knows every field of them, but has `preStop.sleep` behind a feature gate."""
VERSIONS: Final = (BEFORE, OLDEST, LATEST)
NEWER: Final = frozenset({"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"})
"""Kinds whose first version v1 came with `OLDEST`."""
_OURS: Final = Path(__file__).with_name("schemas.yaml")
_UPSTREAM: Final = {
    "networking.istio.io": "istio.yaml",
    "security.istio.io": "istio.yaml",
    "gateway.envoyproxy.io": "securitypolicies.yaml",
}


def check(item: Object) -> None:
    """Compare an object with the schema of its kind. Without a schema, the test fails.

    Raises:
        KeyError: Upstream has no such kind.
        jsonschema.ValidationError: It does not fit.
        kubernetes_validate.ValidationError: It does not fit.
    """
    group = item["apiVersion"].rpartition("/")[0]
    own = _ours().get(f"{item['apiVersion']} {item['kind']}")
    if own is not None:
        jsonschema.validate(item, own)
    elif group in _UPSTREAM:
        custom_resources.validate(item, _UPSTREAM[group])
    else:
        for version in VERSIONS:
            check_core(item, version)


def check_core(item: Object, version: str) -> None:
    """Compare an object of Kubernetes' own kinds with the schema of a version, without extra keys.

    Raises:
        kubernetes_validate.ValidationError: It does not fit.
        kubernetes_validate.SchemaNotFoundError: That version has no such kind, and should have.
    """
    if version != BEFORE or item["kind"] not in NEWER:
        kubernetes_validate.validate(item, version, strict=True)


def mesh_config_schema() -> Object:
    """Return the schema of the part of Istio's mesh configuration that we ship."""
    found: Object = _ours()["meshConfig"]
    return found


@cache
def _ours() -> Object:
    found: Object = yaml.safe_load(_OURS.read_text())
    return found
