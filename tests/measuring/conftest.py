"""What tests of the bench share. Where its program for load is missing, what needs it is skipped."""

import shutil
import threading
from collections.abc import Iterator

import pytest

from support.peers.quiet_server import QuietHandler, QuietServer


@pytest.fixture
def h2load() -> str:
    """The load generator."""
    found = shutil.which("h2load")
    if found is None:
        pytest.skip("no h2load: install the system's package nghttp2-client")
    return found


class _Handler(QuietHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802
        self.answer(b"x" * 100, 403 if self.path == "/denied" else 200)


class _Server(QuietServer):
    # As many connections as the bench opens at once.
    request_queue_size = 64


@pytest.fixture
def web_server() -> Iterator[str]:
    """A web server that refuses one path."""
    with _Server(("127.0.0.1", 0), _Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()
