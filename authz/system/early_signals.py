"""`heed`: handlers for signals that come before the service runs. Imports nothing that takes time.

PID 1 of a container does not receive a signal for which it has no handler: SIGTERM during the start would be
lost. Any other process would be killed by SIGHUP, which means a reload here.
"""

import os
import signal
from types import FrameType

_ENDED_BY = 128
"""A shell's exit status of a program that a signal has ended is this and the signal's number."""


def heed() -> None:
    """End the process at SIGTERM and SIGINT, for there is nothing to drain yet, and ignore SIGHUP.

    The service replaces these handlers, and looks at the configuration once more after that.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    signal.signal(signal.SIGHUP, _ignore)


def _end(number: int, _: FrameType | None) -> None:
    # Not by an exception: Python drops those that are raised in some callbacks, of imports among others.
    os._exit(_ENDED_BY + number)


def _ignore(_: int, __: FrameType | None) -> None:
    """The configuration is about to be read."""
