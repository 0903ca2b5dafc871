"""`Connections`: what the clients of one HTTP server hold of it, in number and in bytes, and who yields.

Somebody who waits for nothing but the server is left alone. What a connection is doing, and how it ends, is
`authz.doors.http_protocol`.
"""

from collections.abc import Callable
from typing import Protocol


class Held(Protocol):
    """One connection."""

    held: int
    """Bytes of its requests and answers that are in memory."""

    def yield_place(self) -> None:
        """End: its place is needed."""

    def yield_memory(self) -> None:
        """End, with an answer: its bytes are needed. `held` is nought afterwards."""


class Connections:
    """The connections of a server, those that wait for their client apart.

    Args:
        most: How many there may be.
        most_bytes: How much they may hold together.
        timer: Monotonic seconds.
    """

    def __init__(self, *, most: int, most_bytes: int, timer: Callable[[], float]) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._timer = timer
        self._all: set[Held] = set()
        self._waiting: dict[Held, float] = {}
        """Since when each waits for its client; the longest first."""
        self._held = 0

    def add(self, connection: Held) -> bool:
        """Take in a connection; False if there is no place, because nobody waits for a client.

        The one that has waited for its client longest yields: strangers who are silent keep nobody out.
        """
        if len(self._all) >= self._most:
            longest = next(iter(self._waiting), None)
            if longest is None:
                return False
            self.remove(longest)
            longest.yield_place()
        self._all.add(connection)
        return True

    def remove(self, connection: Held) -> None:
        """Forget a connection."""
        self._all.discard(connection)
        self._waiting.pop(connection, None)
        self.release(connection)

    def waits(self, connection: Held) -> None:
        """Note that a connection waits for its client from now on."""
        if connection in self._all:
            self._waiting.pop(connection, None)
            self._waiting[connection] = self._timer()

    def works(self, connection: Held) -> None:
        """Note that the client waits for us."""
        self._waiting.pop(connection, None)

    def hold(self, connection: Held, size: int) -> None:
        """Note that a connection holds more bytes.

        While all hold too much, one that waits for its client yields: the one that has taken most, in bytes
        times seconds. If there is none, the one that holds more now does.
        """
        connection.held += size
        self._held += size
        while self._held > self._most_bytes and self._all:
            now = self._timer()
            victim = max(
                (each for each in self._waiting if each.held),
                key=lambda each: each.held * (now - self._waiting[each] + 1.0),
                default=connection,
            )
            self._waiting.pop(victim, None)
            victim.yield_memory()
            self.release(victim)
            if victim is connection:
                return

    def release(self, connection: Held) -> None:
        """Note that a connection holds nothing any more."""
        self._held -= connection.held
        connection.held = 0
