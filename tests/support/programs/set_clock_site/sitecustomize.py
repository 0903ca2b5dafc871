"""Read by Python as it starts, where this folder is on its path: both clocks are those of a file.

`support.programs.set_clock` writes the file. What is read in C, such as the validity of TLS certificates and
the event loop's own time, is not changed.
"""

import mmap
import os
import struct
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

_epoch, _monotonic = time.time, time.monotonic
_FORM = struct.Struct("dd")


def _install(file: Path) -> None:
    with file.open("rb") as opened:
        offsets = mmap.mmap(opened.fileno(), _FORM.size, access=mmap.ACCESS_READ)
    read = partial(_FORM.unpack_from, offsets)

    def epoch() -> float:
        set_by, passed = read()
        return _epoch() + float(set_by) + float(passed)

    def monotonic() -> float:
        return _monotonic() + float(read()[1])

    time.time, time.monotonic = epoch, monotonic
    time.time_ns = lambda: int(epoch() * 1e9)
    # It compares with what C has read: on a machine whose clock is set, both are set.
    vars(import_module("grpc._cython.cygrpc"))["time"] = SimpleNamespace(time=_epoch)


if "AUTHZ_TEST_CLOCK" in os.environ:
    _install(Path(os.environ["AUTHZ_TEST_CLOCK"]))
