"""`Observers`: several observers behind one, in order; what comes often is passed on in batches."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from authz.core.event import Event, Repeated
from authz.core.record import CheckRecord
from authz.ports import Observer

PATIENCE: Final = 0.02
"""Seconds for which repeats are gathered. A process that is killed loses so much of its log and counts."""
MOST_GATHERED: Final = 32
_log = structlog.get_logger(__name__)


class Observers:
    """Notifies each observer. One that fails is counted, and spoils no decision.

    Counting and writing down one by one would take longer than repeating an answer does.

    Args:
        observers: Are notified of everything.

    Attributes:
        seen: How many events there have been.
        failures: How often an observer has raised.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self.seen = 0
        self.failures = 0
        self._known_failures: set[str] = set()
        self._gathered: list[CheckRecord] = []
        self._timer: asyncio.TimerHandle | None = None

    def observe(self, event: Event) -> None:
        """Pass on an event: answers that are given again a moment later and together, all else at once."""
        self.seen += 1
        if not isinstance(event, Repeated):
            self._notify(event)
            return
        self._gathered += event.records
        if self._timer is None or len(self._gathered) >= MOST_GATHERED:
            self._pass_on_soon()

    def flush(self) -> None:
        """Pass on what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._notify(Repeated(tuple(gathered)))

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

    def _notify(self, event: Event) -> None:
        for observer in self._observers:
            self.attempt(partial(observer.observe, event))

    def _pass_on_soon(self) -> None:
        if len(self._gathered) >= MOST_GATHERED:
            self.flush()
            return
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.flush)
