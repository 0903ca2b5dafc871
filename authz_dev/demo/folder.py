"""The folder of one run: made, locked while it lasts, removed. Those of killed runs are removed too."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PREFIX: Final = "authz-demo-"
LOCK: Final = ".running"
"""File that a run holds locked: the system unlocks it when the process ends, however it ends."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder for this run and remove it afterwards; before, remove those that no run uses any more.

    Raises:
        OSError: There is no place for it.
    """
    parent = Path(tempfile.gettempdir())
    remove_stale(parent)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        folder = Path(name)
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder


def remove_stale(parent: Path) -> None:
    """Remove folders of runs that were killed: this user's, with a lock that nobody holds."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            # Somebody else could have made a link here, in a folder that is for everybody.
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            # It is in use, is none of ours, or is being removed by another run.
            continue
