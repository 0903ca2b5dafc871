"""What is outside of a pod in a mesh, as a program: Entra under its real name, Graph, and another host.

Graph and the other host answer with the request that they got. The argument is a folder for what the emulator
says of itself and for the authorities of both certificates. Then a user's token is printed, and everything is
served until the program is told to end.
"""

import json
import signal
import ssl
import sys
from pathlib import Path
from typing import Final

import trustme

from authz_dev.emulator import Emulator
from support.kubernetes.namespaces import OTHER
from support.peers.quiet_server import QuietHandler, QuietServer

LOGIN: Final = "login.microsoftonline.com"
GRAPH: Final = "graph.microsoft.com"
FURTHER: Final = "orders.example"
"""A further API, which the overlay does not know; it is where Graph is."""
GRAPH_PORT: Final = 8443
"""Where Graph listens. Port 443 of its address leads here: Entra has that port on every address."""


class _Echo(QuietHandler):
    # HTTP/1.0: each request has a connection of its own, so a change of addresses counts at once.

    def do_GET(self) -> None:  # noqa: N802
        lines = [(name.lower(), value) for name, value in self.headers.items()]
        self.answer(json.dumps({"path": self.path, "headers": lines}).encode())


def _main(folder: Path) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(GRAPH, FURTHER).configure_cert(tls)
    QuietServer((OTHER[0], GRAPH_PORT), _Echo, tls).started()
    QuietServer((OTHER[0], 80), _Echo).started()
    # On every address of the namespace: only so does its first name become the authority's.
    with Emulator(host="0.0.0.0", port=443, names=(LOGIN,)) as entra:  # noqa: S104
        entra.write(folder)
        with (folder / "ca.pem").open("ab") as file:
            file.write(authority.cert_pem.bytes())
        sys.stdout.write(f"{entra.mint_user_token()}\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
