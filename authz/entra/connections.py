"""Connections whose answers have an end: a deadline, and a number of bytes, for all that a server sends.

The bounds hold at the socket, so they hold for heads, interim answers, lines that announce chunks, trailers
and a proxy's answer too, however they drip. What is sent over the connections is `http`.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from authz.entra.resolver import addresses

LONGEST_IDLE: Final = 60.0
"""Seconds for which an unused connection is kept. Load balancers and NAT forget after four minutes or so."""
KEEPALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds of silence before the kernel asks whether the other side lives, between questions, and how many."""


@dataclass(slots=True)
class Allowance:
    """What one call may still take, and what came of it.

    Attributes:
        end: Monotonic second at which everything must have come.
        bytes_left: Bytes that may still come.
        trusted_since: Monotonic second; an unused connection that was used last before is not used again.
        reused: Whether the request went out on a connection that had been used before.
        received: Bytes of the answer that came.
        begins_by: Monotonic second at which the answer must have begun, on a connection that was used before.
        seconds_given: Seconds that there were in the beginning.
    """

    end: float
    bytes_left: int
    trusted_since: float
    reused: bool = False
    received: int = 0
    begins_by: float = inf
    seconds_given: float = field(init=False)

    def __post_init__(self) -> None:
        self.seconds_given = self.end - time.monotonic()

    def seconds(self) -> float:
        """Return the seconds left.

        Raises:
            TimeoutError: There are none.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time of the call is over")
        return left

    def seconds_for_reading(self) -> float:
        """Return the seconds for which to wait for more of the answer.

        Raises:
            TimeoutError: There are none.
        """
        left = self.seconds()
        if self.reused and not self.received:
            left = min(left, self.begins_by - time.monotonic())
        if left <= 0:
            raise TimeoutError("the connection may be dead")
        return left


_thread: Final = threading.local()
"""Calls block their thread, so the thread's one call is the one whose allowance counts."""


@contextmanager
def within(allowance: Allowance) -> Iterator[None]:
    """Hold every connection of this thread to the allowance, inside the block."""
    _thread.allowance = allowance
    try:
        yield
    finally:
        del _thread.allowance


def _allowance() -> Allowance:
    allowance: Allowance = _thread.allowance
    return allowance


class _Held:
    """A socket that gives no more, and waits no longer, than the call's allowance."""

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Receive into a buffer; `http.client` reads by this method alone.

        Raises:
            TimeoutError: The call's time is over.
            OSError: Its bytes are used up.
        """
        allowance = _allowance()
        most = min(nbytes or len(buffer), allowance.bytes_left)
        if most <= 0:
            raise OSError("the answer is too large")
        self.settimeout(allowance.seconds_for_reading())  # type: ignore[attr-defined]
        count: int = super().recv_into(buffer, most, flags)  # type: ignore[misc]
        allowance.bytes_left -= count
        allowance.received += count
        return count

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send everything; `http.client` writes by this method alone."""
        self.settimeout(_allowance().seconds())  # type: ignore[attr-defined]
        super().sendall(data, flags)  # type: ignore[misc]


class _PlainSocket(_Held, socket.socket):
    pass


class _TlsSocket(_Held, ssl.SSLSocket):
    pass


class _Ending:
    """What both kinds of connection do beyond urllib3's: `socket_options` are its own."""

    _used_at = 0.0
    _is_new = False

    @property
    def is_connected(self) -> bool:
        """Whether a kept connection may be used again."""
        fresh = max(time.monotonic() - LONGEST_IDLE, _allowance().trusted_since)
        return bool(super().is_connected) and self._used_at >= fresh  # type: ignore[misc]

    def connect(self) -> None:
        """Open the connection."""
        super().connect()  # type: ignore[misc]
        self._is_new = True

    def request(self, *arguments: Any, **more: Any) -> None:
        """Send a request."""
        _allowance().reused = not (self.sock is None or self._is_new)  # type: ignore[attr-defined]
        self._used_at = time.monotonic()
        super().request(*arguments, **more)  # type: ignore[misc]
        self._is_new = False

    def _new_conn(self) -> socket.socket:
        """Connect to one of the host's addresses, TLS apart, in the time for connecting altogether."""
        connection: Any = self
        end = min(time.monotonic() + connection.timeout, _allowance().end)
        try:
            found = addresses(connection.host.strip("[]"), connection.port, end=end)
        except OSError as error:
            raise NameResolutionError(connection.host, connection, error) from error  # type: ignore[arg-type]
        except UnicodeError as error:
            raise NewConnectionError(connection, "no name of a host") from error
        fault: OSError = TimeoutError("no time to connect")
        for position, (family, kind, protocol, _, address) in enumerate(found):
            left = end - time.monotonic()
            if left <= 0:
                break
            sock = _PlainSocket(family, kind, protocol)
            try:
                for option in connection.socket_options:
                    sock.setsockopt(*option)
                # An address that does not answer leaves time for the next.
                sock.settimeout(left if position == len(found) - 1 else left / 2)
                sock.connect(address)
                # What is left is for TLS.
                sock.settimeout(max(0.001, end - time.monotonic()))
            except OSError as error:
                sock.close()
                fault = error
            else:
                return sock
        if isinstance(fault, TimeoutError):
            raise ConnectTimeoutError(connection, "no connection in time") from fault
        raise NewConnectionError(connection, type(fault).__name__) from fault


class _Connection(_Ending, HTTPConnection):
    pass


class _TlsConnection(_Ending, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


POOLS: Final[Mapping[str, type[HTTPConnectionPool]]] = {"http": _Pool, "https": _TlsPool}
"""By scheme, what urllib3's pool managers are to use."""


def hold(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make the context's sockets keep to allowances, and return it."""
    context.sslsocket_class = _TlsSocket
    return context


def socket_options(*, dead_after: float) -> list[tuple[int, int, int]]:
    """Return options of TCP by which a connection that the network has forgotten is noticed.

    Args:
        dead_after: Seconds after which what was sent must have been confirmed. The other side's kernel
            confirms, so a server may think for as long as it likes.
    """
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    names = {**KEEPALIVE, "TCP_USER_TIMEOUT": int(dead_after * 1000)}
    for name, value in names.items():
        # Not every system has all of them.
        if (option := getattr(socket, name, None)) is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options
