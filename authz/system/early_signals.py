"""What a process does when it is told something before it serves. Imports nothing that takes time.

As process 1 of a container it would not even hear of SIGTERM: the kernel drops signals that process 1 has no
handler for. Any other process would be killed by a SIGHUP, which means a reload.
"""

import os
import signal
from types import FrameType

_ENDED_BY = 128
"""A shell's exit status of a program that a signal has ended is this and the signal's number."""


def heed() -> None:
    """From now on end at SIGTERM and SIGINT, where there is nothing to drain yet, and do nothing at SIGHUP.

    Who serves replaces these handlers, and then looks at the configuration once more.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    signal.signal(signal.SIGHUP, _wait)


def _end(number: int, _: FrameType | None) -> None:
    # Not by an exception: Python drops those that are raised in some callbacks, of imports among others.
    os._exit(_ENDED_BY + number)


def _wait(_: int, __: FrameType | None) -> None:
    """The configuration is about to be read."""
