"""Secrets and tokens that a page's lines write into the checkout are not committed by accident."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_PRIVATE: Final = re.compile(r"\(umask 077;.*? > ([\w.-]+)\)", re.DOTALL)
_EMULATOR: Final = re.compile(r"authz emulator .*?--out ([\w.-]+)")


def test_what_a_page_writes_for_ones_own_eyes_is_ignored() -> None:
    """Files made under `umask 077`, and the emulator's folder, are names of .gitignore."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    text = "\n".join(page.read_text() for page in PAGES)
    private = set(_PRIVATE.findall(text))
    folders = set(_EMULATOR.findall(text))

    assert ({"client-secret", "graph-token", "sidecar.env", "user-token"}, {"entra"}) == (
        private,
        folders,
    )
    assert [name for name in private if f"/{name}" not in ignored] == []
    assert [name for name in folders if f"/{name}/" not in ignored] == []
