"""The verbs of the command line. Each imports what it needs, so that `--help` is instant."""

import os
import sys
from pathlib import Path

import click

from authz import __version__
from authz.config import ConfigError, load

_CONFIG_HELP = (
    "Configuration file (YAML). Default: $AUTHZ_CONFIG; without either, the environment keys of the "
    "Entra SDK sidecar (AzureAd__TenantId, ...)."
)
FAULTY = 2
"""Exit status for a configuration with faults."""


_config_option = click.option(
    "--config",
    "config_file",
    envvar="AUTHZ_CONFIG",
    type=click.Path(path_type=Path, dir_okay=False),
    help=_CONFIG_HELP,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="authz")
def main() -> None:
    """Envoy external authorization for Microsoft Entra Agent ID.

    Agents call APIs with tokens that they never hold: Envoy asks `authz serve` about every request.
    """


@main.command()
@_config_option
def serve(config_file: Path | None) -> None:
    """Answer Envoy until SIGTERM. SIGHUP looks for a new configuration at once."""
    from authz.supervisor import SEAT_VARIABLE, supervise  # noqa: PLC0415

    environ = dict(os.environ)
    seat = environ.pop(SEAT_VARIABLE, None)
    try:
        if seat is None and load(config_file, environ).config.listen.workers > 1:
            sys.exit(supervise(config_file, environ))
        from authz.app import WorkerSeat, run  # noqa: PLC0415

        address, _, descriptor = (seat or "").rpartition(" ")
        sys.exit(run(config_file, environ, WorkerSeat(address, int(descriptor)) if seat else None))
    except ConfigError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(FAULTY)


@main.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@_config_option
def check_config(file: Path | None, config_file: Path | None) -> None:
    """Check a configuration and print every fault. Exit status 2 if there is one."""
    try:
        loaded = load(file or config_file, dict(os.environ))
    except ConfigError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(FAULTY)
    for notice in loaded.warnings:
        click.echo(f"warning: {notice}", err=True)
    config = loaded.config
    click.echo(
        f"the configuration is valid: {len(config.inbound)} inbound and {len(config.egress)} "
        f"egress routes, {len(config.agents)} agents, {len(config.blueprints)} blueprints"
    )


@main.command()
@click.option(
    "--listen",
    default="127.0.0.1:8443",
    show_default=True,
    help="HOST:PORT; port 0 takes a free one.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for emulator.json and ca.pem.",
)
def emulator(listen: str, out: Path) -> None:
    """Serve a strict local Entra for development and tests. Never for production."""
    from authz.emulator.command import run  # noqa: PLC0415

    sys.exit(run(listen, out))


if __name__ == "__main__":
    main()
