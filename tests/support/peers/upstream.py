"""A tiny HTTP server for tests: answers each request with what it saw of it, as JSON."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from support.peers.quiet_server import QuietHandler, QuietServer


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, as it arrived.

    Attributes:
        method: HTTP method.
        path: Request target.
        headers: Name in lower case and value of each header line, in order.
        body: The body, as text.
        trailers: Name in lower case and value of each line after a body in chunks.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: str = ""
    trailers: tuple[tuple[str, str], ...] = ()

    def values(self, name: str) -> list[str]:
        """Return the values of every header line of that name."""
        return [value for key, value in self.headers if key == name]


class EchoUpstream:
    """A threaded HTTP/1.1 server on a free loopback port, as a context manager.

    Args:
        tls: With it, the server speaks TLS and nothing else.
        host: Loopback address to listen on.

    Attributes:
        received: The requests that arrived, in order.
        before_answer: Called once a request is on record and before it is answered; may wait.
        status: Status of every answer.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.received: list[Seen] = []
        self.before_answer: Callable[[Seen], None] = lambda _: None
        self.status = 200
        received, upstream = self.received, self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes

            def take(self) -> None:
                chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
                body = b"".join(self.chunks()) if chunked else self.rfile.read(self.length())
                seen = Seen(
                    method=self.command,
                    path=self.path,
                    headers=tuple((name.lower(), value) for name, value in self.headers.items()),
                    body=body.decode(errors="replace"),
                    trailers=tuple(self.lines()) if chunked else (),
                )
                received.append(seen)
                upstream.before_answer(seen)
                told = json.dumps(asdict(seen)).encode()
                self.answer(told, upstream.status, "application/json")

            def __getattr__(self, name: str) -> Callable[[], None]:
                """Take every method, those that no client should send included."""
                if name.startswith("do_"):
                    return self.take
                raise AttributeError(name)

            def length(self) -> int:
                return int(self.headers.get("content-length", 0))

            def chunks(self) -> Iterator[bytes]:
                while size := int(self.rfile.readline().partition(b";")[0], 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()

            def lines(self) -> Iterator[tuple[str, str]]:
                while line := self.rfile.readline().strip().decode("latin-1"):
                    name, _, value = line.partition(":")
                    yield name.lower(), value.strip()

        self._server = QuietServer((host, 0), Handler, tls)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._server.server_address[1]
        return port

    @property
    def address(self) -> str:
        """`host:port` it listens on."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
