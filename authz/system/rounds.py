"""`Rounds`: background work that comes round again and again, and outlives a round that fails.

Nothing that a file, a folder or an answer holds may end the service. What a round does is its owner's
business; a failure that must end the service is not caught here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

_log = structlog.get_logger(__name__)


class Rounds:
    """One kind of background work.

    Args:
        work: What it does, in words for the log.
    """

    def __init__(self, work: str) -> None:
        self._work = work
        self._failing: str | None = None

    @contextmanager
    def surviving(self) -> Iterator[None]:
        """Let a round that raises be a record in the log: one for each cause, until a round succeeds."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round may succeed
            # Its type alone: its text may quote a file.
            cause = type(error).__name__
            if cause != self._failing:
                _log.error("background work failed", work=self._work, cause=cause)
            self._failing = cause
        else:
            self._failing = None
