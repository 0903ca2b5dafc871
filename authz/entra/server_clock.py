"""`ServerClock`: how far this machine's clock is from Entra's, by the `Date` of Entra's answers.

Tokens are valid between two moments of Entra's clock. Where ours differs by more than a route's leeway, good
tokens are refused, or expired ones are taken. Nothing is corrected by it: it is there to be seen.
"""

import threading
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import structlog

from authz.ports import Clock

TOLERATED: Final = 60.0
"""Seconds of difference that are not worth a warning: the default of `leeway`."""
_AGE_DIGITS: Final = 9
"""A longer `Age` is of no cache that keeps time."""
RESOLUTION: Final = 2.0
"""Seconds: a `Date` has no fractions (RFC 9110 section 5.6.7), servers write it once a second, and an answer
takes its time."""
_log = structlog.get_logger(__name__)


class ServerClock:
    """What Entra's answers say of the time.

    Args:
        clock: Epoch seconds, the clock to compare.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._logged: float | None = None
        self.difference: float | None = None
        """Seconds by which our clock is ahead of Entra's (negative: behind); None before the first answer."""

    def adopt(self, other: "ServerClock") -> None:
        """Go on from what another instance knows."""
        self._logged, self.difference = other._logged, other.difference  # noqa: SLF001 - the same class

    def note(self, headers: Mapping[str, str]) -> None:
        """Compare with an answer that has just arrived; may be called by any thread.

        Args:
            headers: Its fields, by names in lower case. One without a `Date` that can be read says nothing.
        """
        try:
            date = parsedate_to_datetime(headers.get("date", "")).replace(tzinfo=UTC).timestamp()
        except (ValueError, OverflowError):
            return
        # What a cache on the way has held is older by its `Age` (RFC 9111 section 5.1).
        age = headers.get("age", "")
        date += int(age) if age.isascii() and age.isdigit() and len(age) <= _AGE_DIGITS else 0
        difference = self._clock() - date
        with self._lock:
            self.difference = 0.0 if abs(difference) <= RESOLUTION else difference
            self._tell(self.difference)

    def _tell(self, difference: float) -> None:
        differs, known = abs(difference) > TOLERATED, self._logged
        if differs and (known is None or abs(difference - known) > TOLERATED):
            self._logged = difference
            _log.warning(
                "clock differs",
                seconds=round(difference),
                clock="ahead of Entra's" if difference > 0 else "behind Entra's",
                hint="set this machine's clock (NTP): good tokens are refused, or expired ones taken",
            )
        elif known is not None and not differs:
            self._logged = None
            _log.info("clock agrees again", seconds=round(difference))
