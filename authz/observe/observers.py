"""`Observers`: several observers behind one, in order; what comes often is passed on in batches."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import structlog

from authz.core.event import Event, Repeated
from authz.core.outcome import Granted
from authz.core.record import CheckRecord
from authz.ports import Observer

PATIENCE: Final = 0.02
"""Seconds for which repeats are gathered. A process that is killed loses so much of its log and counts."""
MOST_GATHERED: Final = 128
"""Repeats that are passed on at a time."""
MOST_RECORDS: Final = 32
"""The same where their records are written down, which takes longer."""
_log = structlog.get_logger(__name__)


class Observers:
    """Notifies each observer. One that fails is counted, and spoils no decision.

    Counting and writing down one by one would take longer than repeating an answer does.

    Args:
        observers: Are notified of everything.
        reads_records: Says whether one of them reads the records of repeated answers; asked at each `flush`.

    Attributes:
        failures: How often an observer has raised.
    """

    def __init__(self, observers: Sequence[Observer], *, reads_records: Callable[[], bool]) -> None:
        self._observers = tuple(observers)
        self._reads_records = reads_records
        self.failures = 0
        self._seen = 0
        self._known_failures: set[str] = set()
        self._keeps_records = reads_records()
        self._most = MOST_RECORDS if self._keeps_records else MOST_GATHERED
        self._answers: list[tuple[Granted, float]] = []
        self._records: list[CheckRecord] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def seen(self) -> int:
        """How many events there have been."""
        return self._seen + len(self._answers)

    def observe(self, event: Event) -> None:
        """Pass on an event at once."""
        self._seen += 1
        self._notify(event)

    def repeated(self, granted: Granted, record: CheckRecord) -> None:
        """Pass on an answer that is given again a moment later, together with others.

        What was asked is dropped where nobody reads it: requests that are kept for later slow down those
        that come now, by a sixth.
        """
        self._answers.append((granted, record.seconds))
        if self._keeps_records:
            self._records.append(record)
        if self._timer is None or len(self._answers) >= self._most:
            self._pass_on_soon()

    def flush(self) -> None:
        """Pass on what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._seen += len(self._answers)
        answers, self._answers = self._answers, []
        records, self._records = self._records, []
        self._keeps_records = self._reads_records()
        self._most = MOST_RECORDS if self._keeps_records else MOST_GATHERED
        if answers:
            self._notify(Repeated(answers, records))

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
        if len(self._answers) >= self._most:
            self.flush()
            return
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.flush)
