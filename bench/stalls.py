"""The slowest hits: without other requests, and while new users arrive or a configuration is reloaded.

Hits are sent one at a time, so that none waits for another one. What the machine's scheduler adds is in the
figures of the quiet service too.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from bench.load import Run, Target, run
from bench.users import Crowd

_TURN: Final = 1.0
"""Seconds of one run of h2load."""
_ARRIVING: Final = 4
"""New users who wait for their first answer at a time."""


@dataclass(frozen=True, slots=True)
class Slowest:
    """Latencies of hits in milliseconds: the 99.9th percentile and the maximum."""

    p999_ms: float
    max_ms: float

    def figures(self, situation: str) -> dict[str, float]:
        """Return the figures by name."""
        return {f"hit_p999_ms_{situation}": self.p999_ms, f"hit_max_ms_{situation}": self.max_ms}


def slowest(hits: Target, meanwhile: Callable[[], object] = lambda: None) -> Slowest:
    """Send hits one at a time until something else has ended.

    Raises:
        LoadError: A hit was not answered.
    """
    runs: list[Run] = []
    with ThreadPoolExecutor(1) as beside:
        other = beside.submit(meanwhile)
        while not runs or not other.done():
            runs.append(run(hits, seconds=_TURN, in_flight=1))
        other.result()
    latencies = sorted(latency for run in runs for latency in run.latencies)
    return Slowest(latencies[int(len(latencies) * 0.999)] / 1e3, latencies[-1] / 1e3)


def of_new_users(crowd: Crowd, users: int, arriving: int) -> dict[str, float]:
    """Measure hits of one user while others send their first Check.

    Args:
        crowd: The service and its users.
        users: Users that it knows before; the figures' names say how many thousands.
        arriving: Users who come meanwhile.

    Raises:
        LoadError: A Check was denied.
    """
    crowd.fill(users)
    hits, fresh = crowd.hit(), crowd.new(arriving)
    situation = f"{users // 1000}k"
    return {
        **slowest(hits).figures(f"quiet_{situation}"),
        **slowest(hits, lambda: crowd.send(fresh, _ARRIVING)).figures(f"new_users_{situation}"),
    }
