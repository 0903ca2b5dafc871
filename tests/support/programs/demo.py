"""The demo as a program: started, watched from outside, ended."""

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CODE = (
    "import sys; from authz_dev.demo.command import run; "
    "sys.exit(run(as_json='--json' in sys.argv, keep='--keep' in sys.argv, verbose='--verbose' in sys.argv))"
)
_LONGEST = 60.0


@dataclass
class Demo:
    """A demo that runs as a program.

    Args:
        process: The program.
        folder: Where its output is.
        temporary: The folder in which it makes its own: short, for the path of a Unix socket in it.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    temporary: Path

    @property
    def stdout(self) -> str:
        """What it wrote to standard output."""
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        """What it wrote to standard error."""
        return (self.folder / "stderr").read_text()

    def document(self) -> dict[str, Any]:
        """Return its machine-readable output."""
        document: dict[str, Any] = json.loads(self.stdout)
        return document

    def line_after(self, comment: str) -> str:
        """Return the line to paste that stands below a comment."""
        found = re.search(rf"^# {re.escape(comment)}.*\n(.+)$", self.stderr, re.MULTILINE)
        assert found is not None, self.stderr
        return found[1]

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Wait until something has happened; fails when the program ends or takes too long first."""
        deadline = time.monotonic() + _LONGEST
        while not happened():
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, self.stderr
                continue
            assert happened(), self.stderr

    def children(self) -> set[int]:
        """Return the ids of the processes that it has started and that still run."""
        return {
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and _parent_of(entry) == self.process.pid
        }

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(_LONGEST)


def _parent_of(process: Path) -> int | None:
    """Return the parent of a process by its folder in /proc; None if it has just ended."""
    try:
        status = (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(status.rpartition(")")[2].split()[1])


@dataclass(frozen=True)
class Ended:
    """A demo that is over.

    Attributes:
        demo: What it was.
        children: Processes that ran before its end.
        status: Its exit status.
    """

    demo: Demo
    children: set[int]
    status: int


def short_folder() -> Path:
    """Return a new folder whose path is short enough for a Unix socket; gone when the tests are over."""
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def running(folder: Path, *options: str, temporary: Path | None = None) -> Iterator[Demo]:
    """Run the demo with options of its command line.

    Its temporary files go to ``temporary``, or to a folder whose path a socket's fits into.
    """
    temporary = temporary or short_folder()
    environ = {**os.environ, "TMPDIR": str(temporary), "NO_COLOR": "1"}
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", _CODE, *options], stdout=stdout, stderr=stderr, env=environ
        )
    demo = Demo(process, folder, temporary)
    try:
        yield demo
    finally:
        if process.poll() is None:
            demo.end()
