"""The published run: the picture in the README is drawn from the figures beside it."""

import json
from pathlib import Path

from bench import plot, run

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_picture_shows_the_published_figures() -> None:
    """docs/bench.svg is what bench/plot.py makes of docs/bench.json."""
    figures = json.loads((DOCS / "bench.json").read_text())

    assert plot.draw(figures) == (DOCS / "bench.svg").read_text()


def test_the_published_run_is_complete() -> None:
    """Every ratio is there, so nothing was left out that did not look well."""
    figures = json.loads((DOCS / "bench.json").read_text())

    assert run.RATIOS.keys() <= figures["ratios"].keys()
