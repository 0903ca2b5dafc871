"""Machines that the pinned packages are not for are refused in words, before anything is fetched."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import machine
import pytest
from machine import Machine

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (Machine("darwin", "x86_64", (3, 12), macos="15.1"), "Intel processor"),
        (Machine("darwin", "arm64", (3, 12), macos="14.7"), "macOS 14.7 is too old"),
        (Machine("win32", "AMD64", (3, 12)), "Windows is not supported; use WSL 2"),
        (Machine("cygwin", "x86_64", (3, 12)), "Windows is not supported; use WSL 2"),
        (Machine("linux", "x86_64", (3, 12)), "musl"),
        (Machine("linux", "aarch64", (3, 12), "glibc 2.28"), "glibc 2.28 is too old"),
        (Machine("linux", "riscv64", (3, 12), "glibc 2.41"), "Linux on riscv64"),
        (Machine("freebsd14", "amd64", (3, 12)), "freebsd14 is not supported"),
        (Machine("linux", "x86_64", (3, 10), "glibc 2.36"), "Python 3.10 is too old"),
        (Machine("linux", "x86_64", (3, 15), "glibc 2.36"), "Python 3.15 is too new"),
    ],
)
def test_other_machines_are_refused_in_one_line_that_says_which_are_supported(
    here: Machine, expected: str
) -> None:
    """What is wrong comes first, and what would do second."""
    reason = machine.refusal(here)

    assert reason is not None
    assert expected in reason
    assert reason.endswith(f"{machine.SUPPORTED}.")
    assert "\n" not in reason


@pytest.mark.parametrize(
    "here",
    [
        Machine("linux", "x86_64", (3, 11), "glibc 2.31"),
        Machine("linux", "aarch64", (3, 14), "glibc 2.41"),
        Machine("darwin", "arm64", (3, 13), macos="15.0"),
        Machine("darwin", "arm64", (3, 13), macos="26.1"),
        Machine("darwin", "arm64", (3, 11), macos="10.16"),
    ],
)
def test_supported_machines_are_not_refused(here: Machine) -> None:
    """10.16 is what some Pythons read on every newer macOS."""
    assert machine.refusal(here) is None


def test_this_machine_is_supported() -> None:
    """The tests run, so it is: what is looked up agrees."""
    assert machine.refusal(machine.this_machine()) is None


@pytest.mark.parametrize("verb", ["demo", "setup"])
def test_make_refuses_before_it_installs_anything(tmp_path: Path, verb: str) -> None:
    """One line on standard error, and no environment is made."""
    for name in ("Makefile", "pyproject.toml", "requirements"):
        (tmp_path / name).symlink_to(ROOT / name)
    elsewhere = tmp_path / "python"
    elsewhere.write_text(
        f"#!{sys.executable}\nimport runpy, sys\nsys.platform = 'win32'\n"
        "sys.argv = sys.argv[1:]\nsys.path.insert(0, 'requirements')\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    elsewhere.chmod(0o755)
    done = subprocess.run(
        ["make", "--directory", tmp_path, f"PYTHON={elsewhere}", verb],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]

    assert [f"authz: Windows is not supported; use WSL 2. {machine.SUPPORTED}."] == lines
    assert done.returncode != 0
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("name", ["machine.py", "environment.py", "failures.py", "terminal.py"])
def test_old_pythons_can_read_the_refusal(name: str) -> None:
    """Its text has no syntax that is newer than Python 3.8, else a traceback would be the answer."""
    text = (ROOT / "requirements" / name).read_text()

    ast.parse(text, feature_version=(3, 8))
    assert "from __future__ import annotations" in text


def test_readme_says_the_same_in_one_line() -> None:
    """Where a newcomer looks first."""
    assert machine.SUPPORTED in (ROOT / "README.md").read_text()
