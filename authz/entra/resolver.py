"""Name resolution with a deadline: `addresses`.

The system's resolver has limits of its own (resolv.conf: often 10 seconds and more), and cannot be
interrupted. So it runs in a thread of its own, one for each name at a time, and callers stop waiting in time.
"""

import errno
import socket
import threading
import time
from concurrent.futures import Future
from typing import Any, Final

Found = list[tuple[Any, ...]]
"""What `socket.getaddrinfo` returns."""

_lock: Final = threading.Lock()
_running: Final[dict[tuple[str, int], Future[Found]]] = {}


def addresses(host: str, port: int, *, end: float) -> Found:
    """Return the addresses of a host.

    Args:
        host: A name or an address.
        port: A TCP port.
        end: Monotonic second until which to wait.

    Raises:
        OSError: There are none, or they were not there in time (TimeoutError).
        UnicodeError: It is no name of a host.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    key = host, port
    with _lock:
        found = _running.get(key)
        if found is None:
            found = Future()
            thread = threading.Thread(
                target=_resolve, args=(key, found), name="resolver", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, "no thread can be started") from error
            # It cannot end before this: it takes the lock at its end.
            _running[key] = found
    return found.result(max(0.0, end - time.monotonic()))


def _resolve(key: tuple[str, int], found: Future[Found]) -> None:
    host, port = key
    try:
        result = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is wanted
        outcome: Found | BaseException = error
    else:
        outcome = result
    with _lock:
        del _running[key]
    if isinstance(outcome, BaseException):
        found.set_exception(outcome)
    else:
        found.set_result(outcome)
