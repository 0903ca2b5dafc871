"""Names steps at a terminal, and how long each takes. Whose steps these are is in `environment`.

Like `machine`, this has no syntax that is newer than Python 3.8, and uses the standard library alone.
"""

from __future__ import annotations

import sys
import time

QUIET = 2.0
"""Seconds after which a step that still runs says so."""


class Terminal:
    """Names steps, and says how long one has been running where nothing else is to be seen."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._step = 0
        self._began = self._said = time.monotonic()
        self._rewrites = sys.stdout.isatty()

    def step(self, what: str) -> None:
        """Name the next step."""
        self._step += 1
        self._began = self._said = time.monotonic()
        print(f"==> {self._step}/{self._steps} {what}", flush=True)

    def progress(self, text: str) -> None:
        """Show how far the step is, every few seconds."""
        now = time.monotonic()
        if now - self._said < (0.1 if self._rewrites else QUIET):
            return
        self._said = now
        line = f"    {now - self._began:.0f} s  {text}"[:78]
        print(
            f"\r\x1b[K{line}" if self._rewrites else line,
            end="" if self._rewrites else "\n",
            flush=True,
        )

    def done(self) -> None:
        """Remove what `progress` has written."""
        if self._rewrites:
            print("\r\x1b[K", end="", flush=True)
