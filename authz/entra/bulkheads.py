"""`Bulkheads`: worker threads of which each client, or tenant, has a share of its own.

A holder whose calls hang fills its own share. Others wait for their own places only.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import TypeVar

from authz.core.shares import Shares

Result = TypeVar("Result")


class Bulkheads:
    """Runs blocking calls of several holders in threads, each within the holder's share.

    Args:
        executor: Threads. It must have one for each place.
        places: Calls that each holder may have under way.
    """

    def __init__(self, executor: Executor, places: Shares) -> None:
        self._executor = executor
        self._places = places
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    async def run(self, holder: Hashable, begin: Callable[[], Callable[[], Result]]) -> Result:
        """Run a call in a thread as soon as the holder has a place for it.

        `begin` is called at that moment, and returns what the thread is to do.

        The place is given back when the thread has ended, also where its caller left earlier.
        """
        await self._enter(holder)
        loop = asyncio.get_running_loop()

        def ended(_: Future[Result]) -> None:
            # At the end of the process the loop is gone before the threads are.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._leave, holder)

        try:
            future = self._executor.submit(begin())
        except BaseException:
            self._leave(holder)
            raise
        future.add_done_callback(ended)
        return await asyncio.wrap_future(future)

    async def _enter(self, holder: Hashable) -> None:
        if holder not in self._waiting and self._places.take(holder):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(holder, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # The place was given just before the caller left.
                self._leave(holder)
            raise

    def _leave(self, holder: Hashable) -> None:
        """Give a place back, and hand out what is free, to one holder after the other."""
        self._places.give_back(holder)
        for waiting in list(self._waiting):
            turns = self._waiting.pop(waiting)
            self._admit(waiting, turns)
            if turns:
                # At the end: next time it is another one's turn first.
                self._waiting[waiting] = turns

    def _admit(self, holder: Hashable, turns: deque[asyncio.Future[None]]) -> None:
        while turns:
            if turns[0].cancelled():
                turns.popleft()
            elif self._places.take(holder):
                turns.popleft().set_result(None)
            else:
                return
