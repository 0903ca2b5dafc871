"""Schemas of custom resources, closed: what the upstream definitions do not name is a fault.

The definitions are data beside the checkout, not part of it. Where they are absent, tests are skipped.
"""

from functools import cache
from typing import Any, Final

import jsonschema
import pytest
import yaml

from support.kubernetes.manifests import ROOT, Object

DEFINITIONS: Final = ROOT.parent / "shared/data/crds"
_SOME_TIME: Final = "duration(self) >= duration('1ms')"


def validate(item: Object, file: str) -> None:
    """Compare an object with the definition of its kind and version in a file of `DEFINITIONS`.

    Raises:
        KeyError: The file does not define its kind and version.
        jsonschema.ValidationError: It does not fit.
    """
    schema = _schemas(file)[item["kind"], item["apiVersion"]]
    jsonschema.validate(item, schema, cls=jsonschema.Draft202012Validator)


@cache
def _schemas(file: str) -> dict[tuple[str, str], Object]:
    path = DEFINITIONS / file
    if not path.exists():
        pytest.skip(
            f"{file} is not in ../shared/data/crds: objects of these kinds are not validated"
        )
    return {
        (definition["spec"]["names"]["kind"], f"{definition['spec']['group']}/{version['name']}"): (
            _closed(version["schema"]["openAPIV3Schema"], at_top=True)
        )
        for definition in filter(None, yaml.safe_load_all(path.read_text()))
        for version in definition["spec"]["versions"]
    }


def _closed(schema: Object, *, at_top: bool = False) -> Object:
    """Allow no property that is not named, as an API server's strict validation does."""
    closed: dict[str, Any] = dict(schema)
    if closed.pop("x-kubernetes-int-or-string", False):
        closed["type"] = ["integer", "string"]
    if any(rule["rule"] == _SOME_TIME for rule in schema.get("x-kubernetes-validations", ())):
        # Of the rules that an API server evaluates, the one that our objects have broken: no `0s`.
        closed["pattern"] = "[1-9]"
    if "(?i)" in schema.get("pattern", ""):
        # Go takes flags anywhere in an expression, Python at its start.
        closed["pattern"] = "(?i)" + schema["pattern"].replace("(?i)", "")
    if "properties" in schema:
        closed["properties"] = {name: _closed(part) for name, part in schema["properties"].items()}
        if at_top:
            # What every object has, whether its definition says so or not.
            closed["properties"] |= {name: {"type": "string"} for name in ("apiVersion", "kind")}
            closed["properties"]["metadata"] = {"type": "object"}
        if "additionalProperties" not in schema and not schema.get(
            "x-kubernetes-preserve-unknown-fields"
        ):
            closed["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            closed[key] = _closed(schema[key])
    return closed
