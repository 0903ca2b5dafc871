"""Which machines the pinned packages are for, and why another one is refused. No installing: `environment`.

Run by any Python 3.8 or newer, so that an old one is refused in words.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import NamedTuple

OLDEST = (3, 11)
NEWEST = (3, 14)
"""grpcio has wheels up to this one in the version that is pinned."""
OLDEST_GLIBC = (2, 31)
OLDEST_MACOS = 15
SUPPORTED = (
    "Supported: Linux (x86-64 or arm64, glibc 2.31 or newer) and macOS 15 or newer (Apple silicon), "
    "with Python 3.11 to 3.14"
)


class Machine(NamedTuple):
    """What decides.

    Attributes:
        system: As `sys.platform` has it.
        architecture: As `platform.machine` has it: that of the interpreter.
        python: Major and minor version of the interpreter.
        libc: As `confstr` has it: "glibc 2.36"; empty for another C library.
        macos: Version of macOS; empty elsewhere.
    """

    system: str
    architecture: str
    python: tuple[int, int]
    libc: str = ""
    macos: str = ""


def this_machine() -> Machine:
    """Look at the interpreter and the system that it runs on."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        libc = ""
    return Machine(
        sys.platform, platform.machine(), sys.version_info[:2], libc, platform.mac_ver()[0]
    )


def refusal(machine: Machine) -> str | None:
    """Return why the packages cannot be installed here, in one line; None where they can."""
    found = _unsupported(machine)
    return None if found is None else f"{found}. {SUPPORTED}."


def _unsupported(machine: Machine) -> str | None:
    if machine.system in ("win32", "cygwin", "msys"):
        return "Windows is not supported; use WSL 2"
    if machine.system == "darwin":
        found = _unsupported_macos(machine)
    elif machine.system == "linux":
        found = _unsupported_linux(machine)
    else:
        found = f"{machine.system} is not supported"
    return found or _unsupported_python(machine.python)


def _unsupported_macos(machine: Machine) -> str | None:
    if machine.architecture != "arm64":
        return "Macs with an Intel processor, and Pythons for them, are not supported"
    major = machine.macos.partition(".")[0]
    # Pythons that are built for old systems read 10.16 on every newer one.
    if major.isdigit() and int(major) != 10 and int(major) < OLDEST_MACOS:  # noqa: PLR2004 - macOS 10.x
        return f"macOS {machine.macos} is too old"
    return None


def _unsupported_linux(machine: Machine) -> str | None:
    if machine.architecture not in ("x86_64", "aarch64"):
        return f"Linux on {machine.architecture} is not supported"
    name, _, version = machine.libc.partition(" ")
    if name != "glibc":
        return "Linux without glibc (Alpine and others with musl) is not supported"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_GLIBC:
        return f"glibc {version} is too old"
    return None


def _unsupported_python(version: tuple[int, int]) -> str | None:
    name = ".".join(map(str, version))
    if version < OLDEST:
        return f"Python {name} is too old: make PYTHON=python3.11 ..."
    if version > NEWEST:
        return f"Python {name} is too new for the pinned packages: make PYTHON=python3.14 ..."
    return None
