"""An Envoy configuration as a file, held beside the service's own: do the two belong together?

Read as plain data, so that nothing that renders has to be installed. Who compares in a running service is
`pairing`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from authz.config import Config
from authz.config.rendered import MARK, Selection, hosts_of, mark_of
from authz.doors.envoy.pairing import Match
from authz.envoy_config.text import is_json
from authz.system.files import BoundedFile, FileFault

LARGEST: Final = 256 * 1024**2
"""Bytes of such a file. A ConfigMap holds one MiB. As JSON 1,000 hosts take 13. With `https` there each
host repeats all of them: 100 take 94, and 155 all of this."""
NOT_CONFIGURED: Final = "not-configured"
"""Virtual host of all destinations without a route."""
_EGRESS: Final = "egress"
_RESOURCES: Final = {"static_resources", "dynamic_resources"}
"""Each configuration of Envoy has one of them."""
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class CounterpartFault(Exception):
    """A file that cannot be read as an Envoy configuration, and why."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """What the comparison says.

    Attributes:
        match: Whether the two belong together.
        missing: Hosts that the service has and Envoy has not.
        too_many: Hosts that Envoy has and the service has not.
    """

    match: Match
    missing: tuple[str, ...] = ()
    too_many: tuple[str, ...] = ()


def read_envoy(file: Path) -> Mapping[str, Any]:
    """Return an Envoy configuration as plain data.

    Raises:
        CounterpartFault: The file cannot be read, or is no mapping in YAML (in JSON where its name says so).
    """
    try:
        content = BoundedFile(file, max_bytes=LARGEST).read()
        data = orjson.loads(content) if is_json(file) else yaml.load(content, Loader=_LOADER)  # noqa: S506 - a safe one
    except FileFault as fault:
        raise CounterpartFault(f"{file}: cannot be read: {fault}") from None
    except orjson.JSONDecodeError as error:
        where = f"in line {error.lineno}, column {error.colno}"
        hint = "Envoy and authz read it as JSON for its name: write it by --output"
        raise CounterpartFault(f"{file}: is no valid JSON {where}; {hint}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise CounterpartFault(f"{file}: is no valid YAML{where}") from None
    if not isinstance(data, dict) or not data.keys() & _RESOURCES:
        expected = "expected static_resources or dynamic_resources"
        raise CounterpartFault(f"{file}: is no configuration of Envoy: {expected}")
    return data


def compare(config: Config, envoy: Mapping[str, Any]) -> Counterpart:
    """Return whether an Envoy configuration was rendered from a configuration of the service.

    Args:
        config: The service's.
        envoy: Envoy's, as plain data.
    """
    marks = set(_marks(envoy))
    if not marks:
        return Counterpart(Match.UNKNOWN)
    selections = {mark: Selection.of_mark(mark) for mark in marks}
    if len(marks) == 1 and all(mark == mark_of(config, each) for mark, each in selections.items()):
        return Counterpart(Match.MATCHED)
    # Hosts of a selection were named beside the configuration, which has none to compare them with.
    if any(selection.egress for selection in selections.values()):
        return Counterpart(Match.OUTDATED)
    ours, theirs = hosts_of(config), set(_hosts(envoy))
    return Counterpart(Match.OUTDATED, tuple(sorted(ours - theirs)), tuple(sorted(theirs - ours)))


def _marks(envoy: Mapping[str, Any]) -> Iterator[str]:
    node = envoy.get("node")
    metadata = node.get("metadata") if isinstance(node, dict) else None
    for value in (metadata, *_under("context_extensions", envoy)):
        if isinstance(value, dict) and isinstance(value.get(MARK), str):
            yield value[MARK]


def _hosts(envoy: Mapping[str, Any]) -> Iterator[str]:
    for routes in _under("route_config", envoy):
        if not isinstance(routes, dict) or routes.get("name") != _EGRESS:
            continue
        hosts = routes.get("virtual_hosts")
        for host in hosts if isinstance(hosts, list) else []:
            name = host.get("name") if isinstance(host, dict) else None
            if isinstance(name, str) and name != NOT_CONFIGURED:
                yield name


def _under(key: str, root: Any) -> Iterator[Any]:
    """Return what stands under a key, at any depth. What stands there several times is looked at once."""
    pending, seen = [root], set()
    while pending:
        value = pending.pop()
        if not isinstance(value, dict | list) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict) and key in value:
            yield value[key]
        pending += value.values() if isinstance(value, dict) else value
