"""Each command for Kubernetes that renders an Envoy configuration keeps its statistics on."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (
    *(
        ROOT / "docs" / name
        for name in ("kubernetes.md", "https.md", "injection.md", "interception.md")
    ),
    *(ROOT / "kubernetes").rglob("*.md"),
)
COMMAND = re.compile(r"authz envoy (?:[^\n`]|\\\n)*? (?:>|--output) \S+")


def commands() -> list[str]:
    """Return every command that writes a file."""
    return [found for page in PAGES for found in COMMAND.findall(page.read_text("utf-8"))]


@pytest.mark.parametrize("command", commands())
def test_a_rendering_for_kubernetes_has_statistics(command: str) -> None:
    """Without the option the alerts that go by Envoy's metrics could not fire."""
    assert "--statistics 0.0.0.0:9903" in command


def test_the_commands_are_found() -> None:
    """That of a pipeline among them."""
    assert any("--no-values" in command for command in commands())
