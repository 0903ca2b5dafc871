"""Where the agent may go: the hosts of the egress routes, as Envoy matches them. No Envoy types here."""

from dataclasses import dataclass, replace
from typing import Final

from authz.config import Config
from authz.config.consistency.route_checks import refused_host
from authz.config.consistency.tunnels import tunnelled
from authz.config.sections.hosts import EgressHost
from authz.config.sections.rules import Mcp
from authz.config.sections.values import HOST, Expected
from authz.core.address import UnixAddress
from authz.core.exchange import Flow
from authz.core.policy import Policy
from authz.core.request import normalize_host
from authz.core.route import PeerSource
from authz.envoy_config.settings import RenderError, SidecarSettings, Upstream, socket_address

HTTPS_PORT: Final = 443
_HTTP_PORT: Final = 80


@dataclass(frozen=True, slots=True)
class Destination:
    """One host of an egress route.

    Attributes:
        route: Name of the egress route.
        authority: As requests name it: `host`, `host:port`, `*.suffix` or `*`.
        host: Without port, and without the brackets of an IPv6 address.
        port: Port to connect to. A wildcard goes to the port that the request names.
        domains: Authorities of requests that are meant, in Envoy's notation.
        plain: Whether it is spoken to without TLS.
        upstream: Where it really is, when not where its name says.
        pushed: Whether Envoy holds the route's token and asks for no decision.
        flow: The route's flow.
        repeated: Whether Envoy may repeat the route's decisions.
        ruled: Whether the route has rules.
        mcp: The host as MCP server; None where it is none.
        removes: Headers that Envoy takes off by itself, since nobody is asked who would.
        tunnel: Whether the app may have connections there whose content nobody sees.
        spares_loopback: Whether requests that name loopback are refused, although the wildcard matches them:
            the agent could listen there, and receive the route's token.
    """

    route: str
    authority: str
    host: str
    port: int
    domains: tuple[str, ...]
    plain: bool = False
    upstream: Upstream | None = None
    pushed: bool = False
    flow: Flow = Flow.NONE
    repeated: bool = False
    ruled: bool = False
    mcp: Mcp | None = None
    removes: tuple[str, ...] = ()
    tunnel: bool = False
    spares_loopback: bool = False

    @property
    def is_wildcard(self) -> bool:
        """Whether the host is known only when a request names it."""
        return self.authority.startswith("*")

    @property
    def cluster(self) -> str:
        """Name of the Envoy cluster that leads there.

        All wildcards share one, or one for plain HTTP, but those whose route has a token of its own in Envoy.
        """
        if not self.is_wildcard:
            return f"egress/{self.authority}"
        if self.plain:
            return "egress-plain"
        return f"pushed/{self.route}" if self.pushed else "egress"

    @property
    def websocket_cluster(self) -> str:
        """Name of the cluster for WebSockets: by TLS one that speaks HTTP/1.1 alone."""
        return self.cluster if self.plain else f"websocket/{self.cluster}"

    @property
    def ends_tls(self) -> bool:
        """Whether TLS to this host, which no route can serve, must not go past the routes.

        The agent meant to have a token. Of a host of plain HTTP without one, its TLS is another service; and
        where it may have a tunnel, this is one.
        """
        return not self.tunnel and not (self.plain and self.flow is Flow.NONE)

    @property
    def tunnel_cluster(self) -> str:
        """Name of the Envoy cluster of tunnels to there."""
        return "tunnel" if self.is_wildcard else f"tunnel/{self.authority}"


def destinations(config: Config, policy: Policy, settings: SidecarSettings) -> list[Destination]:
    """Return the hosts of every egress route, in the order of the configuration.

    Raises:
        RenderError: `upstreams` names a host that no route has, or a wildcard; or `egress_hosts` names
            no egress route, no host, one host twice, or one that the route's token must not be sent to.
    """
    hosts = _hosts(config, settings)
    upstreams = {EgressHost.of(host): upstream for host, upstream in settings.upstreams.items()}
    for written, host in zip(settings.upstreams, upstreams, strict=True):
        if host not in hosts or host.is_wildcard:
            raise RenderError(f"upstreams: {written!r} is not a host of any egress route")
    served = reason_not_to_push(config, settings) is None
    pushed = {name for name, route in config.egress.items() if served and route.pushed}
    repeated, handles = _repeated(config, policy), policy.gives_handles
    tunnels = tunnelled(config)
    return [
        replace(
            _destination(route, host, upstreams.get(host)),
            pushed=route in pushed,
            flow=config.egress[route].flow,
            repeated=route in repeated and route not in pushed,
            ruled=bool(config.egress[route].rules),
            mcp=config.egress[route].mcp,
            removes=(*(["baggage"] if handles else []), *config.egress[route].removed)
            if route in pushed
            else (),
            tunnel=route in tunnels and not host.plain,
            spares_loopback=host.is_wildcard
            and config.egress[route].flow is not Flow.NONE
            and not config.egress[route].token_to_loopback,
        )
        for host, route in hosts.items()
    ]


def _hosts(config: Config, settings: SidecarSettings) -> dict[EgressHost, str]:
    """Return the route of each host."""
    if not settings.egress_hosts:
        return {
            EgressHost.of(host): name
            for name, route in config.egress.items()
            for host in route.hosts
        }
    found: dict[str, tuple[EgressHost, str]] = {}
    for name, hosts in settings.egress_hosts.items():
        if name not in config.egress:
            raise RenderError(f"egress_hosts: {name!r} is no egress route")
        for written in hosts:
            try:
                host = EgressHost.of(HOST.read(written))
            except Expected as error:
                raise RenderError(f"egress_hosts: found {written!r}: {error}") from None
            for authority in host.names:
                first, route = found.setdefault(authority, (host, name))
                if route != name:
                    raise RenderError(f"egress_hosts: {written!r} belongs to {route!r} already")
                if first != host:
                    raise RenderError(
                        f"egress_hosts: {written!r} is there as {str(first)!r} already"
                    )
            if (text := refused_host(config.egress[name], host)) is not None:
                raise RenderError(f"egress_hosts: {name}: {text}")
    return dict(found.values())


def _repeated(config: Config, policy: Policy) -> frozenset[str]:
    if config.cache.edge.max_ttl == 0:
        return frozenset()
    return frozenset(route.name for route in policy.egress.values() if route.may_repeat_at_edge)


def reason_not_to_push(config: Config, settings: SidecarSettings) -> str | None:
    """Return why the service would give this Envoy no token ahead; None if it would (law 2).

    The service takes the word of a Unix socket, or of a client certificate, and of nobody else.
    """
    if config.listen.workload_identity is not PeerSource.CONNECTION:
        return "listen.workload_identity is source_principal, which only a request can carry"
    where = settings.authz_address or config.listen.grpc
    if config.listen.socket_path is not None and isinstance(socket_address(where), UnixAddress):
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
    rendered = set(_hosts(config, settings).values())
    return [name for name, route in config.egress.items() if name in rendered and route.pushed]


def _destination(route: str, host: EgressHost, upstream: Upstream | None) -> Destination:
    authority = host.authority
    _, bare = normalize_host(authority)
    port = authority.removeprefix(bare).removeprefix(":")
    return Destination(
        route=route,
        authority=authority,
        host=bare.strip("[]"),
        port=int(port) if port else _HTTP_PORT if host.plain else HTTPS_PORT,
        domains=host.names,
        plain=host.plain,
        upstream=upstream,
    )
