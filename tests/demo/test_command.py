"""What the demo says that it needs is what its distribution names."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from authz_dev.demo.command import _NEEDED, started_as

ROOT = Path(__file__).resolve().parents[2]


def test_the_needed_distributions_are_those_of_the_extra() -> None:
    """The list in the code, the distribution's extra and the group of the lock do not drift apart."""
    service = _document("pyproject.toml")
    development = _document("authz_dev/pyproject.toml")["project"]
    brought = {
        *development["dependencies"],
        *development["optional-dependencies"]["demo"],
        *service["project"]["optional-dependencies"]["render"],
    }
    groups = service["dependency-groups"]
    locked = {
        requirement
        for name in ("demo", "development", "emulator")
        for requirement in groups[name]
        if isinstance(requirement, str)
    }

    assert locked == {one for one in brought if not one.startswith("entra-authz")}
    assert {re.split(r"[<>=\[]", requirement)[0] for requirement in locked} == set(_NEEDED)


def _document(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".venv/bin/authz", ".venv/bin/authz"),
        ("a folder/.venv/bin/authz", "'a folder/.venv/bin/authz'"),
        ("/checkout/authz/__main__.py", f"{sys.executable} -m authz"),
    ],
)
def test_next_step_is_the_program_as_it_was_started(name: str, expected: str) -> None:
    """So that it can be pasted, without an activated environment too."""
    assert started_as(name) == expected


def test_program_that_the_path_finds_needs_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an activated environment its name will do."""
    program = tmp_path / "authz"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert started_as(str(program)) == "authz"
