"""`Call`: what a worker thread does for one exchange. MSAL is in between, so the thread carries it.

`bulkheads` starts calls, `http` keeps to their time, `msal_transport` notes what the endpoint answered.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Final


@dataclass(slots=True)
class Call:
    """One call of a worker thread. Monotonic seconds, as `time.monotonic` counts them.

    Attributes:
        needed_by: When nobody waits for the result any more.
        ends: When the call is given up.
        answered: Whether the endpoint answered last: False if the connection failed, the time was over, or
            the status was 5xx. None if it was not asked, or if that is not known.
        throttled: Seconds to wait, where the endpoint answered a token request with 429.
        begun: Called when a request goes out.
    """

    needed_by: float = inf
    ends: float = inf
    answered: bool | None = None
    throttled: float | None = None
    begun: Callable[[], None] = lambda: None

    @classmethod
    def within(cls, *, needed_in: float, ends_in: float) -> "Call":
        """Return a call that begins now, by seconds from now."""
        now = time.monotonic()
        return cls(now + needed_in, now + ends_in)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make it the thread's call, inside the block."""
        _thread.call = self
        try:
            yield
        finally:
            del _thread.call


_thread: Final = threading.local()


def current() -> Call:
    """Return the thread's call, or one without limits."""
    call: Call = getattr(_thread, "call", None) or Call()
    return call
