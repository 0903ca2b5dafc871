"""`differences`: where two servers did not do the same with one conversation; `INTENDED`: where it is meant.

Which error is told, and whether for one call or for the connection, is a server's choice: any error is
a refusal.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from authz.doors.envoy.http2.frames import Code
from support.beside_grpcio.exchange import Heard
from support.beside_grpcio.mutations import FLIPPED, KEPT
from support.beside_grpcio.speaker import Conversation

_ORDINARY: Final = frozenset({"ordinary", "last"})


class Way(Enum):
    """How our server differs from grpcio's."""

    STRICTER = "ours refuses what grpcio answers"
    LAXER = "ours answers what grpcio refuses"
    OTHER = "the answers differ"
    SILENT = "ours neither answers nor refuses"
    DEFECT = "ours has a defect"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference.

    Attributes:
        way: In which way.
        about: What was special: a rule that was broken, or a kind of call.
        text: Both outcomes.
    """

    way: Way
    about: str
    text: str

    @property
    def reason(self) -> str | None:
        """Why it is intended; None if it is not."""
        return INTENDED.get((self.about, self.way))


PASSED_OVER: Final = frozenset(
    {"half a prefix", "longer prefix", "no message", "odd mark of compression"}
)
"""Calls that grpc.aio may neither answer nor refuse, for want of a message; ours refuses them."""

_STRICTER: Final = {
    "RFC 9113 has a stream end for it, and C-core does not look": (
        ":status of a request",
        "NUL in a value",
        "content-length that is no number",
        "data after the end",
        "header of the connection",
        "line feed in a value",
        "longer content-length",
        "pseudo header after others",
        "pseudo header in trailers",
        "shorter content-length",
        "space around a value",
        "transfer-encoding",
        "two :method",
        "two :path",
        "window of a stream beyond the largest",
    ),
    "RFC 9113 has the connection end for it, and C-core does not look": (
        "data before headers",
        "data without a stream",
        "frame beyond the largest",
        "goaway of a stream",
        "headers after the end",
        "headers of a server's stream",
        "headers of an earlier stream",
        "headers without a stream",
        "ping of a stream",
        "priority of wrong size",
        "promise",
        "reset of a stream that has not begun",
        "reset without a stream",
        "window beyond the largest",
        "window of a stream that has not begun",
    ),
    "RFC 7540 has the connection end for it, and C-core does not know priorities": (
        "headers that depend on themselves",
        "priority on itself",
    ),
    "RFC 7541 has the connection end for it; C-core ends the stream": (
        "size of the table after headers",
        "wrong Huffman code",
    ),
    "whoever sends so much is no Envoy; C-core ends the stream": ("headers beyond the largest",),
    "gRPC over HTTP2 asks for 415; C-core takes any": ("another content type",),
    "what would be bombs is not unpacked; C-core takes what is marked and has no encoding": (
        "compressed",
    ),
    "gRPC over HTTP2 knows the marks 0 and 1; grpcio's method hears an empty message, or nothing": (
        "odd mark of compression",
    ),
    "a unary method has one message; grpc.aio answers the first": (
        "several messages",
        "shorter prefix",
    ),
}
_LAXER: Final = {
    "RFC 9113 asks every peer to take it; C-core refuses it": (
        "flags that a ping does not have",
        "padding",
    ),
    "RFC 9113 does not ask for it, and whom the client named does not count here": (
        "no authority",
    ),
    "it tells of proxies that know no trailers; the peer is Envoy": ("no te",),
    "one that cannot be read counts as absent, and the default is short": ("odd timeout",),
    "the echo does not look at the time; the Check does": ("timeout that passes",),
    "headers of the call itself say nothing here": ("binary header that is none",),
    "an encoding says nothing of a message that is not compressed": ("encoding that is not used",),
}
INTENDED: Final = {
    (about, way): reason
    for way, table in ((Way.STRICTER, _STRICTER), (Way.LAXER, _LAXER))
    for reason, names in table.items()
    for about in names
}
"""Differences that are intended, and why."""


def differences(said: Conversation, ours: Heard, theirs: Heard) -> list[Difference]:
    """Compare two servers in one conversation."""
    found = _of_ours(said, ours)
    one_ended = ours.ended or theirs.ended
    for stream, asked in said.streams.items():
        is_about_all = asked.kind in _ORDINARY and not said.victim
        about = said.mutation or asked.kind if stream == said.victim or is_about_all else asked.kind
        first, second = ours.of(stream), theirs.of(stream)
        text = f"stream {stream}: {first}, {second}"
        if first.answer is not None and second.answer is not None:
            if first.answer != second.answer:
                found.append(Difference(Way.OTHER, about, text))
        elif not asked.whole or asked.cancelled or one_ended or said.mutation == FLIPPED:
            # Either of two outcomes may be, by the moment.
            continue
        elif first.answer is not None or second.answer is not None:
            way = Way.LAXER if second.answer is None else Way.STRICTER
            found.append(Difference(way, about, text))
    if ours.ended != theirs.ended and said.mutation != FLIPPED:
        found += _of_ends(said, ours, theirs)
    return found


def _of_ours(said: Conversation, ours: Heard) -> list[Difference]:
    found = []
    if Code.INTERNAL_ERROR in ours.codes():
        found.append(Difference(Way.DEFECT, said.mutation, "INTERNAL_ERROR"))
    if any(outcome.fields.get("grpc-message") == "defect" for outcome in ours.outcomes.values()):
        found.append(Difference(Way.DEFECT, said.mutation, "grpc-message: defect"))
    if ours.silent and said.mutation != FLIPPED:
        found.append(Difference(Way.SILENT, said.mutation or "ordinary", "ours is silent"))
    if said.mutation in KEPT:
        for stream, asked in said.streams.items():
            is_ordinary = asked.kind in _ORDINARY and asked.whole and not asked.cancelled
            if is_ordinary and ours.of(stream).answer != asked.body:
                found.append(Difference(Way.DEFECT, said.mutation, f"stream {stream}: no echo"))
    return found


def _of_ends(said: Conversation, ours: Heard, theirs: Heard) -> list[Difference]:
    """Compare, where one connection ended and the other did not."""
    going, way = (theirs, Way.STRICTER) if ours.ended else (ours, Way.LAXER)
    if said.victim and going.of(said.victim).answer is None:
        return []
    text = f"connection: {_end(ours)}, {_end(theirs)}"
    return [Difference(way, said.mutation or "ordinary", text)]


def _end(heard: Heard) -> str:
    if not heard.ended:
        return "silent" if heard.silent else "goes on"
    code = heard.code
    return "closed" if code is None else Code(code).name if code in set(Code) else str(code)
