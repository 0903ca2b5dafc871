"""What the demo says that it needs is what its extra brings."""

import re
import tomllib
from pathlib import Path

from authz.demo.command import _NEEDED

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
