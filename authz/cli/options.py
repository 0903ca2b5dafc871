"""Options that several verbs share, and the exit statuses."""

from pathlib import Path
from typing import Final

import click

FAULTY: Final = 2
"""Exit status for a configuration with faults."""
UNMATCHED: Final = 1
"""Exit status for an Envoy configuration that was rendered from another configuration."""

_CONFIG_HELP = (
    "Configuration file (YAML). Default: $AUTHZ_CONFIG; without either, the environment keys of the "
    "Entra SDK sidecar (AzureAd__TenantId, ...)."
)
FILE = click.Path(path_type=Path, dir_okay=False, exists=False)
FOLDER = click.Path(path_type=Path, file_okay=False, exists=False)
config_option = click.option(
    "--config",
    "config_file",
    envvar="AUTHZ_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    help=_CONFIG_HELP,
)
file_argument = click.argument(
    "file", required=False, type=click.Path(path_type=Path, dir_okay=False)
)


no_values_option = click.option(
    "--no-values",
    "without_values",
    is_flag=True,
    help="${NAME} of the file needs no value where the variable is not set: for identifiers, scopes and "
    "credentials, which are not in Envoy's configuration.",
)
