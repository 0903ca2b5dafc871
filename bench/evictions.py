"""What a full cache still meets, and what a hit costs: `python -m bench.evictions`.

The part of look-ups that are met, by kind of traffic, beside a cache that evicts the least recently used
entry always; and the time of a hit in both. No service runs.
"""

import random
import time
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Final

from authz.core.cache import BoundedCache
from authz.core.moment import Moment

PLACES: Final = 10_000
LOOKUPS: Final = 600_000
_NOW: Final = Moment(0.0, 0.0)
_LATER: Final = Moment(1.0, 1.0)


class LeastRecentlyUsed(BoundedCache[str]):
    """The same cache, which remembers nothing of what it evicted."""

    def _came_back(self, _: bytes) -> bool:
        return False


def in_turn(users: int) -> Iterator[int]:
    """Users who call one after the other, again and again."""
    return (number % users for number in range(LOOKUPS))


def by_frequency(users: int, exponent: float) -> Iterator[int]:
    """Users of whom the n-th calls as often as Zipf's law has it."""
    chosen = random.Random(1)  # noqa: S311 - repeatable
    sums = list(accumulate(1 / rank**exponent for rank in range(1, users + 1)))
    return (bisect(sums, chosen.random() * sums[-1]) for _ in range(LOOKUPS))


def scanned(users: int) -> Iterator[int]:
    """Users who call often; of three tokens two are used once and never again."""
    chosen = random.Random(2)  # noqa: S311 - repeatable
    return (
        chosen.randrange(users) if number % 3 == 0 else users + number for number in range(LOOKUPS)
    )


def relieved(users: int, after: int) -> Iterator[int]:
    """Users who are relieved by others after so many look-ups."""
    chosen = random.Random(3)  # noqa: S311 - repeatable
    return (number // after * users + chosen.randrange(users) for number in range(LOOKUPS))


TRAFFIC: Final[dict[str, Callable[[], Iterable[int]]]] = {
    "12,000 users in turn": lambda: in_turn(12_000),
    "20,000 users in turn": lambda: in_turn(20_000),
    "50,000 users, Zipf 0.8": lambda: by_frequency(50_000, 0.8),
    "50,000 users, Zipf 1.0": lambda: by_frequency(50_000, 1.0),
    "3,000 users and a scan": lambda: scanned(3_000),
    "8,000 users, relieved": lambda: relieved(8_000, 40_000),
}


def cache_of(kind: type[BoundedCache[str]]) -> BoundedCache[str]:
    """Return an empty cache."""
    return kind(max_entries=PLACES, max_bytes=10**9, size_of=len)


def part_met(cache: BoundedCache[str], keys: Iterable[int]) -> float:
    """Return the part of look-ups that are met, of the second half."""
    met = 0
    for number, key in enumerate(keys):
        name = key.to_bytes(32, "big")
        if cache.get(name, _NOW) is None:
            cache.put(name, "x", expires_at=_LATER, now=_NOW)
        else:
            met += number >= LOOKUPS // 2
    return met / (LOOKUPS - LOOKUPS // 2)


def seconds_of_a_hit(cache: BoundedCache[str]) -> float:
    """Return the least time of a hit among several runs."""
    names = [key.to_bytes(32, "big") for key in range(PLACES)]
    for name in names:
        cache.put(name, "x", expires_at=_LATER, now=_NOW)
    random.Random(4).shuffle(names)  # noqa: S311 - repeatable
    runs = []
    for _ in range(20):
        started = time.perf_counter()
        for name in names:
            cache.get(name, _NOW)
        runs.append((time.perf_counter() - started) / PLACES)
    return min(runs)


def main() -> None:
    """Print both columns."""
    kinds = (LeastRecentlyUsed, BoundedCache[str])
    print(f"{'met, of all look-ups':30}{'LRU alone':>12}{'authz':>12}")
    for name, keys in TRAFFIC.items():
        parts = [part_met(cache_of(kind), keys()) for kind in kinds]
        print(f"{name:30}" + "".join(f"{part:12.1%}" for part in parts))
    times = [seconds_of_a_hit(cache_of(kind)) * 1e9 for kind in kinds]
    print(f"{'nanoseconds of a hit':30}" + "".join(f"{taken:12.0f}" for taken in times))


if __name__ == "__main__":
    main()
