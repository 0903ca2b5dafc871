"""Requests of HTTP/1 that no library would send, byte by byte."""

import socket
from typing import Final

_PATIENCE: Final = 10.0


def exchange(port: int, request: bytes) -> bytes:
    """Send bytes as they are and return what comes back until the other side closes.

    Args:
        port: Of 127.0.0.1.
        request: Asks for an end of the connection, or has one by its kind.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer
