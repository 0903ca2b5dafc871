"""Full garbage collections wait until no requests come."""

import subprocess
import sys

import pytest

from authz.system.collector import DAY, LEAST_BETWEEN, QUIET, WEEK, Collector

NEW_USERS = """
import gc
from authz.system.collector import settle
settle()
generations = []
gc.callbacks.append(lambda phase, info: generations.append(info["generation"]))
held = [{"user": [number]} for number in range(300_000)]
print(max(generations))
cycle = []
cycle.append(cycle)
del cycle
print(gc.collect() > 0)
"""


def test_it_collects_while_no_requests_come_and_not_too_often() -> None:
    """Once an hour at most; a request in between begins the wait again."""
    now, collected = [0.0], list[float]()
    collector = Collector(timer=lambda: now[0], collect=lambda: collected.append(now[0]))
    busy_until = int(1.5 * LEAST_BETWEEN)
    for second in range(int(3 * LEAST_BETWEEN)):
        now[0] = float(second)
        collector.tend(min(second, busy_until))

    first = busy_until + QUIET
    assert [first, first + LEAST_BETWEEN] == collected


@pytest.mark.parametrize(("pause", "after"), [(2, DAY), (1, WEEK)])
def test_a_service_that_is_never_quiet_for_long_collects_all_the_same(
    pause: int, after: float
) -> None:
    """After a day in a second without requests, after a week in any."""
    now, collected = [0.0], list[float]()
    collector = Collector(timer=lambda: now[0], collect=lambda: collected.append(now[0]))
    for second in range(int(after) + 10):
        now[0] = float(second)
        collector.tend(second // pause)

    assert 1 == len(collected)
    assert after <= collected[0] <= after + pause


def test_objects_that_are_held_start_no_full_collection() -> None:
    """However many come; young ones are collected, and a cycle is found when it is looked for."""
    command = [sys.executable, "-c", NEW_USERS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert ["1", "True"] == done.stdout.splitlines()
