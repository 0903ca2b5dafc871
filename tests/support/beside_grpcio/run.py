"""`Servers`, ours and grpcio's with one method, and `Run`: many conversations with both."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import grpc

from authz.doors.envoy.http2.calls import LARGEST_HEADERS, LARGEST_MESSAGE
from authz.doors.envoy.http2.server import CheckServer
from support.beside_grpcio.comparison import PASSED_OVER, Difference, Way, differences
from support.beside_grpcio.conversations import conversation
from support.beside_grpcio.exchange import Heard, converse
from support.beside_grpcio.speaker import Conversation
from support.peers.check_door_peer import CHECK

_PATIENCE: Final = 10.0
_PAIRS: Final = 4
"""Pairs of servers of a run. grpcio's is idle for much of a conversation."""
_OPTIONS: Final = (
    # What ours bounds, grpcio's bounds likewise.
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_metadata_size", LARGEST_HEADERS),
    ("grpc.absolute_max_metadata_size", LARGEST_HEADERS),
    # Pings come at any time here.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)


class Echo:
    """Answers with what it is asked; later, if the message says so."""

    def answer(self, message: bytes, timeout: float | None) -> Any:
        """Answer for our server."""
        return self._later(message) if message.startswith(b"later") else message

    async def _later(self, message: bytes) -> bytes:
        for _ in range(3):
            await asyncio.sleep(0)
        return message

    async def answer_grpc(self, message: bytes, _: Any) -> bytes:
        """Answer for grpcio's."""
        return await self._later(message) if message.startswith(b"later") else message


@dataclass
class Servers:
    """Both servers.

    Attributes:
        ours: The Check door.
        our_path: Its socket.
        their_path: grpcio's socket.
        faults: Exceptions that nobody caught.
    """

    ours: CheckServer
    our_path: Path
    their_path: Path
    faults: list[str] = field(default_factory=list)

    async def converse(self, said: Conversation) -> tuple[Heard, Heard, list[Difference]]:
        """Have one conversation with both; return what each did, and the differences."""
        (ours, transport, client), (theirs, other, other_client) = await asyncio.gather(
            converse(self.our_path, said), converse(self.their_path, said, PASSED_OVER)
        )
        found = differences(said, ours, theirs)
        found += [Difference(Way.DEFECT, said.mutation, text) for text in self._held(said, ours)]
        sessions = [each._session for each in self.ours._connections]
        transport.close()
        other.close()
        async with asyncio.timeout(_PATIENCE):
            await client.lost.wait()
            await other_client.lost.wait()
            await self.ours._empty.wait()
        left = [f"left behind: {session._streams}" for session in sessions if session._streams]
        found += [Difference(Way.DEFECT, said.mutation, text) for text in left + self.faults]
        self.faults.clear()
        return ours, theirs, found

    def _held(self, said: Conversation, ours: Heard) -> list[str]:
        """Return what is held for calls that are no longer under way."""
        open_ones = {
            stream
            for stream, asked in said.streams.items()
            if not asked.whole and not asked.cancelled
        }
        held = []
        if not ours.ended and not ours.silent and not said.mutation:
            for connection in self.ours._connections:
                session = connection._session
                if more := session._streams.keys() - open_ones:
                    held.append(f"streams {sorted(more)} are held")
                if session._held != sum(stream.received for stream in session._streams.values()):
                    held.append(f"{session._held} bytes are held")
        return held


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Servers]:
    """Run both servers."""
    echo = Echo()
    servers = Servers(
        CheckServer(folder / "ours.sock", CHECK, echo, max_age=1e6),
        folder / "ours.sock",
        folder / "grpcio.sock",
    )
    theirs = grpc.aio.server(options=_OPTIONS)
    handler: Any = grpc.unary_unary_rpc_method_handler(echo.answer_grpc)
    _, service, method = CHECK.split("/")
    theirs.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {method: handler})]
    )
    theirs.add_insecure_port(f"unix:{servers.their_path}")
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: servers.faults.append(str(context)))
    await servers.ours.start()
    await theirs.start()
    try:
        yield servers
    finally:
        await servers.ours.stop()
        await theirs.stop(None)
        loop.set_exception_handler(before)


@dataclass
class Report:
    """What a run found.

    Attributes:
        seed: Of its first conversation; each next one's is one more.
        conversations: How many.
        frames: How many were sent to each server.
        seconds: How long it took.
        steps: Frames by what they do.
        mutations: Conversations by the rule that was broken; empty for none.
        outcomes: Outcomes of calls and connections at our server and at grpcio's, by how many.
        intended: Differences that are intended, by how many.
        found: Differences that are not, with the seeds of their conversations.
    """

    seed: int
    conversations: int = 0
    frames: int = 0
    seconds: float = 0.0
    steps: Counter[str] = field(default_factory=Counter)
    mutations: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    intended: Counter[tuple[str, Way]] = field(default_factory=Counter)
    found: list[tuple[int, Difference]] = field(default_factory=list)

    def add(self, said: Conversation, ours: Heard, theirs: Heard) -> None:
        """Count a conversation."""
        self.conversations += 1
        self.frames += len(said.steps)
        self.steps.update(said.steps)
        self.mutations[said.mutation] += 1
        self.outcomes[_connection(ours), _connection(theirs)] += 1
        for stream, asked in said.streams.items():
            if asked.whole and not asked.cancelled and not ours.ended and not theirs.ended:
                self.outcomes[_call(ours, stream), _call(theirs, stream)] += 1


def _connection(heard: Heard) -> str:
    return "connection ended" if heard.ended else "connection goes on"


def _call(heard: Heard, stream: int) -> str:
    outcome = heard.of(stream)
    return "answered" if outcome.answer is not None else "refused" if outcome.known else "silent"


async def run(
    folder: Path, *, seed: int, frames: int, progress: Callable[[Report], None] = lambda _: None
) -> Report:
    """Have conversations until so many frames were sent to each server.

    Args:
        folder: For the sockets.
        seed: Of the first conversation.
        frames: How many.
        progress: Is told of what was found so far, after each conversation.
    """
    report, began, seeds = Report(seed), time.monotonic(), count(seed)

    async def converse(servers: Servers) -> None:
        while report.frames < frames:
            number = next(seeds)
            said = conversation(number)
            ours, theirs, found = await servers.converse(said)
            report.add(said, ours, theirs)
            for difference in found:
                if difference.reason is None:
                    report.found.append((number, difference))
                else:
                    report.intended[difference.about, difference.way] += 1
            report.seconds = time.monotonic() - began
            progress(report)

    async with AsyncExitStack() as stack:
        pairs = []
        for number in range(_PAIRS):
            place = folder / str(number)
            place.mkdir()
            pairs.append(await stack.enter_async_context(serving(place)))
        async with asyncio.TaskGroup() as group:
            for pair in pairs:
                group.create_task(converse(pair))
        late = [Difference(Way.DEFECT, "", text) for pair in pairs for text in pair.faults]
        report.found += [(next(seeds), each) for each in late]
    return report
