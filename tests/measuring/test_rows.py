"""What is made of the measurements, and what is refused as one."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import rows
from bench.bootstraps import Bootstrap
from bench.envoys import Envoy
from bench.load import LoadError, Run, Target
from bench.programs import wait
from bench.results import Results
from bench.rows import Effort, Lane, Ratio, Row, summarize

pytestmark = pytest.mark.thorough

QUICK = Effort(rounds=1, loaded=0.3, single=0.3)


def _row(name: str, *rates: float) -> Row:
    """A row with these rates in its rounds."""
    runs = [Run(1000 / rate, tuple(range(1000)), 0) for rate in rates]
    return summarize(name, runs, runs)


def test_a_row_tells_medians_and_the_spread_of_the_rates() -> None:
    """The rounds are summed up by their medians."""
    row = _row("a", 100, 400, 200)

    assert 200 == row.requests_per_second
    assert (400 - 100) / 200 == row.spread
    assert (500, 990) == (row.p50_us, row.p99_us)
    assert (None, None, None) == (row.checks_per_request, row.envoy_cpu_us, row.server_cpu_us)


def test_a_ratio_compares_within_rounds() -> None:
    """A machine that was slow for a round was slow for both."""
    mine, theirs = _row("mine", 50, 100, 300), _row("theirs", 100, 200, 400)

    found = rows.ratios({"mine": mine, "theirs": theirs}, {"mine_vs_theirs": ("mine", "theirs")})

    assert {"mine_vs_theirs": Ratio(0.5, 0.5, 0.75)} == found


def test_a_ratio_of_rows_that_were_not_measured_is_left_out() -> None:
    """Nothing is made up."""
    assert {} == rows.ratios({"mine": _row("mine", 1)}, {"mine_vs_theirs": ("mine", "theirs")})


@pytest.mark.parametrize(
    ("load", "rates", "doubts"),
    [
        (0.9, (100, 110, 105), 0),
        (1.1, (100, 110, 105), 1),
        (0.9, (100, 150, 105), 1),
        (3.0, (100, 150, 105), 2),
    ],
)
def test_a_run_on_a_busy_machine_says_so(load: float, rates: list[float], doubts: int) -> None:
    """By the load before it, and by the spread of what is not ours."""
    facts = {"load_before": load, "cores": 2}
    results = Results(facts, [_row("envoy", *rates), _row("edge_hit", 1, 100)], {})

    assert doubts == len(results.doubts)
    assert results.doubts == results.document()["doubts"]


@pytest.fixture
def envoy(tmp_path: Path) -> Iterator[Envoy]:
    """An Envoy that answers by itself, without us."""
    config = {
        "listen": {"grpc": "unix:/run/authz.sock"},
        "egress": {"plain": {"flow": "none", "hosts": ["a.example"]}},
    }
    bootstrap = Bootstrap(json.dumps(config), authz_address=None, upstream="127.0.0.1:81")
    bootstrap.without_us()
    bootstrap.answer_directly("a.example")
    running = Envoy("alone", bootstrap.text, tmp_path, frozenset(os.sched_getaffinity(0)))
    try:
        running.start()
        wait([running])
        yield running
    finally:
        running.stop()


def _lane(envoy: Envoy, checks: int) -> Lane:
    target = Target(envoy.url(), {":authority": "a.example"})
    return Lane("alone", target, envoy, checks=checks)


@pytest.mark.usefixtures("h2load")
def test_a_lane_becomes_a_row(envoy: Envoy) -> None:
    """Its rate, its latencies and what it cost are there."""
    row = rows.measure([_lane(envoy, checks=0)], QUICK)["alone"]

    assert row.requests_per_second > 0
    assert 0 < row.p50_us <= row.p99_us
    assert 0 == row.checks_per_request
    assert row.envoy_cpu_us is not None
    assert row.server_cpu_us is None


@pytest.mark.usefixtures("h2load")
def test_a_row_that_costs_other_than_it_should_is_no_row(envoy: Envoy) -> None:
    """Whoever should be asked about each request, and is not, was not measured."""
    with pytest.raises(
        LoadError, match=r"alone: a request cost 0\.000 Checks, where 1 was expected"
    ):
        rows.measure([_lane(envoy, checks=1)], QUICK)


@pytest.mark.usefixtures("h2load")
def test_answers_of_another_size_are_denials(web_server: str) -> None:
    """A gRPC answer has status 200 also when it denies; its size tells."""
    lane = Lane("a", Target(web_server), answer_bytes=1500)

    with pytest.raises(LoadError, match=r"a: answers had \d+ bytes, an allowing one 1500"):
        rows.measure([lane], QUICK)
