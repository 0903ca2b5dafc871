"""`SetClock`: the clocks of programs under test, which a test sets while they run.

It needs nothing of the machine: Python reads `set_clock_site/sitecustomize.py` as it starts, and what asks
for the time afterwards, MSAL included, is told that of a file in shared memory.
"""

import mmap
import os
import struct
from pathlib import Path
from typing import Final

from support.programs.stack import Clock

_FORM: Final = struct.Struct("d")
_SITE: Final = Path(__file__).with_name("set_clock_site")


class SetClock:
    """A wall clock that is set, and time that passes, for each program with `environ`.

    Args:
        file: Where the programs look.
        truth: The clock of everybody else, for whom time passes as well.
    """

    def __init__(self, file: Path, truth: Clock) -> None:
        file.write_bytes(bytes(2 * _FORM.size))
        with file.open("r+b") as opened:
            self._offsets = mmap.mmap(opened.fileno(), 2 * _FORM.size)
        self._truth = truth
        self._passed = 0.0
        path = os.pathsep.join(filter(None, (str(_SITE), os.environ.get("PYTHONPATH"))))
        self.environ = {"AUTHZ_TEST_CLOCK": str(file), "PYTHONPATH": path}

    def set_by(self, seconds: float) -> None:
        """Set the wall clock to so much beside the true time; 0 is right."""
        _FORM.pack_into(self._offsets, 0, seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks and for everybody."""
        self._passed += seconds
        self._truth.ahead += seconds
        _FORM.pack_into(self._offsets, _FORM.size, self._passed)
