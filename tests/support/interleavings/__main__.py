"""`python -m support.interleavings [--requests N] [--seed S] [--checks]`: a long run, and its report.

Exit status 1: a wrong identity, a denial that nothing explains, or a defect in the log.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from support.interleavings.fleet import fleet_of
from support.interleavings.run import Run, told


def main() -> int:
    """Run, print the report and return the exit status."""
    parser = argparse.ArgumentParser(prog="support.interleavings", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--checks", action="store_true", help="by listen.checks")
    arguments = parser.parse_args()
    number: int = arguments.requests
    with (
        tempfile.TemporaryDirectory() as folder,
        fleet_of(Path(folder), seed=arguments.seed, checks=arguments.checks) as fleet,
    ):
        run = Run(fleet, arguments.seed)
        report = asyncio.run(run.until(lambda seen: seen.requests >= number))
    print(told(report))  # noqa: T201 - whoever starts it wants to see it
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
