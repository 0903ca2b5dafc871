"""The path of a request as the rules of a route see it, and what of it cannot be decided.

A destination may read a path in more ways than one: it may take `%61` for `a`, `/ADMIN` for `/admin`, or
`/a/../b` for `/b`. Here a path has one reading, or it is refused.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from authz.core.errors import AmbiguousRequest

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

_OTHER_METHOD: Final = re.compile(
    r"(?:_method|\$httpmethod|x-http-method(?:-override)?|x-method-override)(?:\[\])?",
    re.IGNORECASE,
)
"""Parameters of a query by which some frameworks serve another method than the request has."""
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
    text = segment if segment.isascii() else unicodedata.normalize("NFKC", segment)
    return text.casefold().rstrip(". ")


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
    loose = loosened(segment)
    # That of "." and "..", too.
    if not loose:
        raise AmbiguousRequest("the path has a segment that is empty, or of dots and blanks only")
    if not segment.isascii() and not (loose.isprintable() and _CUTTING.isdisjoint(loose)):
        raise AmbiguousRequest("the path has a character that some servers take for / or the like")
    return segment


def _check_query(query: str) -> None:
    if "method" not in query.casefold() and "%" not in query:
        return
    for parameter in _PARAMETERS.split(query):
        name = _unquoted(parameter.partition("=")[0]).decode(errors="replace")
        if _OTHER_METHOD.fullmatch(name.strip()) is not None:
            raise AmbiguousRequest("the query names another method")


def _unquoted(text: str) -> bytes:
    return _ENCODED.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode())
