"""How faults read: what was found, unless it may be a secret, and what was expected.

Values below `credentials`, and values that came from an environment reference, are never shown.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pydantic_core import ErrorDetails

from authz.config.faults import did_you_mean
from authz.config.model import Config
from authz.config.shown import cut, shown

PRIVATE: Final = frozenset({"credentials", "proxy"})
"""Keys at and below which no value is shown; a proxy's address may carry a password."""

_KUBERNETES: Final = frozenset({"apiVersion", "kind", "metadata", "data", "stringData", "spec"})
_FORMS: Final[Mapping[str, tuple[type | tuple[type, ...], str]]] = {
    "model_type": (list, ", NAME: VALUE, with no - before it"),
    "dict_type": (list, ", NAME: VALUE, with no - before it"),
    "tuple_type": (
        (str, int, float, dict),
        ", in brackets or with - before each entry",
    ),
}
"""For kinds of pydantic's errors: what is often written instead, and how the expected is written."""

_EXPECTED: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "model_type": "expected a mapping",
    "dict_type": "expected a mapping",
    "mapping_type": "expected a mapping",
    "tuple_type": "expected a list",
    "too_short": "expected at least one entry",
    "none_required": "expected nothing",
}


def dotted(path: tuple[int | str, ...]) -> str:
    """Write a path as faults show it."""
    return ".".join(str(part) for part in path if part != "[key]")


def shown_path(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Return the path that a fault shows.

    An unknown key among credentials is not named: `client_secret: {…}` may hold the secret as a key.
    """
    path = detail["loc"]
    unknown = detail["type"] == "extra_forbidden" and not PRIVATE.isdisjoint(path)
    return path[:-1] if unknown else path


def message(detail: ErrorDetails, *, variable: str | None = None) -> str:
    """Say in one sentence what pydantic found.

    Args:
        detail: One of its errors.
        variable: Name of the environment variable the value came from, if it came from one.
    """
    path, kind = detail["loc"], detail["type"]
    if kind == "extra_forbidden":
        key, known = str(path[-1]), known_keys(path[:-1])
        if len(path) == 1 and key in _KUBERNETES:
            return "unknown key; expected the text of authz.yaml alone, not a Kubernetes object around it"
        hint = did_you_mean(key, known) or f"; expected one of {', '.join(known)}"
        return f"unknown key{hint if known else ''}"
    if kind == "missing":
        return _EXPECTED[kind]
    if kind in {"enum", "literal_error"}:
        text = f"expected {detail.get('ctx', {}).get('expected', 'another value')}"
    elif kind == "value_error":
        text = str(detail["ctx"]["error"])
    else:
        text = _EXPECTED.get(kind, detail["msg"])
        instead, form = _FORMS.get(kind, ((), ""))
        text += form if isinstance(detail["input"], instead) else ""
    found = _found(detail["input"], private=not PRIVATE.isdisjoint(path), variable=variable)
    return f"{found}: {text}" if found else text


def _found(value: Any, *, private: bool, variable: str | None) -> str:
    match value:
        case None:
            return "found nothing"
        case dict():
            if private:
                return ""
            return "found a mapping" if value else "found an empty mapping"
        case list() | tuple():
            return "found a list" if value else "found an empty list"
        case _ if variable:
            return f"found the value of ${{{variable}}}"
        case bool() if not private:
            return f"found {json.dumps(value)}"
        case int() | float() if not private:
            # A long number is cut as text is: it may be one half of a secret.
            return f"found {cut(repr(value))}"
        case str() if not private:
            return f"found {shown(value)}"
        case _:
            return ""


@cache
def _schema() -> Mapping[str, Any]:
    return Config.model_json_schema()


def known_keys(path: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the mapping at a path may have."""
    places = [_schema()]
    for part in path:
        places = [below for place in places for below in _step(place, part)]
    options = [option for place in places for option in _options(place)]
    return [key for option in options for key in option.get("properties", {})]


def _step(place: Mapping[str, Any], part: int | str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for option in _options(place):
        if isinstance(part, int):
            found += [option["items"]] if "items" in option else []
        elif part in option.get("properties", {}):
            found.append(option["properties"][part])
        else:
            found += option.get("patternProperties", {}).values()
    return found


def _options(place: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    place = _resolved(place)
    return [_resolved(option) for option in place["anyOf"]] if "anyOf" in place else [place]


def _resolved(place: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = place.get("$ref")
    return _schema()["$defs"][reference.rpartition("/")[2]] if reference else place
