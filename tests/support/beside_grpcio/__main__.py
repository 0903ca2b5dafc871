"""`python -m support.beside_grpcio [--frames N] [--seed S] [--keep]`: a long run, and its report.

Exit status 1: a difference that is not intended. A finding names its seed, which repeats its conversation:
`--seed S --frames 1`.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

import structlog

from support.beside_grpcio.corpus import keep
from support.beside_grpcio.run import Report, run

_OFTEN = 5_000


def told(report: Report) -> str:
    """Return a report as text."""
    by_class = Counter((each.about, each.way) for _, each in report.found)
    lines = [
        f"seeds {report.seed} to {report.seed + report.conversations - 1}, {report.seconds:.0f} seconds",
        f"{report.frames} frames in {report.conversations} conversations",
        f"conversations with a broken rule: {report.conversations - report.mutations['']}",
        "outcomes (ours, grpcio's):",
        *(f"  {count:9} {one}, {two}" for (one, two), count in sorted(report.outcomes.items())),
        "intended differences:",
        *(
            f"  {count:9} {about}: {way.value}"
            for (about, way), count in sorted(report.intended.items(), key=str)
        ),
        f"differences: {len(report.found)}",
        *(f"  {count:9} {about}: {way.value}" for (about, way), count in by_class.most_common()),
        *(f"  seed {n}: {each.about}: {each.way.value} ({each.text})" for n, each in report.found),
    ]
    return "\n".join(lines)


def main() -> int:
    """Run, print the report and return the exit status."""
    parser = argparse.ArgumentParser(prog="support.beside_grpcio", description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="write the kept conversations anew")
    arguments = parser.parse_args()
    structlog.configure(processors=[_drop])

    def progress(report: Report) -> None:
        if report.conversations % _OFTEN == 0:
            print(  # noqa: T201 - a long run shows that it goes on
                f"{report.frames} frames, {report.seconds:.0f} seconds, {len(report.found)} differences",
                flush=True,
            )

    with tempfile.TemporaryDirectory() as folder:
        if arguments.keep:
            print(f"{asyncio.run(keep(Path(folder)))} conversations are kept")  # noqa: T201 - likewise
            return 0
        report = asyncio.run(
            run(Path(folder), seed=arguments.seed, frames=arguments.frames, progress=progress)
        )
    print(told(report))  # noqa: T201 - whoever starts it wants to see it
    return int(bool(report.found))


def _drop(*_: object) -> dict[str, object]:
    raise structlog.DropEvent


if __name__ == "__main__":
    sys.exit(main())
