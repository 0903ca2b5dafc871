"""What one run of the bench found, as the JSON document that it writes, and as tables for people."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.rows import Ratio, Row

FOLDER: Final = Path(__file__).parent / "results"
LATEST: Final = FOLDER / "latest.json"
MOST_LOAD: Final = 0.5
"""Of each core before a run begins, beyond which something else was running."""
MOST_SPREAD: Final = 0.25
"""Of the rates of Envoy alone, which nothing of ours explains."""
_ALONE: Final = "envoy"


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that was measured in one run.

    Attributes:
        machine: Where.
        rows: Rates and latencies.
        ratios: One row's rate over another's, or one latency over another.
        figures: Counts, sizes and times, by name; the unit is in the name.
        users: The service at each number of users.
    """

    machine: Mapping[str, Any]
    rows: Sequence[Row]
    ratios: Mapping[str, Ratio]
    figures: Mapping[str, float] = field(default_factory=dict)
    users: Sequence[Mapping[str, Any]] = ()

    @property
    def doubts(self) -> list[str]:
        """Why the run should not be believed: signs of a busy machine."""
        found = []
        load, most = self.machine["load_before"], MOST_LOAD * self.machine["cores"]
        if load > most:
            found.append(f"the load before was {load}: expected {most:g} at most")
        spread = next((row.spread for row in self.rows if row.name == _ALONE), 0.0)
        if spread > MOST_SPREAD:
            found.append(
                f"the rates of Envoy alone spread by {spread:.0%}: expected {MOST_SPREAD:.0%} at most"
            )
        return found

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "machine": dict(self.machine),
            "doubts": self.doubts,
            "rows": [_without_rates(row) for row in self.rows],
            "ratios": {name: ratio.median for name, ratio in self.ratios.items()},
            "ratio_ranges": {name: [r.least, r.most] for name, r in self.ratios.items()},
            "figures": dict(self.figures),
            "users": [dict(level) for level in self.users],
        }

    def write(self, file: Path) -> None:
        """Write the JSON document."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.document(), indent=2) + "\n")

    def show(self, console: Console) -> None:
        """Print the tables."""
        console.print(_rows_table(self.rows))
        console.print(_ratio_table(self.ratios))
        if self.users:
            console.print(_levels_table(self.users))
        if self.figures:
            console.print(_figures_table(self.figures))
        for doubt in self.doubts:
            console.print(f"Not to be believed: {doubt}.", style="yellow")


def _without_rates(row: Row) -> dict[str, Any]:
    content = asdict(row)
    del content["rates"]
    return content


def _rows_table(rows: Iterable[Row]) -> Table:
    table = _table(
        "row", "requests/s", "spread", "p50\nµs", "p99\nµs", "p99 µs\nloaded", "Checks\neach",
        "Envoy\nCPU µs", "server\nCPU µs",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row.name,
            f"{row.requests_per_second:,.0f}",
            f"{row.spread:.0%}",
            *(f"{value:,.0f}" for value in (row.p50_us, row.p99_us, row.loaded_p99_us)),
            _number(row.checks_per_request, ".2g"),
            _number(row.envoy_cpu_us, ".0f"),
            _number(row.server_cpu_us, ".0f"),
        )
    return table


def _ratio_table(ratios: Mapping[str, Ratio]) -> Table:
    table = _table("ratio", "median", "least", "most")
    for name, ratio in ratios.items():
        table.add_row(name, *(f"{value:.3f}" for value in (ratio.median, ratio.least, ratio.most)))
    return table


def _levels_table(levels: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(*(name.replace("_", " ") for name in levels[0]))
    for level in levels:
        table.add_row(*("" if value is None else f"{value:,}" for value in level.values()))
    return table


def _figures_table(figures: Mapping[str, float]) -> Table:
    table = _table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}")
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    return table


def _number(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)
