"""Where the agent may go: the hosts of the egress routes, as Envoy matches them. No Envoy types here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from authz.config import Config
from authz.core.request import normalize_host
from authz.envoy.sidecar import RenderError, SidecarSettings, Upstream

HTTPS_PORT: Final = 443
_HTTP_PORT: Final = 80


@dataclass(frozen=True, slots=True)
class Destination:
    """One host of an egress route.

    Attributes:
        route: Name of the egress route.
        authority: As the configuration writes it: `host`, `host:port`, `*.suffix` or `*`.
        host: Without port, and without the brackets of an IPv6 address.
        port: Port to connect to. A wildcard goes to the port that the request names.
        domains: Authorities of requests that are meant, in Envoy's notation.
        upstream: Where it really is, when not where its name says.
    """

    route: str
    authority: str
    host: str
    port: int
    domains: tuple[str, ...]
    upstream: Upstream | None = None

    @property
    def is_wildcard(self) -> bool:
        """Whether the host is known only when a request names it."""
        return self.authority.startswith("*")

    @property
    def cluster(self) -> str:
        """Name of the Envoy cluster that leads there; all wildcards share one."""
        return "egress" if self.is_wildcard else f"egress/{self.authority}"


def destinations(config: Config, settings: SidecarSettings) -> list[Destination]:
    """Return the hosts of every egress route, in the order of the configuration.

    Raises:
        RenderError: `upstreams` names a host that no route has, or a wildcard.
    """
    authorities = {
        host.lower(): route for route, egress in config.egress.items() for host in egress.hosts
    }
    for host in settings.upstreams:
        if host.lower() not in authorities or host.startswith("*"):
            raise RenderError(f"upstreams: {host!r} is not a host of any egress route")
    upstreams = {host.lower(): upstream for host, upstream in settings.upstreams.items()}
    return [
        _destination(route, authority, authorities, upstreams.get(authority))
        for authority, route in authorities.items()
    ]


def _destination(
    route: str, authority: str, claimed: Mapping[str, str], upstream: Upstream | None
) -> Destination:
    _, bare = normalize_host(authority)
    port = authority.removeprefix(bare).removeprefix(":")
    domains = (authority, *(name for name in _implied(authority, bare) if name not in claimed))
    return Destination(
        route=route,
        authority=authority,
        host=bare.strip("[]"),
        port=int(port) if port else HTTPS_PORT,
        domains=domains,
        upstream=upstream,
    )


def _implied(authority: str, bare: str) -> Iterator[str]:
    """Return how else a request may write a host that is configured without port."""
    if authority != bare or authority == "*":
        return
    yield f"{bare}:{HTTPS_PORT}"
    if not bare.startswith("*"):
        # Whoever writes the port of plain HTTP means the proxy's side of the call; ours is TLS.
        yield f"{bare}:{_HTTP_PORT}"
