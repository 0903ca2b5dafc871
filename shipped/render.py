"""Write every shipped Envoy configuration as `authz envoy` renders it, or check them (`--check`)."""

import argparse
import sys
from difflib import unified_diff

import yaml

from shipped.commented import AmendError, amended
from shipped.configurations import CONFIGURATIONS, Configuration

SCRIPT = {"filename": "/etc/envoy/edge_cache.lua"}
"""In the commented file, in place of the edge cache's script, which lies beside it."""


def text_of(configuration: Configuration) -> str:
    """Return the whole file as it should be.

    Raises:
        AmendError: It is commented, and a change needs a person.
    """
    rendered = configuration.rendered()
    if not configuration.is_commented:
        return rendered
    return amended(configuration.path.read_text("utf-8"), values_of(rendered))


def values_of(rendered: str) -> object:
    """Return what the commented file should say: what was rendered, less the script."""
    document = yaml.safe_load(rendered)
    for listener in document["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            for filter_ in chain["filters"]:
                overrides = filter_["typed_config"]["route_config"]["typed_per_filter_config"]
                overrides["authz.edge_cache"]["source_code"] = SCRIPT
    return document


def stale() -> list[tuple[Configuration, str]]:
    """Return the files that are not what they should be, each with what it should be.

    Raises:
        AmendError: A commented file needs a person.
    """
    found = []
    for configuration in CONFIGURATIONS:
        try:
            fresh = text_of(configuration)
        except AmendError as error:
            raise AmendError(f"{configuration.file}: {error}") from error
        if not configuration.path.exists() or fresh != configuration.path.read_text("utf-8"):
            found.append((configuration, fresh))
    return found


def main() -> int:
    """Write what differs, or name it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 on a difference"
    )
    options = parser.parse_args()
    try:
        found = stale()
    except AmendError as error:
        sys.exit(str(error))
    for configuration, fresh in found:
        if options.check:
            print(f"{configuration.file} differs from what is rendered: run `make render`")
            continue
        before = configuration.path.read_text("utf-8") if configuration.path.exists() else ""
        configuration.path.write_text(fresh, "utf-8")
        print(f"wrote {configuration.file}")
        if configuration.is_commented:
            changes = unified_diff(before.splitlines(), fresh.splitlines(), n=0, lineterm="")
            print("its comments are written by hand: see whether they still say what is there")
            print("\n".join(changes))
    return 1 if found and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
