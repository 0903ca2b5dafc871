"""What is outside of a pod, as a program: Entra with Graph, and a host that no route names.

Its argument is a folder. In there it writes the files of both authorities and what the emulator says of
itself; then it prints a user's token, and serves until it is told to end.
"""

import signal
import ssl
import sys
from contextlib import ExitStack
from pathlib import Path

import trustme

from authz_dev.emulator import Emulator
from support.kubernetes.namespaces import ENTRA, OTHER
from support.peers.quiet_server import QuietHandler, QuietServer


class _Handler(QuietHandler):
    def do_GET(self) -> None:  # noqa: N802
        said = "tls" if isinstance(self.connection, ssl.SSLSocket) else "plain"
        token = " with a token" if "authorization" in self.headers else ""
        self.answer(f"other {said} {self.client_address[0]}{token}".encode())


def _main(folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "other.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.example").configure_cert(tls)
    with ExitStack() as stack:
        entra = stack.enter_context(Emulator(host=ENTRA, port=443, names=("graph.microsoft.com",)))
        for address in OTHER:
            stack.enter_context(QuietServer((address, 80), _Handler).started())
            stack.enter_context(QuietServer((address, 443), _Handler, tls).started())
        entra.write(folder)
        sys.stdout.write(f"{entra.mint_user_token()}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
