"""An API stand-in: streams events, takes and gives large bodies, and speaks enough of a chat API for its SDK.

The last event of a stream is sent once the client has said, by another request, that it has the first one: so
an intermediary that holds events back is told apart from a slow one.
"""

import hashlib
import json
import ssl
import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from support.peers.quiet_server import QuietHandler, QuietServer
from support.programs.stack import claims

LATE: Final = "late"
"""Sent in place of the last event, to a client that did not have the first one in time."""
_PATIENCE: Final = 20.0
_CHUNK: Final = 64 * 1024
_CHAT: Final = "chat"


class ModelsApi:
    """A threaded HTTP/1.1 server with TLS on a free loopback port, as a context manager.

    Args:
        tls: Its certificate.
        body: File that large answers are made of.

    Attributes:
        callers: Client and kind of each token that arrived; None for a request without one.
        sent: Bytes of large answers so far, by the name that the client gave.
        seen: Set when a client has the first event, by the same name.
        body: The file.
        released: Until it is set, nobody reads what comes to `/v1/held`.
    """

    def __init__(self, tls: ssl.SSLContext, body: Path) -> None:
        self.callers: set[tuple[str, str] | None] = set()
        self.sent: dict[str, int] = defaultdict(int)
        self.body = body
        self.released = threading.Event()
        self.seen: dict[str, threading.Event] = defaultdict(threading.Event)
        self._server = _Server(self, tls)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    @property
    def address(self) -> str:
        """`host:port` it listens on."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def forget_handshakes(self) -> None:
        """Let the next client of the chat API prove for itself that it has the first event."""
        self.seen.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(QuietHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def _api(self) -> ModelsApi:
        assert isinstance(self.server, _Server)
        return self.server.api

    def take(self) -> None:
        self._api.callers.add(_caller(self.headers.get("authorization")))
        _, _, kind, *rest = [*self.path.split("/"), ""]
        name = rest[0] if rest else ""
        match kind:
            case "stream":
                self._stream(["first"], name, ["last"])
            case "seen":
                self._api.seen[name].set()
                self._json({})
            case "digest":
                self._json({"digest": self._digest()})
            case "bytes":
                self._give(name)
            case "held":
                self._api.released.wait()
            case "sent":
                self._json({"sent": self._api.sent[name]})
            case "models":
                self._api.seen[_CHAT].set()
                self._json({"object": "list", "data": []})
            case "chat":
                self._complete(json.loads(b"".join(self.body())))
            case _:
                self._json({}, 404)

    do_GET = do_POST = do_PUT = take  # noqa: N815

    def _complete(self, asked: dict[str, Any]) -> None:
        words = [("first", None), (" last", "stop")]
        if asked.get("stream"):
            first, last = (
                json.dumps(_completion("chat.completion.chunk", "delta", *word)) for word in words
            )
            self._stream([first], _CHAT, [last, "[DONE]"])
        else:
            self._json(_completion("chat.completion", "message", "first last", "stop"))

    def _stream(self, before: list[str], name: str, after: list[str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._events(before)
        self._events(after if self._api.seen[name].wait(_PATIENCE) else [LATE])
        self.wfile.write(b"0\r\n\r\n")

    def _events(self, events: list[str]) -> None:
        for event in events:
            data = f"data: {event}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _give(self, name: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        self.send_header("content-length", str(self._api.body.stat().st_size))
        self.end_headers()
        with self._api.body.open("rb") as file:
            while chunk := file.read(_CHUNK):
                self.wfile.write(chunk)
                self._api.sent[name] += len(chunk)

    def _digest(self) -> str:
        found = hashlib.sha256()
        for chunk in self.body():
            found.update(chunk)
        return found.hexdigest()

    def _json(self, content: dict[str, Any], status: int = 200) -> None:
        self.answer(json.dumps(content).encode(), status, "application/json")


class _Server(QuietServer):
    def __init__(self, api: ModelsApi, tls: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler, tls)
        self.api = api


def _caller(authorization: str | None) -> tuple[str, str] | None:
    if authorization is None or not authorization.startswith("Bearer ey"):
        return None
    token = claims(authorization.removeprefix("Bearer "))
    return token["appid"], token["idtyp"]


def _completion(kind: str, part: str, text: str, finish: str | None) -> dict[str, Any]:
    choice = {"index": 0, part: {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"id": "c", "object": kind, "created": 0, "model": "stand-in", "choices": [choice]}
