"""Full garbage collections wait until nobody asks."""

import subprocess
import sys

from authz.system.collector import LEAST_BETWEEN, Collector

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


def test_it_collects_while_nobody_asks_and_not_too_often() -> None:
    """Once an hour at most."""
    now, collected = [0.0], list[float]()
    collector = Collector(timer=lambda: now[0], collect=lambda: collected.append(now[0]))
    for second in range(0, int(3 * LEAST_BETWEEN), 60):
        now[0] = float(second)
        collector.tend(is_quiet=second % 120 == 0 and second > 1.5 * LEAST_BETWEEN)

    assert 2 == len(collected)
    assert all(moment > 1.5 * LEAST_BETWEEN for moment in collected)
    assert collected[1] - collected[0] >= LEAST_BETWEEN


def test_objects_that_are_held_start_no_full_collection() -> None:
    """However many come; young ones are collected, and a cycle is found when it is looked for."""
    command = [sys.executable, "-c", NEW_USERS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert ["1", "True"] == done.stdout.splitlines()
