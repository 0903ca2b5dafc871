"""`EgressHost`: one host of an egress route as the configuration writes it, and what is meant by it.

Which route a request belongs to is decided by `authz.core.policy`, with authorities alone.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Self

HTTP: Final = "http://"
HTTPS: Final = "https://"
_DEFAULT_PORT: Final = {HTTP: ":80", HTTPS: ":443"}


@dataclass(frozen=True, slots=True)
class EgressHost:
    """One host of an egress route.

    Attributes:
        authority: What a request calls it: `host`, `host:port`, `*.suffix` or `*`, in lower case.
        plain: Whether it is spoken to without TLS.
    """

    authority: str
    plain: bool = False

    @classmethod
    def of(cls, written: str) -> Self:
        """Read a host that the configuration's grammar accepts.

        The default port of a scheme that is written is left out, as clients leave it out of `Host` (RFC 9110
        section 4.2.3).
        """
        host = written.lower()
        for scheme, port in _DEFAULT_PORT.items():
            if host.startswith(scheme):
                return cls(host.removeprefix(scheme).removesuffix(port), scheme == HTTP)
        return cls(host)

    @classmethod
    def of_url(cls, url: str) -> Self:
        """Read the host of a URL."""
        scheme, _, rest = url.partition("://")
        return cls.of(f"{scheme.lower()}://{re.split('[/?#]', rest)[0]}")

    def __str__(self) -> str:
        return f"{HTTP if self.plain else ''}{self.authority}"

    @property
    def is_wildcard(self) -> bool:
        """Whether the host is known only when a request names it."""
        return self.authority.startswith("*")

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there stays on this machine."""
        return is_loopback(self.authority)


def is_loopback(authority: str) -> bool:
    """Whether an authority, with or without port, is of this machine."""
    if authority.startswith("["):
        host = authority[1:].partition("]")[0]
    else:
        host = authority.partition(":")[0]
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
