"""The path of a request as the rules of a route see it, and what of it cannot be decided.

A destination may read a path in more ways than one: it may take `%61` for `a`, `/ADMIN` for `/admin`, or
`/a/../b` for `/b`. Here a path has one reading, or it is refused.
"""

import re
from dataclasses import dataclass
from typing import Final

from authz.core.errors import AmbiguousRequest
from authz.core.folding import folded
from authz.core.rules.overriding import OTHER_METHODS, OTHER_PATHS

# RFC 3986 section 3.3, without ";": servers with parameters in paths cut a segment there.
_PATH: Final = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,=:@/-]|%[0-9A-Fa-f]{2})*")
_ENCODED: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
)
"""RFC 3986 section 2.3: encoded or not, these mean the same, but not to every server."""
_CUTTING: Final = frozenset("/\\%;?#")
"""What ends a segment, a path or an encoding for a server that decodes too early, or twice."""
_LAST_ASCII: Final = 0x7F
_FIRST_VISIBLE: Final = 0x20

_OTHERWISE: Final = frozenset(
    {"_method", "$httpmethod", "_httpmethod"}
    | {name.replace("-", "_") for name in (*OTHER_METHODS, *OTHER_PATHS)}
)
"""Parameters of a query by which some frameworks serve another request, as PHP spells them."""
_LONGEST_PATH: Final = 4096
_LONGEST_QUERY: Final = 16384
_LONGEST_FOREIGN: Final = 256
"""Characters of a segment that are not all ASCII: to normalize many marks takes their square in time."""
_NOT_IN_NAMES: Final = re.compile(r"[ .-]")
_PARAMETERS: Final = re.compile(r"[&;]")


@dataclass(frozen=True, slots=True)
class RequestPath:
    """A path without its query.

    Attributes:
        exact: Its segments, decoded, joined by slashes. No segment holds one.
        loose: The same for a server that ignores what some ignore: case, forms of one character, dots and
            blanks at the end of a segment, and a slash at the end.
    """

    exact: str
    loose: str


def read_path(target: str) -> RequestPath:
    """Read the path of a request target (RFC 9112 section 3.2.1), whose query is not part of it.

    Raises:
        AmbiguousRequest: Destinations may read it in different ways.
    """
    path, _, query = target.partition("?")
    if len(path) > _LONGEST_PATH or len(query) > _LONGEST_QUERY:
        raise AmbiguousRequest("the path or the query is longer than any that is read")
    if _PATH.fullmatch(path) is None:
        raise AmbiguousRequest("the path has a character that has to be encoded, or a ;")
    if "#" in query:
        raise AmbiguousRequest("the query has a #")
    _check_query(query)
    if path == "/":
        return RequestPath("/", "")
    segments = path[1:].split("/")
    last = segments.pop() if segments[-1] == "" else None
    decoded = [_decoded(segment) for segment in segments]
    exact = "".join(f"/{segment}" for segment in decoded)
    return RequestPath(
        exact if last is None else f"{exact}/",
        "".join(f"/{loosened(segment)}" for segment in decoded),
    )


def loosened(segment: str) -> str:
    """Return what a decoded segment is to a server that ignores what some ignore."""
    return folded(segment).rstrip(". ")


def _decoded(segment: str) -> str:
    if "%" in segment:
        for found in _ENCODED.findall(segment.encode()):
            octet = int(found, 16)
            if octet in _UNRESERVED:
                raise AmbiguousRequest("the path has an encoded letter, digit, -, ., _ or ~")
            if octet < _FIRST_VISIBLE or octet == _LAST_ASCII or chr(octet) in _CUTTING:
                raise AmbiguousRequest(
                    "the path has an encoded /, \\, %, ;, ?, # or control character"
                )
        try:
            segment = _unquoted(segment).decode()
        except UnicodeDecodeError:
            raise AmbiguousRequest("the path is not UTF-8 once decoded") from None
    if len(segment) > _LONGEST_FOREIGN and not segment.isascii():
        raise AmbiguousRequest("the path has a long segment with characters beyond ASCII")
    loose = loosened(segment)
    # That of "." and "..", too.
    if not loose:
        raise AmbiguousRequest("the path has a segment that is empty, or of dots and blanks only")
    if not segment.isascii() and not (loose.isprintable() and _CUTTING.isdisjoint(loose)):
        raise AmbiguousRequest("the path has a character that some servers take for / or the like")
    return segment


def _check_query(query: str) -> None:
    lower = query.casefold()
    if "method" not in lower and "url" not in lower and "%" not in lower:
        return
    for parameter in _PARAMETERS.split(lower):
        name = _unquoted(parameter.partition("=")[0]).decode(errors="replace").casefold()
        # PHP ends a name at NUL, trims it, and has underscores in place of blanks and dots.
        name = name.partition("\0")[0].replace("+", " ").strip().removesuffix("[]")
        if _NOT_IN_NAMES.sub("_", name) in _OTHERWISE:
            raise AmbiguousRequest("the query names another method or path")


def _unquoted(text: str) -> bytes:
    return _ENCODED.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode())
