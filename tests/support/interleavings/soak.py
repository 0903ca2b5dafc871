"""`python -m support.interleavings.soak [--minutes M] [--seed S] [--checks]`: what is held after trouble.

The same requests and faults as a run, without the killing of the service. Every few seconds its memory,
descriptors and threads are noted; at the end the last quarter is compared with the second one, when caches
have been filled. Exit status 1: something grew, or a request went wrong.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any, Final

from support.interleavings.disturbances import LASTING
from support.interleavings.fleet import fleet_of
from support.interleavings.run import Report, Run

MOST_GROWTH: Final = 0.05
"""Share of memory by which the last quarter may lie above the second one and count as flat."""
MOST_MORE: Final = 8
"""Descriptors and threads that may be more in the last quarter."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds at a moment.

    Attributes:
        minute: Since the beginning.
        rss_mb: Resident memory.
        pss_mb: The same, with its share only of what others have too.
        descriptors: Open files and connections.
        threads: Threads.
        requests: Requests that were answered until then.
    """

    minute: float
    rss_mb: float
    pss_mb: float
    descriptors: int
    threads: int
    requests: int


def sample(pid: int, began: float, requests: int) -> Sample:
    """Look at a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {
        name: int(value.split()[0]) / 1024
        for name, _, value in (line.partition(":") for line in lines)
    }
    return Sample(
        minute=round((monotonic() - began) / 60, 2),
        rss_mb=round(sizes["Rss"], 1),
        pss_mb=round(sizes["Pss"], 1),
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=len(list(Path(f"/proc/{pid}/task").iterdir())),
        requests=requests,
    )


def growth(samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """Compare the last quarter of the time with the second one, by medians."""
    quarter = max(1, len(samples) // 4)
    second, last = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    told: dict[str, dict[str, Any]] = {}
    for name in ("rss_mb", "pss_mb", "descriptors", "threads"):
        before, after = (median(getattr(each, name) for each in part) for part in (second, last))
        allowed = before * MOST_GROWTH if name.endswith("_mb") else MOST_MORE
        values = [getattr(each, name) for each in samples]
        told[name] = {
            "first": values[0], "second_quarter": before, "last_quarter": after, "most": max(values),
            "flat": after - before <= allowed,
        }  # fmt: skip
    return told


async def _soak(run: Run, pid: int, minutes: float, every: float) -> tuple[Report, list[Sample]]:
    began, samples = monotonic(), []

    async def watch() -> None:
        while not run.over:
            samples.append(sample(pid, began, run.report.requests))
            print(json.dumps(asdict(samples[-1])), flush=True)  # noqa: T201
            await asyncio.sleep(every)

    watching = asyncio.create_task(watch())
    report = await run.until(lambda _: monotonic() - began > minutes * 60)
    await watching
    return report, samples


def main() -> int:
    """Run, print each sample and the report, and return the exit status."""
    parser = argparse.ArgumentParser(prog="support.interleavings.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--thinking", type=float, default=0.1, help="mean seconds between a caller's requests"
    )
    parser.add_argument("--checks", action="store_true", help="by listen.checks")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        fleet_of(Path(folder), seed=arguments.seed, checks=arguments.checks) as fleet,
    ):
        run = Run(fleet, arguments.seed, LASTING, arguments.thinking)
        report, samples = asyncio.run(
            _soak(run, fleet.authz.pid, arguments.minutes, arguments.every)
        )
    grown = growth(samples)
    print(json.dumps({"growth": grown, **report.as_json()}, indent=2, ensure_ascii=False))  # noqa: T201
    flat = all(each["flat"] for each in grown.values())
    return int(not flat or report.failed)


if __name__ == "__main__":
    sys.exit(main())
