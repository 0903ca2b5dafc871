"""Small files, read whole, with a bound on size and on time.

A file system can hang (NFS, FUSE, a storage driver that waits), and a FIFO blocks until somebody writes to
it. A read here ends in any case. What the content means is the reader's business.
"""

import os
import stat
import threading
from pathlib import Path
from typing import Final

PATIENCE: Final = 2.0
"""Seconds within which a file of a few kilobytes has to arrive."""


class FileFault(Exception):
    """A file that cannot be read. Its text is the cause, without the path and without any content."""


class BoundedFile:
    """Reads one file as often as it is asked. Several threads may ask.

    Args:
        path: The file.
        max_bytes: Its largest size.
        patience: Seconds for one read.
    """

    def __init__(self, path: Path, *, max_bytes: int, patience: float = PATIENCE) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._patience = patience
        self._stuck: _Read | None = None

    @property
    def hangs(self) -> bool:
        """Whether a read of it has not ended yet."""
        return self._stuck is not None and self._stuck.is_alive()

    def read(self) -> bytes:
        """Return the content as it is now. Blocks for as long as the patience lasts, and no longer.

        Raises:
            FileFault: It is not there, is no regular file, is too large, or does not arrive in time.
        """
        # While a read hangs, further ones would hang as well, and each would leave a thread behind.
        if not self.hangs:
            read = _Read(self._path, self._max_bytes)
            read.start()
            read.join(self._patience)
            if not read.is_alive():
                return read.result()
            self._stuck = read
        raise FileFault(f"reading it takes over {self._patience:g} s")


class _Read(threading.Thread):
    """One read. A daemon, so that a file system that hangs does not keep the process from ending."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__(name="file", daemon=True)
        self._path = path
        self._max_bytes = max_bytes
        self._content: bytes | None = None
        self._cause = "a defect"

    def run(self) -> None:
        """Read the file."""
        try:
            self._content = self._read()
        except FileFault as fault:
            self._cause = str(fault)
        except (OSError, ValueError) as error:
            self._cause = getattr(error, "strerror", None) or "its name cannot be used"

    def result(self) -> bytes:
        """Return what was read.

        Raises:
            FileFault: The file cannot be read.
        """
        if self._content is None:
            raise FileFault(self._cause)
        return self._content

    def _read(self) -> bytes:
        # Without O_NONBLOCK, opening a FIFO waits for somebody who writes.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileFault("is no regular file")
            content = file.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            raise FileFault(f"exceeds {self._max_bytes} bytes")
        return content
