"""What can be said about a configuration: faults, which stop it, and notices, which do not.

How pydantic's errors become faults is in `validation`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

_MOST_WORDS: Final = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        path: Where: keys joined by dots, or the name of an environment variable.
        message: What was found, unless it may be a secret, and what was expected.
        line: Line of the document, counted from 1, where known.
    """

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.path or 'document'}" + (f" (line {self.line})" if self.line else "")
        return f"{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing worth knowing that does not stop the program.

    Attributes:
        path: As in `Fault`.
        message: What it means.
        line: As in `Fault`.
    """

    path: str
    message: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.path}" + (f" (line {self.line})" if self.line else "") + f": {self.message}"


class ConfigError(Exception):
    """The configuration cannot be used. Holds every fault that was found, not only the first.

    It is no ValueError, so pydantic lets it pass as it is.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        super().__init__(*self.faults)

    def __str__(self) -> str:
        number = len(self.faults)
        title = f"the configuration has {number} fault{'' if number == 1 else 's'}"
        return "\n  ".join([f"{title}:", *map(str, self.faults)])


def closest(word: str, known: Iterable[str], *, cutoff: float = 0.7) -> str | None:
    """Return the known word that is closest, if one is close."""
    words = list(known)
    # Comparing is quadratic: thousands of faults against thousands of names would take minutes.
    close = get_close_matches(word, words, n=1, cutoff=cutoff) if len(words) <= _MOST_WORDS else []
    return close[0] if close else None


def did_you_mean(word: str, known: Iterable[str], *, cutoff: float = 0.7) -> str:
    """Return `; did you mean X?` for the known word that is closest, or nothing."""
    close = closest(word, known, cutoff=cutoff)
    return f"; did you mean {close!r}?" if close else ""
