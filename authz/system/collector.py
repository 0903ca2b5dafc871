"""`Collector`: Python's garbage collector, so that a full collection holds up nobody.

A full collection looks at every object that is held: 0.1 s for 10,000 users, 1.3 s for 200,000. What this
service holds is freed by counts of references; cycles are few (a connection that has ended, a version of
the configuration). So full collections wait until nobody asks. Young objects are collected as ever.
"""

import gc
import time
from collections.abc import Callable
from typing import Final

QUIET: Final = 30.0
"""Seconds without a Check, after which a full collection may begin."""
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
    """Collects in full while nobody asks.

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
        self._last = timer()

    def tend(self, *, is_quiet: bool) -> None:
        """Collect in full, if it is time and nobody asks."""
        if is_quiet and self._timer() - self._last >= LEAST_BETWEEN:
            self._collect()
            self._last = self._timer()
