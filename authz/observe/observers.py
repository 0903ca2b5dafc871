"""`Observers`: several observers behind one, in order; what comes often is passed on in batches."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from authz.core.errors import AuthzError
from authz.core.exchange import TokenExchange
from authz.core.record import CacheName, CacheResult, CheckRecord
from authz.ports import Observer, SecretObserver

PATIENCE: Final = 0.02
"""Seconds for which repeats are gathered. A process that is killed loses so much of its log and counts."""
MOST_GATHERED: Final = 32
_log = structlog.get_logger(__name__)


class Observers:
    """Notifies each observer. One that fails is counted, and spoils no decision.

    Counting and writing down one by one would take longer than repeating an answer does.

    Args:
        observers: Hear of everything.
        secrets: Is notified of tokens that Envoys are given ahead.

    Attributes:
        failures: How often an observer has raised.
    """

    def __init__(
        self, observers: Sequence[Observer], *, secrets: SecretObserver | None = None
    ) -> None:
        self._observers = tuple(observers)
        self._secrets = secrets
        self.failures = 0
        self._known_failures: set[str] = set()
        self._gathered: list[CheckRecord] = []
        self._timer: asyncio.TimerHandle | None = None

    def decided(self, records: Sequence[CheckRecord]) -> None:
        """Pass on decisions: new ones at once, repeated ones a moment later and together."""
        made = [record for record in records if not record.trace.repeated]
        if made:
            self._tell(lambda observer: observer.decided(made))
        if len(made) < len(records):
            self._gathered += [record for record in records if record.trace.repeated]
            if self._timer is None or len(self._gathered) >= MOST_GATHERED:
                self._pass_on_soon()

    def flush(self) -> None:
        """Pass on what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._tell(lambda observer: observer.decided(gathered))

    def looked_up(self, cache: CacheName, result: CacheResult) -> None:
        """Pass on a cache look-up."""
        self._tell(lambda observer: observer.looked_up(cache, result))

    def exchanged(
        self,
        exchange: TokenExchange,
        error: AuthzError | None,
        seconds: float,
        *,
        route: str | None,
    ) -> None:
        """Pass on the end of an exchange."""
        self._tell(lambda observer: observer.exchanged(exchange, error, seconds, route=route))

    def called(self, route: str, outcome: int | AuthzError, seconds: float) -> None:
        """Pass on the end of a call to an API."""
        self._tell(lambda observer: observer.called(route, outcome, seconds))

    def prefetched(self, route: str, outcome: str) -> None:
        """Pass on the end of a prefetch."""
        self._tell(lambda observer: observer.prefetched(route, outcome))

    def secret_sent(self, route: str | None, *, empty: bool) -> None:
        """Pass on that a value was sent to one Envoy."""
        if (secrets := self._secrets) is not None:
            self.attempt(lambda: secrets.secret_sent(route, empty=empty))

    def secret_rejected(self, route: str | None) -> None:
        """Pass on that an Envoy could not use a value."""
        if (secrets := self._secrets) is not None:
            self.attempt(lambda: secrets.secret_rejected(route))

    def attempt(self, observe: Callable[[], None]) -> None:
        """Do something for observers only. A failure is counted, and logged once for each kind."""
        try:
            observe()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not the request's
            self.failures += 1
            kind = type(error).__name__
            if kind not in self._known_failures:
                self._known_failures.add(kind)
                with contextlib.suppress(Exception):
                    _log.exception("observer failed", cause=kind)

    def _tell(self, tell: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            self.attempt(partial(tell, observer))

    def _pass_on_soon(self) -> None:
        if len(self._gathered) >= MOST_GATHERED:
            self.flush()
            return
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.flush)
