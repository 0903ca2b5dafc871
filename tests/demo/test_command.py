"""What the demo says that it needs is what its extra brings."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from authz_dev.demo.command import _NEEDED, started_as

ROOT = Path(__file__).resolve().parents[2]


def test_the_needed_distributions_are_those_of_the_extra() -> None:
    """The list in the code and the extras in pyproject.toml do not drift apart."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    brought = {
        re.split(r"[<>=\[]", requirement)[0]
        for name in ("demo", "render", "emulator")
        for requirement in extras[name]
    }

    assert brought - {"entra-authz"} == set(_NEEDED)


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
