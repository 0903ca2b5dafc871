"""`Observers`: several observers behind one, in order."""

from collections.abc import Sequence

from authz.core.errors import AuthzError
from authz.core.exchange import Flow
from authz.ports import CacheName, CacheResult, CheckRecord, Observer


class Observers:
    """Tells each observer what it hears."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def decided(self, record: CheckRecord) -> None:
        """Pass on the end of a Check."""
        for observer in self._observers:
            observer.decided(record)

    def looked_up(self, cache: CacheName, result: CacheResult) -> None:
        """Pass on a cache look-up."""
        for observer in self._observers:
            observer.looked_up(cache, result)

    def exchanged(self, flow: Flow, error: AuthzError | None, seconds: float) -> None:
        """Pass on the end of an exchange."""
        for observer in self._observers:
            observer.exchanged(flow, error, seconds)
