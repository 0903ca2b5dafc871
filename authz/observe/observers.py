"""`Observers`: several observers behind one, in order; what comes often is passed on in batches."""

import asyncio
from collections.abc import Sequence
from typing import Final

from authz.core.errors import AuthzError
from authz.core.exchange import Flow
from authz.ports import CacheName, CacheResult, CheckRecord, Observer, Repeat

PATIENCE: Final = 0.02
"""Seconds for which repeats are gathered. A process that is killed loses so much of its log and counts."""
MOST_GATHERED: Final = 32


class Observers:
    """Tells each observer what it hears.

    Counting and writing down one by one would take longer than repeating an answer does.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self.reads_requests = self._some_read_requests()
        """Whether one of them does; asked anew after each batch, not for each repeat."""
        self._gathered: list[Repeat] = []
        self._timer: asyncio.TimerHandle | None = None

    def decided(self, record: CheckRecord) -> None:
        """Pass on the end of a Check."""
        for observer in self._observers:
            observer.decided(record)

    def repeated(self, repeats: Sequence[Repeat]) -> None:
        """Gather Checks that were answered by a prepared reply."""
        self._gathered += repeats
        if self._timer is None or len(self._gathered) >= MOST_GATHERED:
            self._pass_on_soon()

    def flush(self) -> None:
        """Pass on what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        self.reads_requests = self._some_read_requests()
        if gathered:
            for observer in self._observers:
                observer.repeated(gathered)

    def looked_up(self, cache: CacheName, result: CacheResult) -> None:
        """Pass on a cache look-up."""
        for observer in self._observers:
            observer.looked_up(cache, result)

    def exchanged(self, flow: Flow, error: AuthzError | None, seconds: float) -> None:
        """Pass on the end of an exchange."""
        for observer in self._observers:
            observer.exchanged(flow, error, seconds)

    def called(self, route: str, outcome: int | AuthzError, seconds: float) -> None:
        """Pass on the end of a call to an API."""
        for observer in self._observers:
            observer.called(route, outcome, seconds)

    def prefetched(self, route: str, outcome: str) -> None:
        """Pass on the end of a prefetch."""
        for observer in self._observers:
            observer.prefetched(route, outcome)

    def _some_read_requests(self) -> bool:
        return any(observer.reads_requests for observer in self._observers)

    def _pass_on_soon(self) -> None:
        if len(self._gathered) >= MOST_GATHERED:
            self.flush()
            return
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.flush)
