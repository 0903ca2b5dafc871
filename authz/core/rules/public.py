"""`PublicPaths`: where an inbound route needs no token, because the agent shows the same to everybody."""

from typing import Final

from authz.core.errors import AmbiguousRequest
from authz.core.rules.path import read_path
from authz.core.rules.rule import Rule
from authz.core.rules.template import Template

PUBLIC: Final = "public"
"""Name in records of the rule by which such a request passes."""
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 section 9.2.1). No other is public."""

_MOST_KNOWN: Final = 1024
"""Targets that are remembered for each route, so that most are found by one look-up."""
_LONGEST_KNOWN: Final = 256
"""Characters of such a target."""


class PublicPaths:
    """The public paths of one route.

    A path is public to the letter. What a server may read in another way needs a token as any other path.
    """

    def __init__(self, templates: tuple[Template, ...]) -> None:
        self._rule = Rule(PUBLIC, True, READING, templates)
        self._known: dict[str, bool] = {}

    def __eq__(self, other: object) -> bool:
        return self._rule == other._rule if isinstance(other, PublicPaths) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def include(self, method: str, target: str) -> bool:
        """Whether a request with this method and request target needs no token."""
        if method not in READING:
            return False
        found = self._known.get(target)
        if found is None:
            found = self._search(method, target)
            if len(target) <= _LONGEST_KNOWN:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[target] = found
        return found

    def _search(self, method: str, target: str) -> bool:
        try:
            path = read_path(target)
        except AmbiguousRequest:
            return False
        return self._rule.takes(method, path.exact, None, loosely=False)
