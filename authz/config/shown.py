"""How much of a value faults show: what finds the mistake, and nothing that may be a secret.

A value may hold a secret wherever somebody put it by mistake, or in a URL: user and password before the host,
keys in the query. Every text that quotes a value of the configuration quotes it by `shown`, and one that
names a file or an environment variable by `shown_file` or `shown_variable`: a secret is often written in
the place of its file.
"""

import re
from pathlib import Path
from typing import Final

from authz.core import grammar

LONGEST: Final = 60
"""Characters."""
_CUT: Final = "…"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://")
_AFTER: Final = re.compile(r"[?#=;&]|\b(?:bearer|basic|digest|negotiate)\s", re.IGNORECASE)
"""Where a query, a fragment, the value of a pair, or what follows an authentication scheme begins."""
_RUN: Final = re.compile(r"[A-Za-z0-9+_~]{16,}")
_WORD: Final = re.compile(r"[^\s/:,@]{16,}")
_KEYS: Final = re.compile(r"[\w.~+-]*")
_GUID: Final = re.compile(grammar.GUID)
_PATH: Final = re.compile(r"\.{0,2}/[^\\\"'<>|?*$%&;={}()\[\]!^`\u0000-\u001f]*")
"""An absolute path, or one that begins with `./` or `../`, without characters of passwords."""
_RELATIVE: Final = re.compile(r"[a-z0-9._-]+(?:/[a-z0-9._-]+)+")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]*", re.ASCII)
_PIECE: Final = re.compile(r"[A-Za-z0-9~+]{8,}")
_LONG_PIECE: Final = 16
"""Characters of a piece in which letters and digits together look made up."""
_ROOT: Final = re.compile("[a-z]{2,8}|Users|Volumes")
NO_PATH: Final = "(value not shown: it does not look like a path)"
NO_VARIABLE: Final = "(name not shown: it does not look like the name of a variable)"


def shown_file(path: Path | str) -> str:
    """Return the path of a file as texts show it, or words in its place where it may be a secret.

    Nothing is looked up: a file system that hangs would delay the text.
    """
    text = str(path)
    if not (_PATH.fullmatch(text) or _RELATIVE.fullmatch(text)):
        return NO_PATH
    parts = text.split("/")
    if not any(map(_is_made_up, parts)):
        return text
    # Some folders are made up by machines. Below a folder that is not, they are left out.
    root = parts[1] if text.startswith("/") else ""
    if _ROOT.fullmatch(root) is None:
        return NO_PATH
    return "/".join(_CUT if _is_made_up(part) else part for part in parts)


def shown_variable(name: str, *, sign: str = "") -> str:
    """Return the name of an environment variable as texts show it, or words where it may be a secret.

    Args:
        name: What is configured as the name.
        sign: What stands before the name.
    """
    looks_so = _VARIABLE.fullmatch(name) and not _is_made_up(name)
    return f"{sign}{name}" if looks_so else NO_VARIABLE


def _is_made_up(part: str) -> bool:
    """Whether a part between two slashes looks as if a machine had made it up."""
    if _GUID.search(part) is not None:
        return False
    # Entra puts a tilde into each secret. Home folders begin with one.
    return "~" in part[1:] or any(map(_is_mixed, _PIECE.findall(part)))


def _is_mixed(piece: str) -> bool:
    kinds = [any(map(test, piece)) for test in (str.islower, str.isupper, str.isdigit)]
    return all(kinds) or (len(piece) >= _LONG_PIECE and kinds[2] and any(kinds[:2]))


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
