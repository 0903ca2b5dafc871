"""From plain data to `Config`, with every fault of both kinds found in one pass.

Pydantic checks each value. Where an entry fails, it is left out and the rules that concern several keys
are asked about the rest, so that one typing error does not hide ten others. How a fault reads is in
`wording`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from authz.config.consistency.checks import check
from authz.config.faults import ConfigError, Fault, closest
from authz.config.model import Config
from authz.config.reading.wording import dotted, message, shown_path
from authz.config.sections.settings import AUTHORITY_HOST
from authz.config.shown import shown_place


@dataclass(frozen=True, slots=True)
class Origin:
    """Where values came from, each by its path: keys joined by dots.

    Attributes:
        lines: Line of the document.
        variables: Name of the environment variable whose value stands here; never shown itself.
        keys: Name of the environment variable that a fault names in place of the path.
        sections: How a section is spelled in the document, where that is not its name.
    """

    lines: Mapping[str, int] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, str] = field(default_factory=dict)

    def fault(self, path: str, text: str) -> Fault:
        """Return a fault, placed as well as is known."""
        key = self.keys.get(path)
        section, dot, rest = path.partition(".")
        path = f"{self.sections.get(section, section)}{dot}{rest}"
        return Fault(key, text) if key else Fault(shown_place(path), text, self.line_of(path))

    def with_defaults(self, data: object, environ: Mapping[str, str]) -> "Origin":
        """Return the origin that also knows which default the environment gave."""
        entra = data.get("entra") if isinstance(data, dict) else None
        given = isinstance(entra, dict) and entra.get("authority") is not None
        if given or not environ.get(AUTHORITY_HOST):
            return self
        return replace(self, keys={"entra.authority": AUTHORITY_HOST, **self.keys})

    def line_of(self, path: str) -> int | None:
        """Return the line of what is at a path, or of the nearest thing around it that has one."""
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return self.lines.get(path)


def validate(data: object, *, environ: Mapping[str, str], origin: Origin | None = None) -> Config:
    """Return the configuration that plain data describes.

    Args:
        data: What a document or the environment said.
        environ: The environment, for the defaults that it gives.
        origin: Where the values came from.

    Raises:
        ConfigError: With every fault.
    """
    origin = (origin or Origin()).with_defaults(data, environ)
    result, faults = _attempt(data, environ, {}, origin)
    if isinstance(result, Config):
        return result
    if result and isinstance(data, dict):
        meant = _meant(data, result)
        if meant:
            # What stands in a section counts, however its name is spelled.
            data = {meant.get(key, key): value for key, value in data.items()}
            origin = replace(origin, sections={right: wrong for wrong, right in meant.items()})
            result = [path for path in result if path[0] not in meant]
            again, more = _attempt(data, environ, {}, origin)
            faults += [fault for fault in more if fault not in faults]
            result = again if isinstance(again, list) else []
    if result and isinstance(data, dict):
        remainder, left_out = _without(data, result)
        more = _attempt(remainder, environ, left_out, origin)[1]
        faults += [fault for fault in more if fault not in faults]
    raise ConfigError(sorted(faults, key=lambda fault: fault.line or 0))


_Paths = list[tuple[int | str, ...]]


def _attempt(
    data: object, environ: Mapping[str, str], left_out: Mapping[str, set[str]], origin: Origin
) -> tuple[Config | _Paths, list[Fault]]:
    """Return the configuration, or the paths that pydantic refused, and the faults."""
    try:
        context = {"environ": environ}
        config = Config.model_validate(data, context=context)
    except ValidationError as error:
        details = error.errors(include_url=False)
    else:
        found = [origin.fault(fault.path, fault.message) for fault in check(config, left_out)]
        return [] if found else config, found
    paths = [detail["loc"] for detail in details]
    faults = []
    for detail in details:
        # Pydantic counts only the entries that are fine, and says of the others' list it is short.
        if detail["type"] == "too_short" and any(
            len(path) > len(detail["loc"]) and path[: len(detail["loc"])] == detail["loc"]
            for path in paths
        ):
            continue
        path = dotted(shown_path(detail))
        faults.append(origin.fault(path, message(detail, variable=origin.variables.get(path))))
    return paths, faults


def _meant(data: Mapping[Any, Any], paths: _Paths) -> dict[str, str]:
    """Return the known names of sections that are spelled wrongly, by the wrong ones."""
    free = [name for name in Config.model_fields if name not in data]
    wrong = [path[0] for path in paths if len(path) == 1 and path[0] not in Config.model_fields]
    found = {name: right for name in wrong if (right := closest(str(name), free))}
    # Of two that could be the same one, nobody knows which is.
    return {
        str(name): right for name, right in found.items() if list(found.values()).count(right) == 1
    }


def _without(data: Mapping[Any, Any], paths: _Paths) -> tuple[dict[Any, Any], dict[str, set[str]]]:
    """Return the data without the entries at the paths, and the names of those entries."""
    remainder = {
        section: dict(entries) if isinstance(entries, dict) else entries
        for section, entries in data.items()
    }
    left_out: dict[str, set[str]] = {}
    for section, *rest in (path for path in paths if path):
        if rest and isinstance(remainder.get(section), dict):
            remainder[section].pop(rest[0], None)
            left_out.setdefault(str(section), set()).add(str(rest[0]))
        else:
            remainder.pop(section, None)
            # Nothing is known about what a whole section would have named.
            left_out.setdefault(str(section), set())
    return remainder, left_out
