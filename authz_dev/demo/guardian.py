"""Ends the demo's programs and removes its folder where the demo itself could not: it was killed.

This file is a program of its own, with the standard library only: it waits for the end of its standard input,
which only the demo holds open. `Guardian` starts it. All that the demo starts joins the guardian's process
group as it begins, so nothing is started that the guardian does not end.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

GRACE = 1.0
"""Seconds that programs get to end by themselves."""
_REGULAR_END = b"."


class Guardian:
    """The running guardian of a folder.

    Args:
        folder: What it removes.

    Raises:
        OSError: It cannot be run.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - of this program
            [sys.executable, "-I", "-S", __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Of its own: Ctrl-C is for the demo, which ends the programs in order.
            process_group=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let it go: the programs have ended."""
        try:
            self._process.communicate(_REGULAR_END)
        except BrokenPipeError:
            self._process.wait()

    @property
    def group(self) -> int:
        """The process group that programs join."""
        return self._process.pid


def main() -> None:
    """Wait for the demo's end; if it was none that it has announced, end everything."""
    # Signals for the group are those that this program sends, or somebody's who means the whole group.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.stdin.buffer.read():
        return
    os.killpg(0, signal.SIGTERM)
    threading.Event().wait(GRACE)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
