"""How many token calls arrived, by leg. Nothing about what they carried."""

from __future__ import annotations

import threading
from typing import Final

LEGS: Final = (
    "blueprint",
    "t1",
    "autonomous",
    "agent_obo",
    "agent_refresh",
    "t2",
    "user_fic",
    "app_obo",
    "app",
    "authorization_code",
    "device_code",
)
"""Every leg that is counted, in the order of the protocol's description."""


class Calls:
    """Counts of token calls; safe from any thread.

    A call counts for its leg whatever the answer was, an injected fault included. `rejected`
    counts answers without a token, `total` all calls, those of no leg included.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys((*LEGS, "rejected", "total"), 0)

    def record(self, leg: str | None) -> None:
        """A token call of this leg arrived."""
        with self._lock:
            self._counts["total"] += 1
            if leg is not None:
                self._counts[leg] += 1

    def reject(self) -> None:
        """A token call was answered without a token."""
        with self._lock:
            self._counts["rejected"] += 1

    def snapshot(self) -> dict[str, int]:
        """The counts now."""
        with self._lock:
            return dict(self._counts)

    def reset(self) -> None:
        """Start again from zero."""
        with self._lock:
            self._counts = dict.fromkeys(self._counts, 0)
