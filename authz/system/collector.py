"""`settle` and `Collector`: Python's garbage collector, so that a full collection delays no request.

A full collection looks at every object that is held, so it takes longer with each user. What this service
holds is freed by counts of references; only cycles need a collection, and few objects are part of one. So a
full collection waits for half a minute without requests: a day at most, then for a second without, and for a
week at most. Young objects are collected as ever.
"""

import gc
import time
from collections.abc import Callable
from typing import Final

QUIET: Final = 30.0
"""Seconds without a request, after which a full collection may begin."""
LEAST_BETWEEN: Final = 3600.0
"""Seconds between two full collections."""
DAY: Final = 86_400.0
SOME_QUIET: Final = 0.5
"""Seconds without a request that are enough when the last full collection was a day ago."""
WEEK: Final = 7 * DAY
"""Seconds after which it waits for no quiet any more."""
_YOUNG: Final = 2_000
"""Objects made beyond those freed, after which young ones are collected."""
_MIDDLE: Final = 10
_NEVER: Final = 10**9


def settle() -> None:
    """Set aside what the start of the process has made, and let nothing but `Collector` collect in full."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)


class Collector:
    """Collects in full while no requests come.

    Args:
        timer: Monotonic seconds.
        collect: Does it.
    """

    def __init__(
        self,
        *,
        timer: Callable[[], float] = time.monotonic,
        collect: Callable[[], object] = gc.collect,
    ) -> None:
        self._timer = timer
        self._collect = collect
        self._seen = 0
        self._quiet_since = self._last = timer()

    def tend(self, seen: int) -> None:
        """Collect in full, if it is time.

        Args:
            seen: How many events there have been: it grows with each request.
        """
        now = self._timer()
        if seen != self._seen:
            self._seen, self._quiet_since = seen, now
        if now - self._last >= self._wait(now - self._quiet_since):
            self._collect()
            self._last = self._timer()

    @staticmethod
    def _wait(quiet: float) -> float:
        """Return how long ago the last collection must have been, after so many seconds without a request."""
        if quiet >= QUIET:
            return LEAST_BETWEEN
        return DAY if quiet >= SOME_QUIET else WEEK
