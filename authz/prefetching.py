"""`Prefetches`: Checks that nobody has asked for yet, run in the background so that their answers are there.

A prefetch is an ordinary Check of a request that the agent will probably make. It decides nothing that a
real one would decide otherwise; what it brings is found in the caches, and what it fails in is forgotten.
"""

import asyncio
from collections.abc import Awaitable
from typing import Final

from authz.core.decision import Deny
from authz.ports import CacheResult, CheckRecord, Observer

ISSUED: Final = "issued"
KNOWN: Final = "known"
SKIPPED: Final = "skipped"


class Prefetches:
    """Starts prefetches, at most so many at a time, and counts how they end.

    Args:
        observer: Hears of the end of each.
        max_running: Most prefetches under way; one more is skipped, not queued: its request may well
            come before its turn.
    """

    def __init__(self, *, observer: Observer, max_running: int) -> None:
        self._observer = observer
        self._max_running = max_running
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, route: str, path: Awaitable[CheckRecord]) -> None:
        """Walk the path of a Check in the background; nobody waits for it, and nothing cancels it."""
        task = asyncio.get_running_loop().create_task(self._walk(route, path))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def may_begin(self, route: str) -> bool:
        """Whether there is room for one more; counts one that is skipped for want of it."""
        if len(self._running) < self._max_running:
            return True
        self._observer.prefetched(route, SKIPPED)
        return False

    async def drain(self) -> None:
        """Wait for all that are under way; their deadlines bound the wait."""
        while self._running:
            await asyncio.wait(self._running)

    async def _walk(self, route: str, path: Awaitable[CheckRecord]) -> None:
        self._observer.prefetched(route, _outcome(await path))


def _outcome(record: CheckRecord) -> str:
    if isinstance(record.decision, Deny):
        return record.decision.reason.value
    fresh = record.token_cache in (CacheResult.MISS, CacheResult.JOINED)
    return ISSUED if fresh else KNOWN
