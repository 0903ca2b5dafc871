"""The picture of one run's results, as SVG: bars of ratios, each with its range, and a few figures.

Written by hand, without a plotting library: a bar is a rectangle, and what is drawn from the published
JSON can then be compared with the published picture, character by character, wherever the tests run.
Arguments: a file of results, and where to write the picture.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

_WIDTH: Final = 860
_LEFT: Final = 240
_BAR_WIDTH: Final = 380
_ROW: Final = 26
_BAR: Final = 16
_STYLE: Final = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; }
  .note { font-size: 12px; fill: #57606a; }
  .ground { fill: #ffffff; } .own { fill: #1f6feb; } .baseline { fill: #8c959f; }
  .range { stroke: #24292f; stroke-width: 1.5; } .halo { stroke: #ffffff; stroke-width: 5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .note { fill: #9198a1; } .range { stroke: #e6edf3; }
    .ground { fill: #0d1117; } .halo { stroke: #0d1117; } .own { fill: #4493f8; } .baseline { fill: #6e7681; }
  }
"""


@dataclass(frozen=True, slots=True)
class _Bar:
    """One bar: the row, what it is called, and whether it is something to compare with."""

    row: str
    label: str
    baseline: bool = False


_DIRECT: Final = (
    _Bar("envoy", "Envoy alone", baseline=True),
    _Bar("pushed", "pushed"),
    _Bar("edge_hit", "repeated by Envoy"),
    _Bar("floor", "do-nothing gRPC server", baseline=True),
    _Bar("check_hit", "checked, user known"),
)
_UPSTREAM: Final = (
    _Bar("envoy_upstream", "Envoy alone", baseline=True),
    _Bar("pushed_upstream", "pushed"),
    _Bar("edge_upstream", "repeated by Envoy"),
    _Bar("check_upstream", "checked, user known"),
)


def draw(results: Mapping[str, Any]) -> str:
    """Return the picture of results, as `Results.document` describes them."""
    parts: list[str] = []
    y = 24
    panels = (
        ("Requests per second relative to Envoy alone, no API behind it", _DIRECT),
        ("The same, with an API behind it", _UPSTREAM),
    )
    for title, bars in panels:
        parts.append(_text(12, y, title, "title"))
        y = _panel(parts, results, bars, y + 14) + 22
    for line in _notes(results):
        parts.append(_text(12, y, line, "note"))
        y += 18
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" '
        f'height="{y}" role="img" aria-label="Rates relative to Envoy alone">\n'
        f"<style>{_STYLE}</style>\n"
        # A ground of its own: a page may be dark where the browser asks for light, and the reverse.
        f'<rect class="ground" width="{_WIDTH}" height="{y}"/>\n{body}\n</svg>\n'
    )


def _panel(parts: list[str], results: Mapping[str, Any], bars: Sequence[_Bar], y: int) -> int:
    rows = {row["name"]: row for row in results["rows"]}
    first = bars[0].row
    for bar in bars:
        if bar.row not in rows:
            continue
        rate = rows[bar.row]["requests_per_second"]
        ratio, least, most = _ratio(results, bar.row, first)
        middle = y + _BAR / 2
        parts.append(_text(_LEFT - 10, y + 13, bar.label, anchor="end"))
        kind = "baseline" if bar.baseline else "own"
        parts.append(
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{_BAR_WIDTH * ratio:.1f}" '
            f'height="{_BAR}" rx="2"/>'
        )
        if least < most:
            from_, to = (f"{_LEFT + _BAR_WIDTH * end:.1f}" for end in (least, most))
            line = f"M{from_} {middle - 4}v8M{from_} {middle}H{to}M{to} {middle - 4}v8"
            parts.extend(f'<path class="{kind}" d="{line}"/>' for kind in ("halo", "range"))
        end = _LEFT + _BAR_WIDTH * max(ratio, most) + 10
        parts.append(_text(end, y + 13, f"{ratio:.2f} · {rate:,.0f}/s"))
        y += _ROW
    return y


def _ratio(results: Mapping[str, Any], row: str, first: str) -> tuple[float, float, float]:
    """Return a row's rate over the first one's, with the range over the rounds."""
    if row == first:
        return 1.0, 1.0, 1.0
    name = f"{row.removesuffix('_hit').removesuffix('_upstream')}_vs_{first}"
    least, most = results["ratio_ranges"][name]
    return results["ratios"][name], least, most


def _notes(results: Mapping[str, Any]) -> Iterator[str]:
    ratios, figures, machine = results["ratios"], results["figures"], results["machine"]
    first, last = results["users"][0]["users"], results["users"][-1]["users"]
    hits = next(value for name, value in ratios.items() if name.startswith("hit_latency_"))
    yield "32 connections, 1.5 kB tokens, one Envoy worker thread. Lines: range over the rounds."
    least, most = results["ratio_ranges"]["check_vs_floor"]
    yield (
        f"A Check of a known user runs at {ratios['check_vs_floor']:.2f} ({least:.2f} to {most:.2f}) of the "
        "rate of the do-nothing server."
    )
    yield (
        f"A first on-behalf-of call takes Entra's own answers and "
        f"{figures['cold_obo_extra_ms']:.1f} ms; with a cached T1, one answer and "
        f"{figures['warm_t1_extra_ms']:.1f} ms."
    )
    yield (
        f"A cached user takes {figures['bytes_per_user'] / 1000:.1f} kB. With {last:,} of them "
        f"a hit takes {hits:.2f} times as long as with {first:,}."
    )
    yield (
        f"{figures['mixed_users']:,.0f} users and {figures['mixed_apis']:.0f} APIs, starting "
        f"cold: {figures['entra_calls_per_1000_requests']:.0f} calls to Entra per 1,000 requests, "
        f"{figures['entra_calls_per_1000_requests_of_the_last_fifth']:.0f} towards the end."
    )
    yield (
        f"{machine['processor']}, {machine['cores']} cores; Envoy {machine['envoy']}, "
        f"Python {machine['python']}, authz {machine['authz']}; {machine['taken'][:10]}"
    )


def _text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.0f}" y="{y}" text-anchor="{anchor}">{escape(content)}</text>'


if __name__ == "__main__":
    source, picture = map(Path, sys.argv[1:3])
    picture.write_text(draw(json.loads(source.read_text())))
