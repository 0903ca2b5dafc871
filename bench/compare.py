"""Puts any ext_authz server into the table: same Envoy, same load, alternating with ours.

The server speaks plain-text gRPC at `HOST:PORT` or `unix:PATH`, and must let the request through.
"""

import signal
import sys
from typing import Final

import click
from rich.console import Console

from authz_dev.demo.processes import StartFailure
from bench import load, machine, rows, through_envoy
from bench.load import LoadError
from bench.machine import Cores, pinned
from bench.results import FOLDER, Results
from bench.rows import Effort
from bench.scene import Scene

_BESIDE: Final = ("envoy", "check_hit")


def compare(address: str, name: str, effort: Effort) -> Results:
    """Measure a server beside Envoy alone, the server that does nothing, and ours.

    Raises:
        LoadError: h2load is missing, or a request was answered otherwise than its row says.
        StartFailure: A program did not come up.
    """
    load.find()
    facts = machine.describe()
    cores = Cores.of_this_machine()
    with pinned(cores.others), Scene(cores) as scene:
        ways = [way for way in through_envoy.WAYS if way.name in _BESIDE]
        ways += [through_envoy.floor(scene), through_envoy.asking(name, address)]
        lanes = through_envoy.lanes(scene, ways)
        found = rows.measure(lanes, effort, between=scene.forget_logs)
    pairs = {f"{name}_vs_{other}": (name, other) for other in (*_BESIDE, "floor")}
    pairs |= {pair: through_envoy.RATIOS[pair] for pair in ("check_vs_envoy", "check_vs_floor")}
    return Results(facts, list(found.values()), rows.ratios(found, pairs))


@click.command()
@click.argument("address")
@click.option("--name", default="other", show_default=True, help="Name of its row.")
def main(address: str, name: str) -> None:
    """Compare the ext_authz server at ADDRESS (HOST:PORT or unix:PATH, plain text) with ours."""
    console = Console()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    taken = {way.name for way in through_envoy.WAYS} | {"floor"}
    if name in taken:
        raise click.BadParameter(f"{name} is a row of ours", param_hint="--name")
    try:
        results = compare(address, name, Effort())
    except (LoadError, StartFailure) as error:
        raise click.ClickException(str(error)) from error
    results.show(console)
    file = FOLDER / "compare.json"
    results.write(file)
    console.print(f"written to {file}", style="dim")


if __name__ == "__main__":
    main()
