"""Rows of the table: the same load on several lanes, in alternating rounds; medians and spreads."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.envoys import Envoy
from bench.load import LoadError, Run, Target, run
from bench.programs import Measured

IN_FLIGHT: Final = 32
_WARM_UP: Final = 0.2
_SIZE_TOLERANCE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Effort:
    """How long it is measured.

    Attributes:
        rounds: How often each lane has its turn.
        loaded: Seconds of each turn with `IN_FLIGHT` requests at a time.
        single: Seconds of each turn with one request at a time.
    """

    rounds: int = 5
    loaded: float = 1.0
    single: float = 0.5


@dataclass(frozen=True, slots=True)
class Lane:
    """One thing to measure.

    Attributes:
        name: Name of its row.
        target: What is sent.
        envoy: The Envoy that it goes through, if it does.
        server: Who answers the Checks, if someone of ours does.
        checks: How many Checks each request should cost.
        stray_checks: By how many the Checks of a turn may be off: what is under way at the end has
            asked and does not count. And when what Envoy has cached comes to its end, all requests
            under way ask, until one of them has its answer.
        answer_bytes: Size of an answer that allows, where the status does not tell.
    """

    name: str
    target: Target
    envoy: Envoy | None = None
    server: Measured | None = None
    checks: int | None = None
    stray_checks: int = 2 * IN_FLIGHT
    answer_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What a lane came to: medians over the rounds.

    Attributes:
        name: What was measured; README.md says more.
        requests_per_second: With `IN_FLIGHT` requests at a time.
        spread: Of those rates: largest less smallest, of the median.
        p50_us: Latency with one request at a time, microseconds.
        p99_us: The same, of the slowest hundredth.
        loaded_p50_us: Latency with `IN_FLIGHT` requests at a time.
        loaded_p99_us: The same, of the slowest hundredth.
        checks_per_request: Checks that Envoy asked for.
        envoy_cpu_us: Envoy's processor time for each request.
        server_cpu_us: The processor time of whoever answers the Checks.
        rates: The rate of each round, for ratios by rounds.
    """

    name: str
    requests_per_second: float
    spread: float
    p50_us: float
    p99_us: float
    loaded_p50_us: float
    loaded_p99_us: float
    checks_per_request: float | None = None
    envoy_cpu_us: float | None = None
    server_cpu_us: float | None = None
    rates: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Ratio:
    """One thing over another, round by round: what the machine did meanwhile cancels out.

    Attributes:
        median: The ratio.
        least: Of all rounds.
        most: Of all rounds.
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, row: Row, baseline: Row) -> "Ratio":
        """Compare two rows that were measured in the same rounds."""
        return cls.of_pairs(
            [mine / theirs for mine, theirs in zip(row.rates, baseline.rates, strict=True)]
        )

    @classmethod
    def of_pairs(cls, each: Sequence[float]) -> "Ratio":
        """Sum up the ratio of each round."""
        return cls(round(statistics.median(each), 3), round(min(each), 3), round(max(each), 3))


@dataclass(slots=True)
class _Turns:
    """What a lane's turns gave so far."""

    lane: Lane
    loaded: list[Run] = field(default_factory=list)
    single: list[Run] = field(default_factory=list)
    checks: list[float] = field(default_factory=list)
    envoy_cpu: list[float] = field(default_factory=list)
    server_cpu: list[float] = field(default_factory=list)

    def take(self, effort: Effort) -> None:
        lane, before = self.lane, _Meters.read(self.lane)
        loaded = run(lane.target, seconds=effort.loaded, in_flight=IN_FLIGHT)
        used = _Meters.read(lane).since(before, len(loaded.latencies))
        _check(lane, loaded, used.checks)
        self.loaded.append(loaded)
        self.single.append(run(lane.target, seconds=effort.single, in_flight=1))
        self.checks.append(used.checks)
        self.envoy_cpu.append(used.envoy)
        self.server_cpu.append(used.server)

    def row(self) -> Row:
        lane = self.lane
        return summarize(
            lane.name,
            self.loaded,
            self.single,
            checks=self.checks if lane.envoy else (),
            envoy_cpu=self.envoy_cpu if lane.envoy else (),
            server_cpu=self.server_cpu if lane.server else (),
        )


@dataclass(frozen=True, slots=True)
class _Meters:
    """Counters of a lane, or what each request moved them by."""

    checks: float
    envoy: float
    server: float

    @classmethod
    def read(cls, lane: Lane) -> "_Meters":
        return cls(
            lane.envoy.checks() if lane.envoy else 0,
            lane.envoy.cpu_seconds() if lane.envoy else 0.0,
            lane.server.cpu_seconds() if lane.server else 0.0,
        )

    def since(self, before: "_Meters", requests: int) -> "_Meters":
        return _Meters(
            (self.checks - before.checks) / requests,
            (self.envoy - before.envoy) / requests,
            (self.server - before.server) / requests,
        )


def measure(
    lanes: Sequence[Lane],
    effort: Effort,
    *,
    between: Callable[[], None] = lambda: None,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Row]:
    """Measure lanes in alternating rounds, every other one backwards; return a row for each.

    Args:
        lanes: What to measure.
        effort: For how long.
        between: Called after each round.
        announce: Hears which lane has its turn.

    Raises:
        LoadError: A request was denied, or answered in another way than the lane's name says.
    """
    for lane in lanes:
        # Connections are open and caches know the request from here on.
        run(lane.target, seconds=_WARM_UP, in_flight=IN_FLIGHT)
    turns = [_Turns(lane) for lane in lanes]
    for number in range(effort.rounds):
        for turn in turns if number % 2 == 0 else reversed(turns):
            announce(f"round {number + 1} of {effort.rounds}: {turn.lane.name}")
            turn.take(effort)
        between()
    return {turn.lane.name: turn.row() for turn in turns}


def summarize(
    name: str,
    loaded: Sequence[Run],
    single: Sequence[Run],
    *,
    checks: Sequence[float] = (),
    envoy_cpu: Sequence[float] = (),
    server_cpu: Sequence[float] = (),
) -> Row:
    """Return the row of runs with many requests at a time, and of as many with one at a time.

    What else was measured is per request, in seconds of processor time where it is time.
    """
    rates = tuple(run.rate for run in loaded)
    return Row(
        name=name,
        requests_per_second=round(statistics.median(rates), 1),
        spread=round((max(rates) - min(rates)) / statistics.median(rates), 3),
        p50_us=_median_of(single, 0.50),
        p99_us=_median_of(single, 0.99),
        loaded_p50_us=_median_of(loaded, 0.50),
        loaded_p99_us=_median_of(loaded, 0.99),
        checks_per_request=round(statistics.fmean(checks), 4) if checks else None,
        envoy_cpu_us=_microseconds(envoy_cpu),
        server_cpu_us=_microseconds(server_cpu),
        rates=rates,
    )


def ratios(rows: Mapping[str, Row], pairs: Mapping[str, tuple[str, str]]) -> dict[str, Ratio]:
    """Return the named ratios, of those pairs of rows that are there."""
    return {
        name: Ratio.of(rows[mine], rows[theirs])
        for name, (mine, theirs) in pairs.items()
        if mine in rows and theirs in rows
    }


def _check(lane: Lane, loaded: Run, checks: float) -> None:
    """Make sure that what was measured is what the row's name says."""
    tolerance = lane.stray_checks / len(loaded.latencies)
    if lane.checks is not None and abs(checks - lane.checks) > tolerance:
        raise LoadError(
            f"{lane.name}: a request cost {checks:.3f} Checks, where {lane.checks} was expected"
        )
    expected = lane.answer_bytes
    # Of answers that come with the end of the turn there may be bytes and no latency.
    most = 1 + _SIZE_TOLERANCE + IN_FLIGHT / len(loaded.latencies)
    if expected is not None and not 1 - _SIZE_TOLERANCE < loaded.bytes_each / expected < most:
        raise LoadError(
            f"{lane.name}: answers had {loaded.bytes_each:.0f} bytes, an allowing one {expected}"
        )


def _median_of(runs: Sequence[Run], share: float) -> float:
    return statistics.median(run.quantile(share) for run in runs)


def _microseconds(seconds: Sequence[float]) -> float | None:
    return round(statistics.median(seconds) * 1e6, 1) if seconds else None
