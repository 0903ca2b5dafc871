"""Says in words why a connection failed, from the exception of any HTTP library. Quotes no URL.

Libraries wrap what the system and OpenSSL say, and put whole URLs into their own messages.
"""

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Final

_CERTIFICATE: Final = {
    9: "its certificate is not valid yet: compare the clocks",
    10: "its certificate has expired: compare the clocks",
    62: "its certificate is for another name",
    64: "its certificate is for another address",
}
"""Words by OpenSSL's X509_V_ERR number, where trust is not the question."""

_SYSTEM: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ENETUNREACH: "no route to it",
    errno.EHOSTUNREACH: "no route to it",
    errno.EACCES: "the system or a network policy forbids it",
    errno.EPERM: "the system or a network policy forbids it",
    errno.EADDRNOTAVAIL: "the system has no local port left for it",
    errno.EMFILE: "the process has no descriptor left",
}
_CONNECT_TIMEOUTS: Final = {"ConnectTimeout", "ConnectTimeoutError"}
"""Class names of httpx, requests and urllib3: no library's exceptions are imported here."""
_NO_DNS: Final = "DNS does not answer"
_MOST_WRAPPED: Final = 10


def words(error: BaseException, *, ca_file: str) -> str:
    """Return why there is no connection; the exception's class name where nothing better is known.

    Args:
        error: What a library raised.
        ca_file: The configuration key that names the authorities trusted for this connection.
    """
    wrapped = list(_wrapped(error))
    names = {type(one).__name__ for one in wrapped}
    through = "the HTTP proxy: " if "ProxyError" in names else ""
    if names & _CONNECT_TIMEOUTS:
        return f"{through}no connection in time"
    if "NameResolutionError" in names and not any(
        isinstance(one, socket.gaierror) for one in wrapped
    ):
        return f"{through}{_NO_DNS}"
    for one in reversed(wrapped):
        if (found := _of(one, ca_file)) is not None:
            return through + found
    return through + type(wrapped[0]).__name__


def _of(error: BaseException, ca_file: str) -> str | None:
    match error:
        case ssl.SSLCertVerificationError():
            if error.verify_code in _CERTIFICATE:
                return _CERTIFICATE[error.verify_code]
            return f"its certificate is not trusted: name its authority in {ca_file}"
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return "the connection was cut during the TLS handshake"
        case ssl.SSLError(reason=str() as reason):
            return f"no TLS with it ({reason})"
        case socket.gaierror(errno=socket.EAI_AGAIN):
            return _NO_DNS
        case socket.gaierror():
            return "DNS does not know its name"
        case TimeoutError():
            return "no answer in time"
        case ConnectionResetError() | BrokenPipeError():
            return "the connection was cut"
        case OSError(errno=int() as number):
            return _SYSTEM.get(number)
    return None


def _wrapped(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and what it was raised from, outermost first."""
    current: BaseException | None = error
    for _ in range(_MOST_WRAPPED):
        if current is None:
            return
        yield current
        within = (one for one in current.args if isinstance(one, BaseException))
        current = current.__cause__ or current.__context__ or next(within, None)
