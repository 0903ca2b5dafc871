"""`converse`: sends a conversation to a server, and tells what became of each call and of the connection."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import hpack

from authz.doors.envoy.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    Code,
)
from support.beside_grpcio.speaker import Conversation

_HEAD: Final = 9
_TABLE: Final = 1 << 20
"""Bytes of the largest table of headers that a server may use. A conversation says that it may be large."""
_PATIENCE: Final = 10.0
"""Seconds that answers take at most, where no rule was broken."""
_BRIEF: Final = 5.0
"""The same where one was: a server may pass over a call then."""


@dataclass
class Outcome:
    """What became of a call.

    Attributes:
        fields: Headers and trailers of its answer.
        body: Body of its answer.
        ended: Whether it has come to its end.
        reset: Error code with which the server cut it; None if it did not.
    """

    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def known(self) -> bool:
        """Whether there is an outcome."""
        return self.ended or self.reset is not None

    @property
    def answer(self) -> bytes | None:
        """The body of an answer with a message; None where the call was refused, or nothing came."""
        is_good = self.fields.get(":status") == "200" and self.fields.get("grpc-status") == "0"
        return self.body if self.ended and is_good and self.body else None

    def __str__(self) -> str:
        if self.answer is not None:
            return "answered"
        if not self.known:
            return "silent"
        status = self.fields.get(":status", "")
        if self.ended:
            grpc = self.fields.get("grpc-status")
            return f"HTTP {status}" if grpc is None else f"grpc-status {grpc}"
        return (
            f"reset {Code(self.reset).name}" if self.reset in set(Code) else f"reset {self.reset}"
        )


@dataclass
class Heard:
    """What a server did in a conversation.

    Attributes:
        outcomes: By stream.
        closed: Whether it closed the connection before all that was asked had an outcome.
        code: Error with which the connection ended; None if it named none.
        silent: Whether it neither closed the connection nor gave each call its outcome.
        last: Stream of the last call, which is answered if the connection goes on.
    """

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    closed: bool = False
    code: int | None = None
    silent: bool = False
    last: int = 0

    @property
    def ended(self) -> bool:
        """Whether the connection ended with an error."""
        last = self.of(self.last)
        return self.closed or bool(self.code) or (last.known and last.answer is None)

    def of(self, stream: int) -> Outcome:
        """Return what became of a call."""
        return self.outcomes.get(stream) or Outcome()

    def codes(self) -> set[int]:
        """Return all error codes of HTTP/2 that the server named."""
        found = {outcome.reset for outcome in self.outcomes.values()} | {self.code}
        return {code for code in found if code is not None}


class Client(asyncio.Protocol):
    """Hears a server.

    Args:
        awaited: Streams that are to have an outcome.
    """

    def __init__(self, awaited: set[int]) -> None:
        self.heard = Heard()
        self.done = asyncio.Event()
        self.lost = asyncio.Event()
        self._awaited = awaited
        self._decoder = hpack.Decoder()
        self._decoder.max_allowed_table_size = _TABLE
        self._rest = b""
        self._block = b""

    def data_received(self, data: bytes) -> None:
        """Take frames."""
        data = self._rest + data
        while len(data) >= _HEAD:
            after = _HEAD + int.from_bytes(data[:3], "big")
            if len(data) < after:
                break
            stream = int.from_bytes(data[5:9], "big")
            self._take(data[3], data[4], stream, data[_HEAD:after])
            data = data[after:]
        self._rest = data
        if not self._awaited or self.heard.code:
            self.done.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the server ended first, if it did."""
        self.heard.closed = not self.done.is_set() and not self.heard.silent
        self.done.set()
        self.lost.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == GOAWAY:
            self.heard.code = self.heard.code or int.from_bytes(payload[4:8], "big")
            return
        if kind not in {DATA, HEADERS, RST_STREAM}:
            return
        outcome = self.heard.outcomes.setdefault(stream, Outcome())
        if kind == HEADERS:
            assert flags & END_HEADERS, "a server's headers fit into one frame"
            found = self._decoder.decode(payload)
            outcome.fields |= {str(name): str(value) for name, value in found}
        elif kind == DATA:
            outcome.body += payload
        elif not outcome.known:
            outcome.reset = int.from_bytes(payload, "big")
        outcome.ended |= kind != RST_STREAM and bool(flags & END_STREAM)
        if outcome.known:
            self._awaited.discard(stream)


async def converse(
    path: Path, said: Conversation, passed_over: frozenset[str] = frozenset()
) -> tuple[Heard, asyncio.Transport, Client]:
    """Send a conversation and wait until each whole call has an outcome, or the connection ends.

    Args:
        path: The server's socket.
        said: The conversation.
        passed_over: Kinds of calls for which the server does nothing.

    Returns:
        What was heard, and the connection, to be closed.
    """
    whole = {
        stream
        for stream, asked in said.streams.items()
        if asked.whole and not asked.cancelled and asked.kind not in passed_over
    }
    loop = asyncio.get_running_loop()
    made = await loop.create_unix_connection(lambda: Client(whole), str(path))
    transport, client = made
    client.heard.last = max(said.streams)
    for portion in said.portions():
        if not transport.is_closing():
            transport.write(portion)
        # The other side reads this portion before the next is written.
        await asyncio.sleep(0)
    try:
        async with asyncio.timeout(_BRIEF if said.mutation else _PATIENCE):
            await client.done.wait()
    except TimeoutError:
        client.heard.silent = True
    return client.heard, transport, client
