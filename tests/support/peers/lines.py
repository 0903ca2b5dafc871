"""Requests whose header lines are sent as they are: repeated, in any case, and not in ASCII either."""

import http.client
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

_PATIENCE: Final = 90.0


class Caller:
    """A client with one connection, which it opens again where the server has closed it. A context manager.

    Args:
        port: Where the server listens, on loopback.
    """

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def get(self, path: str, lines: Iterable[tuple[str, bytes]]) -> tuple[int, bytes]:
        """Return status and body of the answer to one request."""
        self._connection.putrequest("GET", path)
        for name, value in lines:
            self._connection.putheader(name, value)
        self._connection.endheaders()
        answer = self._connection.getresponse()
        return answer.status, answer.read()
