"""Values for variables that a configuration refers to and that are not set: `--no-values`."""

from pathlib import Path

from authz.config.placeholders import stand_ins
from authz.config.reading.variables import CONFIG_VARIABLE


def stand_ins_of(file: Path | None, environ: dict[str, str]) -> dict[str, str]:
    """Return values for variables that a configuration file refers to and that are not set."""
    named = environ.get(CONFIG_VARIABLE)
    path = file or (Path(named) if named else None)
    return stand_ins(path, environ) if path is not None else {}
