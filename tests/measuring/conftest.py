"""What tests of the bench share. Where its program for load is missing, what needs it is skipped."""

import http.server
import shutil
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def h2load() -> str:
    """The load generator."""
    found = shutil.which("h2load")
    if found is None:
        pytest.skip("no h2load: install the system's package nghttp2-client")
    return found


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        content = b"x" * 100
        self.send_response(403 if self.path == "/denied" else 200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    # As many connections as the bench opens at once.
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """Say nothing: the load ends in the middle of a request."""


@pytest.fixture
def web_server() -> Iterator[str]:
    """A web server that refuses one path."""
    with _Server(("127.0.0.1", 0), _Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()
