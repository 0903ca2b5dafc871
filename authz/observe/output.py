"""`LogOutput`: lines to a file descriptor, written by a thread of its own.

Who hands over a line neither waits nor fails, whatever becomes of the descriptor: its reader stalls or is
gone, the disk is full. How a line looks is `authz.observe.logging`.
"""

import os
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

MOST_HELD: Final = 8 * 1024**2
"""Bytes of lines that wait to be written; further ones are dropped."""
_LARGEST_WRITE: Final = select.PIPE_BUF
"""Bytes that a pipe takes whole, so that lines of several processes do not mix (POSIX `write`)."""


class LogOutput:
    """Lines on their way to a descriptor.

    Args:
        descriptor: Where they go; it is duplicated. None drops them all: the program has no output.
        tell: Makes the line that says how many were dropped, once lines go out again.
        most_held: Bytes that may wait.

    Attributes:
        dropped: Lines that were dropped so far, for want of room or because they could not be written.
    """

    def __init__(
        self,
        descriptor: int | None,
        *,
        tell: Callable[[int], bytes],
        most_held: int = MOST_HELD,
    ) -> None:
        self._descriptor = None if descriptor is None else os.dup(descriptor)
        self._tell = tell
        self._most_held = most_held
        self.dropped = 0
        self._told = 0
        self._held = 0
        self._waiting: list[bytes] = []
        self._torn = False
        self._closing = False
        self._lock = threading.Lock()
        self._work = threading.Event()
        # A writer that hangs must not hold up the end of the program.
        self._writer = threading.Thread(target=self._write_on, name="log", daemon=True)
        self._writer.start()

    def write(self, lines: Sequence[bytes]) -> None:
        """Take over lines, or drop those for which there is no room."""
        with self._lock:
            for line in lines:
                if self._descriptor is None or self._held + len(line) > self._most_held:
                    self.dropped += 1
                else:
                    self._held += len(line)
                    self._waiting.append(line)
        if not self._work.is_set():
            self._work.set()

    def close(self, seconds: float) -> None:
        """Write what waits, for so many seconds at most, and end."""
        self._closing = True
        self._work.set()
        self._writer.join(seconds)

    def _write_on(self) -> None:
        closing = False
        while not closing:
            self._work.wait()
            # Cleared first: what comes from now on sets it again.
            self._work.clear()
            closing = self._closing
            with self._lock:
                lines, self._waiting = self._waiting, []
            for part in _parts(lines):
                self._put(part)
                with self._lock:
                    self._held -= sum(map(len, part))
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _put(self, lines: Sequence[bytes]) -> None:
        """Write some lines; count them as dropped if that cannot be."""
        try:
            self._write_out(b"".join(lines))
            if self.dropped > self._told:
                dropped = self.dropped
                self._write_out(self._tell(dropped - self._told))
                self._told = dropped
        except OSError:
            with self._lock:
                self.dropped += len(lines)

    def _write_out(self, data: bytes) -> None:
        """Write all of it, waiting as long as it takes.

        Raises:
            OSError: Nobody reads any more, or the disk is full.
        """
        assert self._descriptor is not None
        rest = memoryview(b"\n" + data if self._torn else data)
        while rest:
            try:
                count = os.write(self._descriptor, rest)
            except BlockingIOError:
                # Another process that shares the descriptor may have made it non-blocking.
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
                continue
            rest = rest[count:]
            # A line that ends early must not take the next one with it.
            self._torn = len(rest) > 0


def _parts(lines: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Put lines together, up to what is written at once."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and size + len(line) > _LARGEST_WRITE:
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part
