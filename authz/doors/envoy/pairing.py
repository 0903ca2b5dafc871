"""`Pairing`: whether the Envoys that ask were rendered from the configuration that decides.

Envoy says its mark in each Check and on each stream of secrets. An Envoy that was written by hand has none,
and no request is refused for that. Where it was rendered from another configuration, the route that it names
must have the request's host (`authz.core.policy`). What a mark covers is `authz.config.rendered`.
"""

from enum import StrEnum
from typing import Any, Final

import structlog

from authz.config.rendered import LONGEST_MARK, Rendered, Selection
from authz.ports import Timer

KEPT: Final = 300.0
"""Seconds for which an Envoy counts that has not said its mark again. Repeated answers bring no mark."""
MOST_MARKS: Final = 64
"""Different marks that are remembered: of an agent's Envoy there is one, of a shared service's a few."""
AGAIN: Final = 10.0
"""Seconds within which the same mark is not noted again."""

_log = structlog.get_logger(__name__)


class Match(StrEnum):
    """How an Envoy's configuration stands to ours, as metric label."""

    MATCHED = "matched"
    OUTDATED = "outdated"
    UNKNOWN = "unknown"
    """It has no mark: written by hand, or rendered by an older release."""


class Pairing:
    """Hears marks, and compares them with the configuration in use.

    Args:
        rendered: What Envoys are rendered from, of the configuration in use.
        timer: Monotonic seconds.
    """

    def __init__(self, rendered: Rendered, *, timer: Timer) -> None:
        self._timer = timer
        self._rendered = rendered
        self._heard: dict[str, float] = {}
        """When each mark was heard last, the latest at the end. Empty stands for none."""
        self._matches: dict[str, Match] = {}
        self._told: set[str] = set()

    def swap(self, rendered: Rendered) -> None:
        """Compare with another configuration from now on."""
        self._rendered = rendered
        self._matches.clear()
        self._told.clear()

    def note(self, mark: str | None) -> bool:
        """Take note of an Envoy's mark, and return whether it is that of another configuration.

        Reads no file, and costs two look-ups where the mark was just heard.
        """
        mark = "" if mark is None or len(mark) > LONGEST_MARK else mark
        now, last = self._timer(), self._heard.get(mark)
        known = self._matches.get(mark)
        if last is not None and now - last < AGAIN and known is not None:
            return known is Match.OUTDATED
        self._heard.pop(mark, None)
        self._heard[mark] = now
        if len(self._heard) > MOST_MARKS:
            del self._heard[next(iter(self._heard))]
        is_outdated = self._match(mark) is Match.OUTDATED
        if is_outdated and mark not in self._told and len(self._told) < MOST_MARKS:
            self._told.add(mark)
            _log.warning(
                "Envoy's configuration is older than authz's, or newer: render it again",
                envoy=mark,
                authz=self._rendered.mark(Selection.of_mark(mark)),
            )
        return is_outdated

    def counts(self) -> dict[str, int]:
        """Return how many different configurations Envoys have had of late, by how they match ours."""
        counts = {match.value: 0 for match in Match}
        for mark in self._recent():
            counts[self._match(mark).value] += 1
        return counts

    def status(self) -> dict[str, Any]:
        """Return our mark, and those that were heard of late."""
        now = self._timer()
        return {
            "rendered_from": self._rendered.mark(),
            "heard": [
                {
                    "rendered_from": mark or None,
                    "match": self._match(mark).value,
                    "seconds_ago": round(now - self._heard[mark]),
                }
                for mark in self._recent()
            ],
        }

    def _recent(self) -> list[str]:
        since = self._timer() - KEPT
        for mark in [mark for mark, last in self._heard.items() if last < since]:
            del self._heard[mark]
            self._matches.pop(mark, None)
        return list(self._heard)

    def _match(self, mark: str) -> Match:
        known = self._matches.get(mark)
        if known is None:
            if len(self._matches) >= MOST_MARKS:
                self._matches.clear()
            known = self._matches[mark] = _compared(self._rendered, mark)
        return known


def _compared(rendered: Rendered, mark: str) -> Match:
    if not mark:
        return Match.UNKNOWN
    is_ours = mark == rendered.mark(Selection.of_mark(mark))
    return Match.MATCHED if is_ours else Match.OUTDATED
