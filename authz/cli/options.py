"""Options that several verbs share, and the exit statuses."""

import os
from pathlib import Path
from typing import Any, Final

import click

FAULTY: Final = 2
"""Exit status for a configuration with faults."""
UNMATCHED: Final = 1
"""Exit status for an Envoy configuration that was rendered from another configuration."""

_CONFIG_HELP = (
    "Configuration file (YAML). Default: $AUTHZ_CONFIG; without either, the environment keys of the "
    "Entra SDK sidecar (AzureAd__TenantId, ...)."
)


class TextPath(click.Path):
    """A path that can be written into a configuration: text in UTF-8, as every path of Envoy's is."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path, or end the call with what was expected."""
        name = os.fsencode(value)
        try:
            is_text = b"\0" not in name and bool(name.decode())
        except UnicodeDecodeError:
            is_text = False
        if not is_text:
            self.fail(f"found {os.fsdecode(name)!r}: expected a path in UTF-8", param, ctx)
        return super().convert(value, param, ctx)


FILE = TextPath(path_type=Path, dir_okay=False, exists=False)
FOLDER = TextPath(path_type=Path, file_okay=False, exists=False)
config_option = click.option(
    "--config",
    "config_file",
    envvar="AUTHZ_CONFIG",
    type=FILE,
    help=_CONFIG_HELP,
)
file_argument = click.argument("file", required=False, type=FILE)


no_values_option = click.option(
    "--no-values",
    "without_values",
    is_flag=True,
    help="${NAME} of the file needs no value where the variable is not set: for identifiers, scopes and "
    "credentials, which are not in Envoy's configuration.",
)
