"""`Clock`, time that stands still until a test moves it. Nothing here reads the machine's clock."""

from typing import Final

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
