"""Where the agent may go: the hosts of the egress routes, as Envoy matches them. No Envoy types here."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from authz.config import Config, compile_policy
from authz.config.values import HOST, Expected
from authz.core.exchange import Flow
from authz.core.policy import PeerSource
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
        pushed: Whether Envoy holds the route's token and asks for no decision.
        flow: The route's flow.
        repeated: Whether Envoy may repeat the route's decisions.
        drops_baggage: Whether `baggage` does not go out, since nobody takes a handle out of it.
    """

    route: str
    authority: str
    host: str
    port: int
    domains: tuple[str, ...]
    upstream: Upstream | None = None
    pushed: bool = False
    flow: Flow = Flow.NONE
    repeated: bool = False
    drops_baggage: bool = False

    @property
    def is_wildcard(self) -> bool:
        """Whether the host is known only when a request names it."""
        return self.authority.startswith("*")

    @property
    def cluster(self) -> str:
        """Name of the Envoy cluster that leads there.

        All wildcards share one, but those whose route has a token of its own in Envoy.
        """
        if not self.is_wildcard:
            return f"egress/{self.authority}"
        return f"pushed/{self.route}" if self.pushed else "egress"


def destinations(config: Config, settings: SidecarSettings) -> list[Destination]:
    """Return the hosts of every egress route, in the order of the configuration.

    Raises:
        RenderError: `upstreams` names a host that no route has, or a wildcard; or `egress_hosts` names
            no egress route, no host, or one host twice.
    """
    authorities = _authorities(config, settings)
    for host in settings.upstreams:
        if host.lower() not in authorities or host.startswith("*"):
            raise RenderError(f"upstreams: {host!r} is not a host of any egress route")
    upstreams = {host.lower(): upstream for host, upstream in settings.upstreams.items()}
    served = reason_not_to_push(config, settings) is None
    pushed = {name for name, route in config.egress.items() if served and route.pushed}
    repeated = _repeated(config)
    handles = compile_policy(config).gives_handles
    return [
        replace(
            _destination(route, authority, authorities, upstreams.get(authority)),
            pushed=route in pushed,
            flow=config.egress[route].flow,
            repeated=route in repeated and route not in pushed,
            drops_baggage=route in pushed and handles,
        )
        for authority, route in authorities.items()
    ]


def _authorities(config: Config, settings: SidecarSettings) -> dict[str, str]:
    """Return the route of each host, as it is written in lower case."""
    if not settings.egress_hosts:
        return {host.lower(): route for route, one in config.egress.items() for host in one.hosts}
    found: dict[str, str] = {}
    for route, hosts in settings.egress_hosts.items():
        if route not in config.egress:
            raise RenderError(f"egress_hosts: {route!r} is no egress route")
        for host in hosts:
            try:
                authority = HOST.read(host).lower()
            except Expected as error:
                raise RenderError(f"egress_hosts: found {host!r}: {error}") from None
            if found.setdefault(authority, route) != route:
                raise RenderError(f"egress_hosts: {host!r} belongs to {found[authority]!r} already")
    return found


def _repeated(config: Config) -> frozenset[str]:
    if config.cache.edge.max_ttl == 0:
        return frozenset()
    routes = compile_policy(config).egress.values()
    return frozenset(route.name for route in routes if route.may_repeat_at_edge)


def reason_not_to_push(config: Config, settings: SidecarSettings) -> str | None:
    """Return why the service would give this Envoy no token ahead; None if it would (law 2).

    The service takes the word of a Unix socket, or of a client certificate, and of nobody else.
    """
    if config.listen.workload_identity is not PeerSource.CONNECTION:
        return "listen.workload_identity is source_principal, which only a request can carry"
    where = settings.authz_address or config.listen.grpc
    if config.listen.socket_path is not None and where.startswith("unix:"):
        return None
    tls, ours = config.listen.tls, settings.authz_tls
    mutual = tls is not None and tls.client_ca_file is not None
    if mutual and ours is not None and ours.has_certificate:
        return None
    return "Envoy proves itself neither by a Unix socket nor by a client certificate"


def left_on_checks(config: Config, settings: SidecarSettings) -> list[str]:
    """Return the routes with hosts that could be pushed and are not, because of the connection."""
    if reason_not_to_push(config, settings) is None:
        return []
    rendered = set(_authorities(config, settings).values())
    return [name for name, route in config.egress.items() if name in rendered and route.pushed]


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
