"""`settle` and `Collector`: Python's garbage collector, so that a full collection delays no request.

A full collection looks at every object that is held, so it takes longer with each user. What this service
holds is freed by counts of references; only cycles need a collection, and few objects are part of one. So a
full collection waits for half a minute without requests. Young objects are collected as ever.
"""

import gc
import time
from collections.abc import Callable
from typing import Final

QUIET: Final = 30.0
"""Seconds without a request, after which a full collection may begin."""
LEAST_BETWEEN: Final = 3600.0
"""Seconds between two full collections."""
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
        elif now - self._quiet_since >= QUIET and now - self._last >= LEAST_BETWEEN:
            self._collect()
            self._last = self._timer()
