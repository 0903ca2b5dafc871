"""What a verified token has, beside what would have done: the words of a log record, bounded in length."""

from collections.abc import Collection
from typing import Final

_MOST_SHOWN: Final = 10
_LONGEST_SHOWN: Final = 100


def difference(found: Collection[str], expected: Collection[str]) -> str:
    """Return, for a log, what a verified token has and what would have done."""
    return f"found {_shown(found)}, {wanted(expected)}"


def wanted(expected: Collection[str]) -> str:
    """Return, for a log, what would have done, where what was found is not shown."""
    return f"expected {_shown(expected)}"


def _shown(values: Collection[str]) -> str:
    # A token's claims are as long as somebody made them; a log record is not.
    texts = [ascii(value[:_LONGEST_SHOWN]) for value in sorted(values)]
    more = len(texts) - _MOST_SHOWN
    return ", ".join(texts[:_MOST_SHOWN]) + (f" and {more} more" if more > 0 else "") or "none"
