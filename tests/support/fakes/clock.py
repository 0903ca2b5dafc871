"""`Clock`, time that stands still until a test moves it. Nothing here reads the machine's clock."""

import asyncio
from typing import Final

from authz.core.moment import Moment

_ROUNDS: Final = 30

START: Final = 1_800_000_000.0
"""Epoch seconds at which every test begins."""


def at(second: float) -> Moment:
    """Return the moment at an epoch second, if nobody has set the wall clock."""
    return Moment(second, second - START)


class Clock:
    """Epoch and monotonic seconds that a test moves by hand."""

    def __init__(self, now: float = START) -> None:
        self.now = now
        self.passed = now - START

    def __call__(self) -> float:
        """Return the present epoch second."""
        return self.now

    def timer(self) -> float:
        """Return the present monotonic second."""
        return self.passed

    def moment(self) -> Moment:
        """Return both."""
        return Moment(self.now, self.passed)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.passed += seconds

    def set_by(self, seconds: float) -> None:
        """Set the wall clock; no time passes."""
        self.now += seconds


class Ticks:
    """A monotonic timer that goes on by one second at each look: durations count the looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the next second."""
        self.now += 1.0
        return self.now


class AlarmClock(Clock):
    """A clock that also wakes who waits for a moment, when a test has moved it there."""

    def __init__(self, now: float = START) -> None:
        super().__init__(now)
        self._waiting: dict[asyncio.Event, Moment] = {}

    async def wait(self, moment: Moment) -> None:
        """Wait until the clock has been moved to a moment, or its wall clock was set."""
        moved, difference = asyncio.Event(), self.now - self.passed
        self._waiting[moved] = moment
        try:
            while not moment.has_come(self.moment()) and difference == self.now - self.passed:
                await moved.wait()
                moved.clear()
        finally:
            del self._waiting[moved]

    @property
    def alarms(self) -> list[float]:
        """How many seconds from now each alarm is, in order."""
        return sorted(moment.left(self.moment()) for moment in self._waiting.values())

    async def forward(self, seconds: float = 0.0, *, set_by: float = 0.0) -> None:
        """Let time pass or set the wall clock, and everything happen that follows from it."""
        self.advance(seconds)
        self.set_by(set_by)
        for moved in self._waiting:
            moved.set()
        # Nothing in these tests leaves the event loop, so a bounded number of rounds is all there is.
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
