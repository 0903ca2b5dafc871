"""JSON Schema of the configuration file, and the program that writes the generated documents.

`python -m authz.config.publish.schema docs/` writes `authz.schema.json` and `configuration.md`. The text of
the latter is made in `reference`.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from authz.config.model import Config
from authz.config.publish.reference import reference

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_REFERENCE: Final = {"$ref": "#/$defs/EnvironmentReference"}
_ENVIRONMENT_REFERENCE: Final = {
    "description": "The value of an environment variable, which must be set.",
    "type": "string",
    "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$",
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors and for CI.

    It knows each value and closes each mapping. Rules that concern several keys are beyond it; those are
    for `authz check-config`.
    """
    published = _published(Config.model_json_schema())
    assert isinstance(published, dict)
    published["$defs"]["EnvironmentReference"] = dict(_ENVIRONMENT_REFERENCE)
    return {"$schema": DIALECT, "title": "authz configuration", **published}


def _published(node: Any) -> Any:
    if isinstance(node, list):
        return [_published(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {
        key: _published_mapping(value) if key in {"properties", "$defs"} else _published(value)
        for key, value in node.items()
        if not key.startswith("x-") and key not in {"title", "propertyNames"}
    }
    if "patternProperties" in out:
        out["additionalProperties"] = False
    if "required" in out:
        # What the environment can supply may be left out of the file.
        out["required"] = [
            key for key in out["required"] if "x-default" not in node["properties"][key]
        ]
    return _or_reference(out)


def _published_mapping(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _published(value) for key, value in node.items()}


def _or_reference(node: dict[str, Any]) -> dict[str, Any]:
    is_scalar = node.get("type") in {"integer", "number", "boolean"}
    if not (is_scalar or "pattern" in node or "enum" in node):
        return node
    about: dict[str, Any] = {
        key: node.pop(key) for key in ("description", "default") if key in node
    }
    return {"anyOf": [node, _REFERENCE], **about}


def write(directory: Path) -> None:
    """Write both documents; the reference shows `examples/sidecar.yaml` of the same directory."""
    example = (directory / "examples" / "sidecar.yaml").read_text(encoding="utf-8")
    for name, content in documents(example).items():
        (directory / name).write_text(content, encoding="utf-8")


def documents(example: str) -> dict[str, str]:
    """Return the generated documents by file name."""
    return {
        "authz.schema.json": json.dumps(json_schema(), indent=2) + "\n",
        "configuration.md": reference(example),
    }


if __name__ == "__main__":
    write(Path(sys.argv[1]))
