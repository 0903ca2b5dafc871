"""`authz serve`: answers Envoy until SIGTERM or SIGINT."""

import os
import sys
import traceback
from pathlib import Path
from typing import Final

import click

from authz.cli.options import FAULTY, config_option, file_argument
from authz.process.seat import VARIABLE, WorkerSeat
from authz.system.ending import end

_METRICS_FOLDERS: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
"""What images for Python's web servers set. Only workers of authz have use for it, and get their own."""


@click.command()
@file_argument
@config_option
def serve(file: Path | None, config_file: Path | None) -> None:
    """Answer Envoy until SIGTERM. SIGHUP looks for a new configuration at once.

    FILE is the configuration, as with --config.
    """
    place = _seat()
    # After that: Prometheus' client looks at variables when it is imported.
    from authz.config import ConfigError, ConfigSource  # noqa: PLC0415 - see above
    from authz.process.app import run  # noqa: PLC0415 - see above
    from authz.process.supervisor import supervise  # noqa: PLC0415 - see above

    try:
        source = ConfigSource.find(file or config_file, dict(os.environ))
        if place is None and source.load().config.listen.workers > 1:
            sys.exit(supervise(source))
        end(run(source, place))
    except ConfigError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(FAULTY)
    except Exception:  # noqa: BLE001 - a defect: it is shown, and nobody waits for threads either
        traceback.print_exc()
        end(1)


def _seat() -> WorkerSeat | None:
    """Take the variables that are about workers out of the environment, and return what they say."""
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        for variable in _METRICS_FOLDERS:
            os.environ.pop(variable, None)
        return None
    try:
        return WorkerSeat.of(text)
    except ValueError as error:
        click.echo(f"authz: {error}", err=True)
        sys.exit(FAULTY)
