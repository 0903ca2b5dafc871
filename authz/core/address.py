"""`SocketAddress`: where somebody listens, as the configuration writes it: `unix:PATH` or `host:port`."""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

UNIX: Final = "unix:"
LARGEST_PORT: Final = 65535
EVERY_ADDRESS: Final = "::"
"""Of IPv6, and of IPv4 too where something listens there."""
_MOST_DIGITS: Final = 10
LONGEST_PATH: Final = 107
"""Bytes of a socket's path (Linux `sun_path`, less its end)."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket.

    Attributes:
        path: Where it is in the file system.
    """

    path: str

    def __str__(self) -> str:
        return f"{UNIX}{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A port of TCP.

    Attributes:
        host: A name or an IP address; one of IPv6 without its brackets.
        port: From 0, which lets the system choose, to `LARGEST_PORT`.
    """

    host: str
    port: int

    @property
    def is_ip(self) -> bool:
        """Whether `host` is an IP address and not a name."""
        return is_ip(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


SocketAddress = UnixAddress | TcpAddress


def parse_address(text: str) -> SocketAddress:
    """Read `unix:PATH` or `host:port`.

    Raises:
        ValueError: It is something else.
    """
    if text.startswith(UNIX):
        return UnixAddress(text.removeprefix(UNIX))
    return parse_tcp_address(text)


def parse_tcp_address(text: str) -> TcpAddress:
    """Read `host:port`; an IPv6 address stands in brackets.

    Raises:
        ValueError: It is something else.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    is_number = port.isascii() and port.isdigit()
    if not (colon and bare and is_number and bracketed == (":" in bare)):
        raise ValueError(f"found {text!r}: expected host:port")
    if len(port) > _MOST_DIGITS or int(port) > LARGEST_PORT:
        raise ValueError(f"found {text!r}: expected host:port, the port at most {LARGEST_PORT}")
    return TcpAddress(bare, int(port))


def is_ip(host: str) -> bool:
    """Whether a host, without brackets, is an IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
