"""Strict schemas of every kind that the overlays use: `check` an object against its own.

Kubernetes' own kinds have theirs in `kubernetes-validate`. Those of Istio and Envoy Gateway are the upstream
CRDs, kept beside the project and not in it, closed here so that an unknown key is a fault. For the few kinds
of others there are schemas of our own in `schemas.yaml`, as narrow as our use of them.
"""

from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

from support.manifests import ROOT, Object

CRDS: Final = ROOT.parent / "shared" / "data" / "crds"
OLDEST: Final = "1.30"
"""The first version that runs these manifests: `preStop.sleep` is on from here."""
VERSIONS: Final = (OLDEST, kubernetes_validate.latest_version())
_OURS: Final = Path(__file__).with_name("schemas.yaml")
_UPSTREAM: Final = {
    "networking.istio.io": "istio.yaml",
    "security.istio.io": "istio.yaml",
    "gateway.envoyproxy.io": "securitypolicies.yaml",
}


class UnknownKindError(AssertionError):
    """There is no schema for a kind, so nothing has been checked."""


def check(item: Object) -> None:
    """Check an object against the schema of its kind.

    Raises:
        UnknownKindError: There is none.
        jsonschema.ValidationError: It does not fit.
        kubernetes_validate.ValidationError: It does not fit.
    """
    group, _, version = item["apiVersion"].rpartition("/")
    own = _ours().get(f"{item['apiVersion']} {item['kind']}")
    if own is not None:
        jsonschema.validate(item, own)
    elif group in _UPSTREAM:
        jsonschema.validate(item, _upstream(_UPSTREAM[group], group, version, item["kind"]))
    else:
        for kubernetes in VERSIONS:
            # An unknown kind raises SchemaNotFoundError and fails the test, as it should.
            kubernetes_validate.validate(item, kubernetes, strict=True)


def mesh_config_schema() -> Object:
    """Return the schema of the part of Istio's mesh configuration that we ship."""
    found: Object = _ours()["meshConfig"]
    return found


@cache
def _ours() -> Object:
    found: Object = yaml.safe_load(_OURS.read_text())
    return found


@cache
def _upstream(file: str, group: str, version: str, kind: str) -> Object:
    if not CRDS.is_dir():
        pytest.skip(f"{CRDS} is not here: objects of {group} are not checked against its schemas")
    for definition in yaml.safe_load_all((CRDS / file).read_text()):
        spec = (definition or {}).get("spec", {})
        if (spec.get("group"), spec.get("names", {}).get("kind")) == (group, kind):
            for served in spec["versions"]:
                if served["name"] == version and served["served"]:
                    schema = served["schema"]["openAPIV3Schema"]
                    # What every object has, and an API server checks by itself.
                    common = {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
                    whole = {**schema, "properties": {**schema["properties"], **common}}
                    closed: Object = _closed(whole)
                    return closed
    raise UnknownKindError(f"{group}/{version} {kind}")


def _closed(schema: Any) -> Any:
    """Close every object of a CRD's schema, which an API server does by cutting off what it does not know."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    # Within the combinations only some properties are repeated, so closing those would refuse the others.
    combined = ("oneOf", "anyOf", "allOf", "not")
    made = {
        key: value
        if key in combined
        else _closed_map(value)
        if key == "properties"
        else _closed(value)
        for key, value in schema.items()
    }
    if "properties" in made and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def _closed_map(properties: Object) -> Object:
    return {name: _closed(schema) for name, schema in properties.items()}
