"""What is outside of a pod, as a program: Entra with Graph, and a host that no route names.

Its argument is a folder. In there it writes the files of both authorities and what the emulator says of
itself; then it prints a user's token, and serves until it is told to end.
"""

import signal
import socket
import ssl
import sys
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import trustme

from authz.emulator import Emulator
from support.namespaces import ENTRA, OTHER


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        said = "tls" if isinstance(self.connection, ssl.SSLSocket) else "plain"
        body = f"other {said} {self.client_address[0]}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: requests hold tokens."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that ends a handshake is what some tests are about."""


class _Server6(_Server):
    address_family = socket.AF_INET6


def _serve(address: str, port: int, tls: ssl.SSLContext | None) -> ThreadingHTTPServer:
    server = (_Server6 if ":" in address else _Server)((address, port), _Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def _main(folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "other.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(tls)
    with ExitStack() as stack:
        entra = stack.enter_context(Emulator(host=ENTRA, port=443, names=("graph.microsoft.com",)))
        for address in OTHER:
            stack.enter_context(_serve(address, 80, None))
            stack.enter_context(_serve(address, 443, tls))
        entra.write(folder)
        sys.stdout.write(f"{entra.mint_user_token()}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
