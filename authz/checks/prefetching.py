"""`Prefetches`: Checks that nobody has asked for yet, run in the background so that their answers are there.

A prefetch is an ordinary Check of a request that the agent will probably make. It decides nothing that a
real one would decide otherwise; what it brings is found in the caches, and what it fails in is forgotten.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from authz.core.decision import Deny
from authz.core.event import Prefetched
from authz.core.exchange import Client
from authz.core.record import CacheResult, CheckRecord
from authz.core.shares import Shares
from authz.ports import Observer

ISSUED: Final = "issued"
KNOWN: Final = "known"
SKIPPED: Final = "skipped"


class Prefetches:
    """Starts prefetches, at most so many at a time, and counts how they end.

    Args:
        observer: Is notified of the end of each.
        places: Prefetches that each client may have under way; one more is skipped, not queued: its
            request may well come before its turn.
    """

    def __init__(self, *, observer: Observer, places: Shares) -> None:
        self._observer = observer
        self.places = places
        self._running: set[asyncio.Task[None]] = set()

    def begin(
        self, route: str, client: Client | None, path: Callable[[], Awaitable[CheckRecord]]
    ) -> None:
        """Walk the path of a Check in the background, if there is a place; count it as skipped if not.

        Nobody waits for it, and nothing cancels it. `client` is the one whose exchange it will be.
        """
        places = self.places
        if not places.take(client):
            self._observer.observe(Prefetched(route, SKIPPED))
            return

        def ended(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            places.give_back(client)

        task = asyncio.get_running_loop().create_task(self._walk(route, path()))
        self._running.add(task)
        task.add_done_callback(ended)

    async def drain(self) -> None:
        """Wait for all that are under way; their deadlines bound the wait."""
        while self._running:
            await asyncio.wait(self._running)

    async def _walk(self, route: str, path: Awaitable[CheckRecord]) -> None:
        self._observer.observe(Prefetched(route, _outcome(await path)))


def _outcome(record: CheckRecord) -> str:
    if isinstance(record.decision, Deny):
        return record.decision.reason.value
    fresh = record.token_cache in (CacheResult.MISS, CacheResult.JOINED)
    return ISSUED if fresh else KNOWN
