"""`authz serve`: answers Envoy until SIGTERM or SIGINT."""

import os
import sys
from pathlib import Path

import click

from authz.cli.options import FAULTY, config_option, file_argument
from authz.config import ConfigError, ConfigSource
from authz.process.app import WorkerSeat, run
from authz.process.supervisor import SEAT_VARIABLE, supervise


@click.command()
@file_argument
@config_option
def serve(file: Path | None, config_file: Path | None) -> None:
    """Answer Envoy until SIGTERM. SIGHUP looks for a new configuration at once.

    FILE is the configuration, as with --config.
    """
    environ = dict(os.environ)
    seat = environ.pop(SEAT_VARIABLE, None)
    try:
        source = ConfigSource.find(file or config_file, environ)
        if seat is None and source.load().config.listen.workers > 1:
            sys.exit(supervise(source))
        place = None
        if seat is not None:
            address, report_to, lifeline = seat.rsplit(" ", 2)
            place = WorkerSeat(address, int(report_to), int(lifeline))
        sys.exit(run(source, place))
    except ConfigError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(FAULTY)
