"""The published run: the picture in the README is drawn from the figures beside it."""

import json
import re
from pathlib import Path

from bench import plot, run

NEWER = {"edge_rules_vs_envoy", "check_rules_vs_check"}
"""Ratios that came after the published run, and will be in the next one."""
DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_picture_shows_the_published_figures() -> None:
    """docs/bench.svg is what bench/plot.py makes of docs/bench.json."""
    figures = json.loads((DOCS / "bench.json").read_text())

    assert plot.draw(figures) == (DOCS / "bench.svg").read_text()


def test_the_published_run_is_complete() -> None:
    """Every ratio is there, so nothing was left out that did not look well."""
    figures = json.loads((DOCS / "bench.json").read_text())

    assert NEWER == run.RATIOS.keys() - figures["ratios"].keys()


def test_nothing_else_was_running_during_the_published_run() -> None:
    """A run on a busy machine says so itself."""
    figures = json.loads((DOCS / "bench.json").read_text())

    assert [] == figures["doubts"]


def test_the_page_on_performance_has_the_published_figures() -> None:
    """Rounded as the page writes them."""
    published = json.loads((DOCS / "bench.json").read_text())
    figures = {**published["figures"], **published["ratios"]}
    shown = re.findall(
        r"^\| `(\w+)` \| ([0-9.]+) \|$", (DOCS / "performance.md").read_text(), re.MULTILINE
    )

    assert len(shown) > 10
    assert shown == [
        (name, f"{figures[name]:.{len(text.partition('.')[2])}f}") for name, text in shown
    ]
