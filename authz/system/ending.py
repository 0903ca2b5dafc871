"""The end of a process whose work is done: without waiting for its threads."""

import contextlib
import os
import sys
from typing import NoReturn


def end(status: int) -> NoReturn:
    """End the process now.

    Python would wait for every thread of a pool, and one that asks Entra may wait for seconds itself, long
    after nobody wants its answer any more. What they hold is of no use to anybody: sockets, and no files.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)
