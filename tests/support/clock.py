"""`Clock`, time that stands still until a test moves it. Nothing here reads the machine's clock."""

import asyncio
from typing import Final

_ROUNDS: Final = 30

START: Final = 1_800_000_000.0
"""Epoch seconds at which every test begins."""


class Clock:
    """Epoch seconds that a test moves by hand."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the present second."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
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
        self._waiting: dict[asyncio.Event, float] = {}

    async def wait(self, moment: float) -> None:
        """Wait until the clock has been moved to an epoch second."""
        moved = asyncio.Event()
        self._waiting[moved] = moment
        try:
            while self.now < moment:
                await moved.wait()
                moved.clear()
        finally:
            del self._waiting[moved]

    @property
    def alarms(self) -> list[float]:
        """How many seconds from now each alarm is, in order."""
        return sorted(moment - self.now for moment in self._waiting.values())

    async def forward(self, seconds: float = 0.0) -> None:
        """Let time pass, and everything happen that follows from it."""
        self.advance(seconds)
        for moved in self._waiting:
            moved.set()
        # Nothing in these tests leaves the event loop, so a bounded number of rounds is all there is.
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
