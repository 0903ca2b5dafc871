"""`EgressHost`: one host of an egress route as the configuration writes it, and what is meant by it.

The one spelling that each host has is in `host_spelling`. Which route a request belongs to is decided by
`authz.core.policy`, with authorities alone.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from re import split
from typing import Final, Self

from authz.core.request import normalize_host

HTTP: Final = "http://"
HTTPS: Final = "https://"
_DEFAULT_PORT: Final = {HTTP: ":80", HTTPS: ":443"}
_LOOPBACK_NAMES: Final = frozenset(
    {
        "localhost",
        "localhost.localdomain",
        "localhost4",
        "localhost4.localdomain4",
        "localhost6",
        "localhost6.localdomain6",
        "ip6-localhost",
        "ip6-loopback",
    }
)
"""Names that hosts files have for loopback; those of pods have the last two as Kubernetes writes them."""


@dataclass(frozen=True, slots=True)
class EgressHost:
    """One host of an egress route.

    Attributes:
        authority: What a request calls it: `host`, `host:port`, `*.suffix` or `*`, in lower case. Without the
            default port of its scheme, which clients leave out of `Host` (RFC 9110 section 4.2.3).
        plain: Whether it is spoken to without TLS.
    """

    authority: str
    plain: bool = False

    @classmethod
    def of(cls, written: str) -> Self:
        """Read a host that the configuration's grammar accepts. Without a scheme it has TLS."""
        host = written.lower()
        scheme = HTTP if host.startswith(HTTP) else HTTPS
        return cls(
            host.removeprefix(scheme).removesuffix(_DEFAULT_PORT[scheme]), plain=scheme == HTTP
        )

    @classmethod
    def of_url(cls, url: str) -> Self:
        """Read the host of a URL."""
        scheme, _, rest = url.partition("://")
        return cls.of(f"{scheme.lower()}://{split('[/?#]', rest)[0]}")

    def __str__(self) -> str:
        return f"{HTTP if self.plain else ''}{self.authority}"

    @property
    def names(self) -> tuple[str, ...]:
        """The authorities of requests that mean this host, its own first. No two hosts may share one."""
        if self.authority == "*":
            return (self.authority,)
        _, bare = normalize_host(self.authority)
        if self.authority == bare:
            if self.plain:
                return (bare, f"{bare}:80")
            # Requests with the port of plain HTTP mean the agent's side of the call; Envoy's has TLS.
            return (bare, f"{bare}:443", *(() if self.is_wildcard else (f"{bare}:80",)))
        # The agent speaks plain HTTP to Envoy, so its client leaves this port out.
        return (self.authority, bare) if self.is_tls_on_port_80 else (self.authority,)

    @property
    def is_wildcard(self) -> bool:
        """Whether the host is known only when a request names it."""
        return self.authority.startswith("*")

    @property
    def is_tls_on_port_80(self) -> bool:
        """Whether TLS is spoken on the port of plain HTTP, which hardly any host does."""
        return not self.plain and self.authority.endswith(":80")

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent there stays on this machine."""
        return is_loopback(self.authority)

    @property
    def is_in_pod(self) -> bool:
        """Whether a connection to it leads to loopback, where every container of a pod may listen.

        That includes the addresses `0.0.0.0` and `::`, which Linux connects to loopback.
        """
        address = _address(self.authority)
        return self.is_loopback or (address is not None and address.is_unspecified)


def is_loopback(authority: str) -> bool:
    """Whether an authority, with or without port, is of this machine (RFC 6761 section 6.3 for names)."""
    address = _address(authority)
    if address is not None:
        return address.is_loopback
    _, host = normalize_host(authority)
    return host in _LOOPBACK_NAMES or host.endswith(".localhost")


def _address(authority: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address of an authority; the IPv4 address where it is mapped into IPv6."""
    _, host = normalize_host(authority)
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
