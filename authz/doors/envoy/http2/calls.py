"""`Calls`: what a block of request headers asks for; and the blocks that answers are made of.

The `hpack` package decompresses headers (HPACK, RFC 7541). Our settings ask the peer to keep no dynamic
table. Then equal blocks are equal headers, and a block that came before is looked up.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import hpack

from authz.doors.envoy.http2.frames import Code, ConnectionFault, StreamFault

PREFIX_BYTES: Final = 5
"""Bytes before a gRPC message: whether it is compressed, and its length ("gRPC over HTTP2")."""
LARGEST_MESSAGE: Final = 1024 * 1024
"""Bytes of a CheckRequest: headers, and where rules go by MCP tool a body."""
LARGEST_HEADERS: Final = 65_536
"""Bytes of a request's headers, as RFC 9113 section 6.5.2 counts them, and of their compressed block."""
MOST_KNOWN: Final = 256
"""Blocks that are remembered. An Envoy has a few; one that traces its Checks has a new one for each."""
LARGEST_KNOWN: Final = 4096
"""Bytes of a block that is remembered."""

OK: Final = 0
INVALID_ARGUMENT: Final = 3
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
_MOST_DIGITS: Final = 15
_HOURS: Final = 3600.0
_UNITS: Final = {b"H": _HOURS, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_NAME: Final = re.compile(rb":?[!#$%&'*+.^_`|~0-9a-z-]+")
_NOT_IN_VALUE: Final = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_OF_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_REQUIRED: Final = frozenset({b":method", b":scheme", b":path"})
_PSEUDO: Final = _REQUIRED | {b":authority"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a call is answered that is none to the method, or whose message is none.

    Attributes:
        headers: Block of the answer's headers.
        body: What follows them; empty for nothing.
    """

    headers: bytes
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Call:
    """A request, as far as its headers tell.

    Attributes:
        timeout: Seconds that its client waits (`grpc-timeout`); None for as long as it takes.
        length: Bytes of its body, if it says so (`content-length`).
        refusal: Why it is not to be answered by the method; None where it is.
    """

    timeout: float | None = None
    length: int | None = None
    refusal: Refusal | None = None


def block(headers: Sequence[tuple[str, str]]) -> bytes:
    """Compress headers so that they need no table."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    # The first block of a connection has to say that the table is empty; it may be said in each.
    return bytes(encoder.encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in headers]))


def refused(status: int, message: str) -> Refusal:
    """Return the answer of gRPC for an error: one block, which is headers and trailers ("Trailers-Only")."""
    return Refusal(
        block(
            [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-status", str(status)),
                ("grpc-message", message),
            ]
        )
    )


def _not_grpc(status: int, body: bytes, *more: tuple[str, str]) -> Refusal:
    return Refusal(block([(":status", str(status)), ("content-type", "text/plain"), *more]), body)


ANSWER: Final = block([(":status", "200"), ("content-type", "application/grpc")])
TRAILERS: Final = block([("grpc-status", str(OK))])
COMPRESSED: Final = refused(UNIMPLEMENTED, "compressed messages are not taken")
NO_CHECK: Final = refused(INVALID_ARGUMENT, "not a CheckRequest")
NOT_ONE_MESSAGE: Final = refused(INTERNAL, "expected one whole message")
TOO_LARGE: Final = refused(RESOURCE_EXHAUSTED, "the message is too large")
DEFECT: Final = refused(INTERNAL, "defect")
_NO_METHOD: Final = refused(UNIMPLEMENTED, "only Check is served here")
_NO_GRPC: Final = _not_grpc(415, b"expected content-type application/grpc\n")
_NO_POST: Final = _not_grpc(405, b"expected POST\n", ("allow", "POST"))


def length_of(body: bytes | bytearray) -> int:
    """Return how long a message is, as its prefix says."""
    return int.from_bytes(body[1:PREFIX_BYTES], "big")


def refusal_of(body: bytes) -> Refusal | None:
    """Return why a body is not one message; None if it is."""
    size = len(body) - PREFIX_BYTES
    # The mark of compression and the length are read as one number. It is the length where the mark is 0.
    if int.from_bytes(body[:PREFIX_BYTES], "big") == size and 0 <= size <= LARGEST_MESSAGE:
        return None
    if size < 0 or length_of(body) != size:
        return NOT_ONE_MESSAGE
    return TOO_LARGE if size > LARGEST_MESSAGE else COMPRESSED


class Calls:
    """Reads blocks of headers, those of one connection, in order.

    Args:
        path: `:path` of the method.

    Attributes:
        has_agreed: Whether the peer has acknowledged our settings, by which it keeps no table.
    """

    def __init__(self, path: str) -> None:
        self._path = path.encode()
        self._decoder = hpack.Decoder(max_header_list_size=LARGEST_HEADERS)
        self._known: dict[bytes, Call] = {}
        self._table, self._has_table = self._decoder.header_table_size, True
        self.has_agreed = False

    def call(self, data: bytes) -> Call:
        """Return what the headers of a request ask for.

        Raises:
            ConnectionFault: The block cannot be decompressed; later ones cannot be either.
            StreamFault: The request is malformed (RFC 9113 section 8.1.1).
        """
        has_table = self._has_table
        if not has_table and (known := self._known.get(data)) is not None:
            return known
        found = self._call(self._headers(data))
        if not has_table and not self._has_table and len(data) <= LARGEST_KNOWN:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[data] = found
        return found

    def trailers(self, data: bytes) -> bool:
        """Read headers that follow a body, and return whether they are well formed: they say nothing.

        Raises:
            ConnectionFault: The block cannot be decompressed.
        """
        try:
            return not any(name.startswith(b":") for name, _ in _checked(self._headers(data)))
        except StreamFault:
            return False

    def _headers(self, data: bytes) -> list[tuple[bytes, bytes]]:
        try:
            found = self._decoder.decode(data, raw=True)
        except hpack.OversizedHeaderListError:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "the headers are too large") from None
        except hpack.HPACKError:
            raise ConnectionFault(Code.COMPRESSION_ERROR, "the headers cannot be decoded") from None
        # A peer is asked to keep none, and says so in the first block after it has read that.
        size, before = self._decoder.header_table_size, self._table
        self._table, self._has_table = size, size > 0
        if self.has_agreed and 0 < size != before:
            raise ConnectionFault(Code.COMPRESSION_ERROR, "expected no table of headers")
        return [(bytes(name), bytes(value)) for name, value in found]

    def _call(self, headers: list[tuple[bytes, bytes]]) -> Call:
        pseudo: dict[bytes, bytes] = {}
        found: dict[bytes, bytes] = {}
        for name, value in _checked(headers):
            if not name.startswith(b":"):
                found[name] = value
            elif name in pseudo or name not in _PSEUDO or found:
                raise StreamFault(Code.PROTOCOL_ERROR)
            else:
                pseudo[name] = value
        if not pseudo.keys() >= _REQUIRED or not pseudo[b":path"]:
            raise StreamFault(Code.PROTOCOL_ERROR)
        return Call(
            _timeout(found.get(b"grpc-timeout")),
            _length(found.get(b"content-length")),
            self._refusal(pseudo, found),
        )

    def _refusal(self, pseudo: dict[bytes, bytes], headers: dict[bytes, bytes]) -> Refusal | None:
        if pseudo[b":method"] != b"POST":
            return _NO_POST
        kind = headers.get(b"content-type", b"")
        if kind != b"application/grpc" and not kind.startswith(
            (b"application/grpc+", b"application/grpc;")
        ):
            return _NO_GRPC
        return None if pseudo[b":path"] == self._path else _NO_METHOD


def _checked(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """Pass on fields that RFC 9113 section 8.2 allows.

    Raises:
        StreamFault: One is not.
    """
    for name, value in headers:
        if _NAME.fullmatch(name) is None or _NOT_IN_VALUE.search(value) is not None:
            raise StreamFault(Code.PROTOCOL_ERROR)
        if name in _OF_CONNECTION or (name == b"te" and value != b"trailers"):
            raise StreamFault(Code.PROTOCOL_ERROR)
        yield name, value


def _timeout(value: bytes | None) -> float | None:
    """Read `grpc-timeout` ("gRPC over HTTP2", Requests). One that is none counts as absent."""
    match = None if value is None else _TIMEOUT.fullmatch(value)
    return None if match is None else int(match[1]) * _UNITS[match[2]]


def _length(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > _MOST_DIGITS:
        raise StreamFault(Code.PROTOCOL_ERROR)
    return int(value)
