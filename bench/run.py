"""`make bench`: measures everything in one run, prints tables, writes results/latest.json and .svg."""

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console

from authz_dev.demo.processes import StartFailure
from bench import (
    cold,
    exchanges,
    flights,
    large,
    load,
    machine,
    plot,
    rows,
    stalls,
    straight,
    through_envoy,
    users,
    workers,
)
from bench.load import LoadError
from bench.machine import Cores, pinned
from bench.results import LATEST, Results
from bench.rows import Effort
from bench.scene import Scene


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        effort: For the rows that are compared with one another.
        workers: For the numbers of worker processes.
        pairs: Cold exchanges of each kind.
        exchange_rounds: Rounds of exchanges beside MSAL alone.
        exchanges: Of each round.
        mixed_users: Users of the mixed load.
        mixed_requests: Its requests.
        levels: Numbers of cached users.
        level_rounds: Rounds at each.
        level_hits: Hits in each round.
        most_users: Cached users while new ones arrive.
        arriving: Those.
        large: Routes, agents and blueprints of a large configuration.
        large_turns: How often that is scraped and reloaded.
        idle: Seconds for which nobody asks then.
    """

    effort: Effort = field(default_factory=Effort)
    workers: Effort = field(default_factory=lambda: Effort(rounds=3))
    pairs: int = 60
    exchange_rounds: int = 5
    exchanges: int = 200
    mixed_users: int = 1000
    mixed_requests: int = 12_000
    levels: tuple[int, ...] = (100, 10_000, 100_000)
    level_rounds: int = 3
    level_hits: int = 1500
    most_users: int = 200_000
    arriving: int = 10_000
    large: int = 1000
    large_turns: int = 5
    idle: float = 10.0


FULL: Final = Scale()
QUICK: Final = Scale(
    effort=Effort(rounds=1, loaded=0.3, single=0.3),
    workers=Effort(rounds=1, loaded=0.3, single=0.3),
    pairs=2,
    exchange_rounds=1,
    exchanges=30,
    mixed_users=5,
    mixed_requests=50,
    levels=(5, 20),
    level_rounds=1,
    level_hits=500,
    most_users=30,
    arriving=10,
    large=3,
    large_turns=1,
    idle=0.5,
)
"""Exercises everything and measures nothing: for tests."""


RATIOS: Final = {**through_envoy.RATIOS, **straight.RATIOS}


def measure(scale: Scale, announce: Callable[[str], None]) -> Results:
    """Measure everything.

    Raises:
        LoadError: h2load is missing, or a request was answered otherwise than its row says.
        StartFailure: A program did not come up.
    """
    load.find()
    facts = machine.describe()
    cores = Cores.of_this_machine()
    announce("starting")
    with pinned(cores.others), Scene(cores) as scene:
        ways = [*through_envoy.WAYS, through_envoy.floor(scene)]
        lanes = [*through_envoy.lanes(scene, ways), *straight.lanes(scene)]
        found = rows.measure(lanes, scale.effort, between=scene.forget_logs, announce=announce)
        announce("tokens never seen")
        found["inbound_cold"] = straight.inbound_cold(scene, scale.effort)
        announce("cold exchanges")
        figures = _exchanges(scene, scale)
        beside_msal = exchanges.measure(scene, rounds=scale.exchange_rounds, number=scale.exchanges)
        by_workers = workers.throughput(scene, scale.workers, announce=announce)
        with pinned(cores.everything), users.crowds(scene) as crowds:
            levels = users.measure(
                crowds,
                scale.levels,
                rounds=scale.level_rounds,
                hits=scale.level_hits,
                announce=announce,
            )
            announce(f"new users beside {scale.most_users:,}")
            figures |= stalls.of_new_users(crowds[1], scale.most_users, scale.arriving)
        # What sends has the core of the Envoys, which are idle.
        with pinned(cores.envoy):
            figures |= large.measure(
                scene, scale.large, turns=scale.large_turns, idle=scale.idle, announce=announce
            )
    return Results(
        machine=facts,
        rows=[*found.values(), *by_workers.values()],
        ratios={
            **rows.ratios(found, RATIOS),
            **rows.ratios(by_workers, workers.ratios(by_workers)),
            **users.ratios(levels),
            **beside_msal.ratios(),
        },
        figures={
            **figures,
            **beside_msal.figures(),
            "bytes_at_rest": scene.bytes_at_rest,
            "bytes_per_user": levels[-1].bytes_per_user or 0,
        },
        users=[level.described() for level in levels],
    )


def _exchanges(scene: Scene, scale: Scale) -> dict[str, float]:
    times = cold.measure(scene, scale.pairs)
    mixed = flights.mixed(scene, users=scale.mixed_users, requests=scale.mixed_requests)
    return {
        **times.figures(),
        f"exchanges_for_{flights.AT_ONCE}_checks_of_one_key": flights.one_key(scene),
        **mixed.figures(),
    }


def main() -> None:
    """Measure, print and write."""
    console = Console()
    # What was started is ended also when we are told to end.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    console.print("bench: six minutes; nothing else should be running", style="dim")
    started = time.monotonic()
    try:
        with console.status("") as status:
            results = measure(FULL, status.update)
    except (LoadError, StartFailure) as error:
        console.print(f"bench: {error}", style="red", markup=False)
        sys.exit(1)
    results.show(console)
    results.write(LATEST)
    picture = LATEST.with_suffix(".svg")
    picture.write_text(plot.draw(results.document()))
    seconds = time.monotonic() - started
    console.print(f"{seconds:.0f} s; written to {LATEST} and {picture.name}", style="dim")


if __name__ == "__main__":
    main()
