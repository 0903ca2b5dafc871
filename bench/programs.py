"""Programs that the bench starts: pinned to cores, and measured from outside by /proc."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from authz_dev.demo.processes import Program, StartFailure
from bench.machine import pinned

_TICKS = os.sysconf("SC_CLK_TCK")
TICK: Final = 1 / _TICKS
"""Seconds of processor time that the system tells apart."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PAUSE = 0.02


class Measured(Program):
    """A program with a processor time and a size.

    Args:
        name: What it is called in messages.
        command: What to run.
        log: File that takes its output.
        cores: Where it may run.
        ready: Whether it can be used.
        environ: Its environment, besides what every program needs.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        cores: frozenset[int],
        ready: Callable[[], bool],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name, command, log=log, ready=ready, environ=environ)
        self._cores = cores

    def start(self) -> None:
        """Run it on its cores, without waiting."""
        with pinned(self._cores):
            super().start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Return the processor time that it and its children have used so far, by every thread."""
        return sum(_cpu_seconds(pid) for pid in _family(self.pid))

    def resident_bytes(self) -> int:
        """Return how much memory it holds now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    def forget_log(self) -> None:
        """Empty its log: a record for each request would fill the disk."""
        os.truncate(self.log, 0)


def wait(programs: Sequence[Program]) -> None:
    """Wait until every program can be used.

    Raises:
        StartFailure: One ended, or took too long.
    """
    awaited = list(programs)
    while awaited:
        awaited = [program for program in awaited if program.came_up() is None]
        _pause()


def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait for a condition.

    Raises:
        StartFailure: It did not come true in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise StartFailure(f"{what}: not within {seconds:.0f} s")
        _pause()


def _pause() -> None:
    threading.Event().wait(_PAUSE)


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


def _cpu_seconds(pid: int) -> float:
    # The name, in brackets, may hold blanks: what follows it does not.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
