"""HTTP/2 frames as bytes (RFC 9113 sections 4 to 7). No state of a connection is here."""

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client begins with (section 3.4)."""
HEAD: Final = Struct(">HBBBL")
"""Head of a frame: 24 bits of length in two parts, kind, flags, stream."""
HEAD_BYTES: Final = HEAD.size
_SETTING: Final = Struct(">HL")
LARGEST_FRAME: Final = 16_384
"""Bytes of a frame's payload that each side takes unless it says more (`SETTINGS_MAX_FRAME_SIZE`)."""
LARGEST_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
LARGEST_STREAM: Final = 2**31 - 1

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20


PRIORITY_BYTES: Final = 5
_SIZES: Final = {PRIORITY: PRIORITY_BYTES, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_LEAST_GOAWAY: Final = 8
_SETTING_BYTES: Final = 6
_OF_CONNECTION: Final = frozenset({SETTINGS, PING, GOAWAY})
_OF_EITHER: Final = WINDOW_UPDATE


class Setting(IntEnum):
    """Settings (section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Code(IntEnum):
    """Error codes (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):
    """The peer broke a rule for which the connection ends (section 5.4.1).

    Attributes:
        code: Error code that the peer receives.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFault(Exception):
    """The peer broke a rule for which one stream ends (section 5.4.2).

    Attributes:
        code: Error code that the peer receives.
    """

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    length = len(payload)
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """Return a frame of settings."""
    pairs = (key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items())
    return frame(SETTINGS, 0, 0, b"".join(pairs))


def rst_stream(stream: int, code: Code) -> bytes:
    """Return a frame that ends a stream."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def window_update(stream: int, increment: int) -> bytes:
    """Return a frame that lets the peer send so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def goaway(last: int, code: Code, text: str = "") -> bytes:
    """Return a frame that announces the end of the connection.

    Args:
        last: Streams above this one are not answered.
        code: Why.
        text: Cause in words, for the log of the peer.
    """
    return frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + text.encode())


def unpadded(payload: bytes, flags: int) -> bytes:
    """Return what a frame of data or headers contains without its padding (sections 6.1 and 6.2).

    Raises:
        ConnectionFault: The padding is longer than the frame.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]


def check(kind: int, stream: int, payload: bytes) -> None:
    """Refuse a frame of a wrong size, or on a stream where it does not belong (section 6).

    Raises:
        ConnectionFault: It is one.
    """
    if kind != _OF_EITHER and (stream == 0) != (kind in _OF_CONNECTION):
        raise ConnectionFault(Code.PROTOCOL_ERROR, f"frames of kind {kind} do not belong there")
    size = len(payload)
    wrong = (
        size != _SIZES.get(kind, size)
        or (kind == GOAWAY and size < _LEAST_GOAWAY)
        or (kind == SETTINGS and size % _SETTING_BYTES)
    )
    if wrong:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of kind {kind} has a wrong size")


def check_priority(stream: int, priority: bytes) -> None:
    """Refuse a stream that depends on itself (RFC 7540 section 5.3.1). What else it says does not count.

    Raises:
        ConnectionFault: It does.
    """
    if int.from_bytes(priority[:4], "big") & LARGEST_STREAM == stream:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream depends on itself")


def settings_of(payload: bytes) -> dict[int, int]:
    """Return what a frame of settings says; of a setting that is there twice, the last value counts.

    Raises:
        ConnectionFault: A value is out of its range (section 6.5.2).
    """
    found = {}
    for key, value in _SETTING.iter_unpack(payload):
        match key:
            case Setting.ENABLE_PUSH if value > 1:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
            case Setting.INITIAL_WINDOW_SIZE if value > LARGEST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the window is too large")
            case Setting.MAX_FRAME_SIZE if not LARGEST_FRAME <= value < 2**24:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of its range")
            case _:
                found[key] = value
    return found
