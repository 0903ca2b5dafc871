"""Standard outputs that take no more: a pipe that nobody reads, one whose reader is gone, a full disk."""

import fcntl
import os
from threading import Event, Thread
from typing import Final, Self

PIPE: Final = 4096
"""Bytes that a pipe of tests holds: the least that Linux gives."""
DEFECTS: Final = (b"Traceback", b"check failed", b"observer failed")
"""Words of records that tell of a defect of the service."""


def small_pipe() -> tuple[int, int]:
    """Return the reading and the writing end of a pipe that is full soon."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
    return reading, writing


def broken_pipe() -> int:
    """Return a pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def full_disk() -> int:
    """Return a file on a full disk."""
    return os.open("/dev/full", os.O_WRONLY)


class Reader:
    """Reads a pipe from a thread of its own, and stalls when it is asked to; a context manager.

    Attributes:
        writing: The end to write to.
        lines: The last lines that were read, a bounded number of them.
        complaints: Those of all lines that tell of a defect, a bounded number of them.
    """

    def __init__(self, keep: int = 2000) -> None:
        self._reading, self.writing = small_pipe()
        self._keep = keep
        self._flowing = Event()
        self._flowing.set()
        self.lines: list[bytes] = []
        self.complaints: list[str] = []
        self._thread = Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()
        os.close(self.writing)
        self._thread.join()

    def stall(self) -> None:
        """Read no more, until `go_on`."""
        self._flowing.clear()

    def go_on(self) -> None:
        """Read again."""
        self._flowing.set()

    def _read(self) -> None:
        with os.fdopen(self._reading, "rb", buffering=0) as pipe:
            rest = b""
            while part := pipe.read(65_536):
                *lines, rest = (rest + part).split(b"\n")
                self.lines = (self.lines + lines)[-self._keep :]
                defects = [
                    line.decode(errors="replace")
                    for line in lines
                    if any(word in line for word in DEFECTS)
                ]
                self.complaints = (self.complaints + defects)[: self._keep]
                self._flowing.wait()
