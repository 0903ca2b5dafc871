"""What an ordinary agent talks to, as a program: Graph with its absolute links, a model, tools, telemetry.

Its argument is a folder. In there it writes the files of the authorities, what the emulated Entra says of
itself, and a line for each request with all of its headers (`records.jsonl`). It prints a user's token, and
serves until its end.
"""

import json
import signal
import ssl
import sys
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final
from urllib.parse import urlsplit

import trustme

from authz_dev.emulator import Emulator
from support.kubernetes.namespaces import ENTRA, OTHER
from support.peers.grpc_echo import GrpcEcho
from support.peers.quiet_server import QuietHandler, QuietServer
from support.peers.websocket_peer import WebSocketServer

GRAPH: Final = "graph.microsoft.com"
MODEL: Final = "model.example"
UNKNOWN: Final = "unknown.example"
TOOLS: Final = ("tools.apps.svc", 8000)
CHAT: Final = ("chat.apps.svc", 8001)
COLLECTOR: Final = ("collector.monitoring.svc", 4317)
TRACES: Final = ("opentelemetry.proto.collector.trace.v1.TraceService", "Export")
HOSTS: Final = {
    name: [OTHER[0]] for name in (GRAPH, MODEL, UNKNOWN, TOOLS[0], CHAT[0], COLLECTOR[0])
}
RECORDS: Final = "records.jsonl"
PUBLIC: Final = "public.pem"
"""The authority of the APIs, as a machine's own store has it."""

_LINKS: Final[dict[str, dict[str, Any]]] = {
    "/v1.0/users": {"value": ["ann"], "@odata.nextLink": f"https://{GRAPH}/v1.0/users?page=2"},
    "/v1.0/users?page=2": {"value": ["bob"]},
    "/v1.0/reports/1": {"status": "succeeded"},
    "/mcp": {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "orders"}]}},
}


class _Handler(QuietHandler):
    protocol_version = "HTTP/1.1"
    file: Path
    lock = Lock()
    asked = Event()

    @classmethod
    def record(cls, where: str, headers: list[tuple[str, str]], body: str = "") -> None:
        """Note a request."""
        line = json.dumps({"where": where, "headers": headers, "body": body})
        with cls.lock, cls.file.open("a") as file:
            file.write(f"{line}\n")

    def do_GET(self) -> None:  # noqa: N802
        self._take()

    def do_POST(self) -> None:  # noqa: N802
        self._take()

    def _take(self) -> None:
        length = int(self.headers.get("content-length", 0))
        host = self.headers.get("host", "")
        headers = [(name.lower(), value) for name, value in self.headers.items()]
        self.record(f"{host}{self.path}", headers, self.rfile.read(length).decode())
        path = urlsplit(self.path).path
        if path == "/events":
            self._stream()
        elif path == "/v1.0/reports":
            self.send_response(202)
            self.send_header("location", f"https://{GRAPH}/v1.0/reports/1")
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            if path == "/go-on":
                self.asked.set()
            told = _LINKS.get(self.path, {"host": host, "path": self.path})
            self.answer(json.dumps(told).encode(), content_type="application/json")

    def _stream(self) -> None:
        """Send an event, keep quiet until somebody asks for more, send another."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(b"data: first\n\n")
        self.wfile.flush()
        self.asked.wait()
        self.asked.clear()
        self.wfile.write(b"data: last\n\n")


def _main(folder: Path) -> None:
    _Handler.file = folder / RECORDS
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(GRAPH, MODEL, UNKNOWN).configure_cert(tls)
    here = OTHER[0]
    with ExitStack() as stack:
        entra = stack.enter_context(Emulator(host=ENTRA, port=443))
        stack.enter_context(QuietServer((here, 443), _Handler, tls).started())
        stack.enter_context(QuietServer((here, TOOLS[1]), _Handler).started())
        collector = GrpcEcho(
            host=here,
            port=COLLECTOR[1],
            method=TRACES,
            called=lambda metadata: _Handler.record("collector", metadata),
        )
        stack.enter_context(collector)
        chat = WebSocketServer(
            place=(here, CHAT[1]),
            called=lambda headers: _Handler.record("chat", list(headers.items())),
        )
        stack.enter_context(chat)
        entra.write(folder)
        public = authority.cert_pem.bytes()
        (folder / PUBLIC).write_bytes(public)
        (folder / "ca.pem").write_bytes((folder / "ca.pem").read_bytes() + public)
        sys.stdout.write(f"{entra.mint_user_token()}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
