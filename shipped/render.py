"""Write every shipped Envoy configuration as `authz envoy` renders it, or check them (`--check`).

One of them, `envoy/sidecar.yaml`, is written and commented by hand: of it the values that differ are shown.
"""

import argparse
import sys
from collections.abc import Iterator
from difflib import unified_diff
from typing import Any, Final

import yaml

from authz.config.rendered import MARK
from shipped.configurations import CONFIGURATIONS, Configuration

_SCRIPT: Final = {"filename": "/etc/envoy/edge_cache.lua"}
"""In the commented file, in place of the edge cache's script, which lies beside it."""


def differences(configuration: Configuration) -> Iterator[str]:
    """Yield the lines by which the file differs from what is rendered; of a commented file, its values."""
    there = configuration.path.read_text("utf-8") if configuration.path.exists() else ""
    wanted = configuration.rendered()
    if configuration.is_commented:
        there, wanted = _dump(yaml.safe_load(there)), _dump(_without_script(unmarked(wanted)))
    yield from unified_diff(
        there.splitlines(), wanted.splitlines(), configuration.file, "rendered", lineterm=""
    )


def unmarked(rendered: str) -> Any:
    """Return what is rendered without its mark, as data: a file that people write has none."""
    document = yaml.safe_load(rendered)
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            value.pop(MARK, None)
        pending += value.values() if isinstance(value, dict) else value
        pending = [one for one in pending if isinstance(one, dict | list)]
    if not document["node"].get("metadata"):
        document["node"].pop("metadata", None)
    return document


def _without_script(document: Any) -> Any:
    for listener in document["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            for filter_ in chain["filters"]:
                routes = filter_["typed_config"].get("route_config")
                if routes is not None:
                    routes["typed_per_filter_config"]["authz.edge_cache"]["source_code"] = _SCRIPT
    return document


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's own
        """Write what is in two places twice."""
        return True


def _dump(document: Any) -> str:
    return yaml.dump(document, Dumper=_Dumper, width=10**6)


def main() -> int:
    """Write what differs, or name it. Returns 1 where something is left to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    left = 0
    for configuration in CONFIGURATIONS:
        lines = list(differences(configuration))
        if lines and configuration.is_commented:
            print("\n".join(lines))
            print(f"{configuration.file} is written by hand: change these values in it")
            left = 1
        elif lines and options.check:
            print(f"{configuration.file} differs from what is rendered: run `make render`")
            left = 1
        elif lines:
            configuration.path.write_text(configuration.rendered(), "utf-8")
            print(f"wrote {configuration.file}")
    return left


if __name__ == "__main__":
    sys.exit(main())
