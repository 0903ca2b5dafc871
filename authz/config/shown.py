"""How much of a value faults show: what finds the mistake, and nothing that may be a secret.

A value may hold a secret wherever somebody put it by mistake, or in a URL: user and password before the host,
keys in the query. Every text that quotes a value of the configuration quotes it by `shown`.
"""

import re
from typing import Final

LONGEST: Final = 60
"""Characters."""
_CUT: Final = "…"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://")
_AFTER: Final = re.compile(r"[?#=;&]|\b(?:bearer|basic|digest|negotiate)\s", re.IGNORECASE)
"""Where a query, a fragment, the value of a pair, or what follows an authentication scheme begins."""
_RUN: Final = re.compile(r"[A-Za-z0-9+_~]{16,}")
_WORD: Final = re.compile(r"[^\s/:,@]{16,}")
_KEYS: Final = re.compile(r"[\w.~+-]*")
_GUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def shown(value: str) -> str:
    """Return a value as a fault quotes it."""
    return repr(cut(value))


def cut(value: str) -> str:
    """Return what may be shown of a value, without quotes and not too long."""
    text = safe(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + _CUT


def safe(value: str) -> str:
    """Return a value without what may be a secret."""
    # No name, host or scope has a quotation mark or a backslash; a password may.
    if not value.isprintable() or '"' in value or "\\" in value:
        return _CUT
    scheme = _SCHEME.match(value)
    start = scheme.group() if scheme else ""
    rest = value[len(start) :]
    # A password may hold anything: what is before the last one is not shown, whatever it looks like.
    before, at, rest = rest.rpartition("@")
    if _AFTER.search(before):
        # Nobody can tell which one ends what.
        return f"{start}{_CUT}"
    if at:
        start += f"{_CUT}@"
    if (end := _AFTER.search(rest)) is not None:
        rest = rest[: end.end()] + _CUT
    return start + _WORD.sub(_without_secret, rest)


def shown_place(path: str) -> str:
    """Write a path of keys without those that may be a secret: a URL, or what a machine made up."""
    return ".".join(map(safe, path.split("."))) if _KEYS.fullmatch(path) else safe(path)


def _without_secret(word: re.Match[str]) -> str:
    """Return a word, unless it looks as if a machine had made it up to be guessed by nobody."""
    text = word.group()
    if _GUID.fullmatch(text):
        return text
    kinds = [any(map(test, text)) for test in (str.islower, str.isupper, str.isdigit)]
    made_up = any(
        any(map(str.isdigit, run)) and any(map(str.isalpha, run)) for run in _RUN.findall(text)
    )
    return _CUT if all(kinds) or made_up else text
