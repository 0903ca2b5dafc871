"""Where Envoy connects to: the service, the agent, and each destination, by TLS or by plain HTTP.

How a name is resolved is in `authz.envoy_config.resolution`, which HTTP is spoken there in
`authz.envoy_config.protocols`.
"""

import re
from collections.abc import Sequence
from copy import deepcopy
from datetime import timedelta
from typing import Final

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterCustomClusterType,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterLbPolicy,
    UpstreamConnectionOptions,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    Pipe,
    SocketAddress,
    TcpKeepalive,
    TransportSocket,
    UpstreamHttpProtocolOptions,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.clusters.dynamic_forward_proxy.v3 import ClusterConfig
from envoy_data_plane.envoy.extensions.common.dynamic_forward_proxy.v3 import DnsCacheConfig
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions as ClusterHttpOptions,
)
from envoy_data_plane.envoy.type.v3 import Percent

from authz.config import Config
from authz.core.address import TcpAddress, UnixAddress
from authz.core.request import Direction
from authz.doors.envoy.ext_authz import SERVICE
from authz.envoy_config.credentials import injecting_filters
from authz.envoy_config.destinations import Destination
from authz.envoy_config.document import packed
from authz.envoy_config.protocols import HTTP_OPTIONS, by_http1, negotiated, to_app, to_authz
from authz.envoy_config.resolution import absolute_names, resolution
from authz.envoy_config.settings import RenderError, SidecarSettings, Upstream, socket_address
from authz.envoy_config.tls import authz_tls, upstream_tls

AUTHZ: Final = "authz"
CHECKS: Final = "authz-checks"
"""The service's socket for Checks alone, where it has one that this Envoy can reach."""
APP: Final = "app"

BUFFER_BYTES: Final = 32 * 1024
"""Per connection and direction: what a slow peer can make Envoy hold. Bodies stream through."""


KEPT_ALIVE: Final = TcpKeepalive(keepalive_time=60, keepalive_interval=20, keepalive_probes=3)
"""Seconds of silence until the kernel asks whether the other side is there, and from one question to the
next. One that is gone is noticed in two minutes, and load balancers, of which Azure's forgets a silent
connection after four, do not forget it."""

_CONNECT_LOCAL: Final = timedelta(seconds=1)
CONNECT_REMOTE: Final = timedelta(seconds=5)


_SECOND_TRIES: Final = 100
"""At a time to one cluster. Routes say which requests may have one; a server that breaks off everything
is not asked for twice as much."""

_APP_LIMITS: Final = 1024
DESTINATION_LIMITS: Final = 1024
_HEALTH_INTERVAL: Final = timedelta(seconds=5)
_AUTHZ_LIMITS: Final = 4096
"""Checks under way: those of both directions, and each may wait for Entra."""


def address(text: str) -> Address:
    """Return the address that `unix:PATH` or `host:port` names."""
    found = socket_address(text)
    if isinstance(found, UnixAddress):
        return Address(pipe=Pipe(path=found.path))
    return Address(socket_address=SocketAddress(address=found.host, port_value=found.port))


def app_cluster(settings: SidecarSettings) -> Cluster:
    """Return the cluster of the agent itself: plain HTTP inside the pod."""
    return _cluster(
        APP,
        settings.app_address,
        limit=_APP_LIMITS,
        connect=_CONNECT_LOCAL,
        http=to_app(settings.app_protocol),
    )


def authz_cluster(config: Config, settings: SidecarSettings) -> Cluster:
    """Return the cluster of the service: gRPC, so HTTP/2.

    Raises:
        RenderError: The way to reach the service cannot be told from configuration and settings.
    """
    where = settings.authz_address or _reachable(config.listen.grpc)
    found = socket_address(where)
    local = isinstance(found, UnixAddress)
    if isinstance(found, TcpAddress) and found.port == 0:
        raise RenderError(f"authz_address: found {where}, expected the service's real port")
    cluster = _cluster(
        AUTHZ,
        where,
        limit=_AUTHZ_LIMITS,
        second_tries=0,
        connect=_CONNECT_LOCAL,
        http=to_authz(),
    )
    if not local:
        # With one replica a refused connection says as much; with several, the sick one is left out.
        cluster.health_checks = [
            HealthCheck(
                timeout=timedelta(seconds=1),
                interval=_HEALTH_INTERVAL,
                # Envoy's own is a minute, and counts for a service that was not there yet at the start.
                no_traffic_interval=_HEALTH_INTERVAL,
                unhealthy_threshold=2,
                healthy_threshold=1,
                grpc_health_check=HealthCheckGrpcHealthCheck(service_name=SERVICE),
            )
        ]
        # Envoy would otherwise send Checks to sick replicas when most are sick.
        cluster.common_lb_config = ClusterCommonLbConfig(healthy_panic_threshold=Percent())
    cluster.transport_socket = _authz_transport_socket(config, settings)
    return cluster


def destination_clusters(
    targets: Sequence[Destination], settings: SidecarSettings
) -> list[Cluster]:
    """Return a cluster for each named destination, and for all wildcards that have the same token."""
    named = [target for target in targets if not target.is_wildcard]
    wild = {target.cluster: target for target in targets if target.is_wildcard}
    clusters = [
        *(_destination_cluster(target, settings) for target in named),
        *(_wildcard_cluster(target, settings) for target in wild.values()),
    ]
    if Direction.EGRESS not in settings.websockets:
        return clusters
    secure = [target for target in (*named, *wild.values()) if not target.plain]
    names = {target.cluster: target.websocket_cluster for target in secure}
    return clusters + [
        _for_websockets(cluster, names[cluster.name])
        for cluster in clusters
        if cluster.name in names
    ]


def _for_websockets(cluster: Cluster, name: str) -> Cluster:
    """Return a destination's cluster for WebSockets: few servers know the handshake of HTTP/2 (RFC 8441)."""
    found = deepcopy(cluster)
    found.name = name
    if found.load_assignment is not None:
        found.load_assignment.cluster_name = name
    if found.alt_stat_name:
        found.alt_stat_name = f"websocket_{found.alt_stat_name}"
    options = found.typed_extension_protocol_options[HTTP_OPTIONS].unpack()
    assert isinstance(options, ClusterHttpOptions)
    found.typed_extension_protocol_options = {HTTP_OPTIONS: packed(by_http1(options))}
    return found


def tunnel_clusters(targets: Sequence[Destination]) -> list[Cluster]:
    """Return a cluster for the tunnels to each named destination, and one for those to wildcards.

    There is no TLS of ours: what is inside is the app's own.
    """
    allowed = [target for target in targets if target.tunnel]
    wild = [target for target in allowed if target.is_wildcard]
    named = (_tunnel_cluster(target) for target in allowed if not target.is_wildcard)
    return [*named, *([_by_request(wild[0].tunnel_cluster, plain=True)] if wild else [])]


def dns_cache() -> DnsCacheConfig:
    """Return the cache that wildcard destinations are resolved in; filter and cluster share it."""
    return DnsCacheConfig(
        name="egress",
        # Both families, tried as RFC 8305 says. The default takes IPv6 where there is a record for it.
        dns_lookup_family=ClusterDnsLookupFamily.ALL,
        typed_dns_resolver_config=absolute_names(),
        max_hosts=1024,
    )


def _destination_cluster(target: Destination, settings: SidecarSettings) -> Cluster:
    special = target.upstream or Upstream()
    cluster = _cluster(
        target.cluster,
        special.address or _socket_name(target),
        limit=DESTINATION_LIMITS,
        connect=CONNECT_REMOTE,
        http=_by_http(target),
        of_cluster=target.plain,
    )
    cluster.alt_stat_name = _stat_name(target.cluster)
    cluster.upstream_connection_options = _kept_alive()
    if not target.plain:
        cluster.transport_socket = upstream_tls(
            special.ca_file or settings.upstream_ca_file, server_name=target.host
        )
    return cluster


def _by_http(target: Destination) -> ClusterHttpOptions:
    """Return how HTTP is spoken to a destination, with the filter that injects a pushed token."""
    filters = injecting_filters(target.route, AUTHZ) if target.pushed else []
    return negotiated(plain=target.plain, filters=filters)


def _tunnel_cluster(target: Destination) -> Cluster:
    name = target.tunnel_cluster
    where = (target.upstream or Upstream()).address or _socket_name(target)
    cluster = _cluster(
        name, where, limit=DESTINATION_LIMITS, connect=CONNECT_REMOTE, http=ClusterHttpOptions()
    )
    cluster.typed_extension_protocol_options = {}
    cluster.alt_stat_name = _stat_name(name)
    cluster.upstream_connection_options = _kept_alive()
    return cluster


def _socket_name(target: Destination) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{host}:{target.port}"


def _stat_name(cluster: str) -> str:
    # A dot would end the cluster's name in Envoy's statistics.
    return re.sub("[^A-Za-z0-9_-]", "_", cluster)


def _wildcard_cluster(target: Destination, settings: SidecarSettings) -> Cluster:
    http = _by_http(target)
    if not target.plain:
        # The request's own host is resolved, asked for in SNI and demanded in the certificate.
        http.upstream_http_protocol_options = UpstreamHttpProtocolOptions(
            auto_sni=True, auto_san_validation=True
        )
    cluster = _by_request(target.cluster, plain=target.plain)
    cluster.alt_stat_name = _stat_name(target.cluster) if target.pushed else ""
    cluster.typed_extension_protocol_options = {HTTP_OPTIONS: packed(http)}
    if not target.plain:
        cluster.transport_socket = upstream_tls(settings.upstream_ca_file)
    return cluster


def _by_request(name: str, *, plain: bool) -> Cluster:
    """Return a cluster that leads to where each request says, without TLS of ours if `plain`."""
    return Cluster(
        name=name,
        cluster_type=ClusterCustomClusterType(
            name="envoy.clusters.dynamic_forward_proxy",
            typed_config=packed(
                ClusterConfig(
                    dns_cache_config=dns_cache(),
                    # Envoy asks for the word where there is no TLS that could demand the name.
                    allow_insecure_cluster_options=plain,
                )
            ),
        ),
        lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED,
        connect_timeout=CONNECT_REMOTE,
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        circuit_breakers=circuit_breakers(DESTINATION_LIMITS, second_tries=_SECOND_TRIES),
        upstream_connection_options=_kept_alive(),
    )


def _kept_alive() -> UpstreamConnectionOptions:
    return UpstreamConnectionOptions(tcp_keepalive=KEPT_ALIVE)


def _cluster(
    name: str,
    where: str,
    *,
    limit: int,
    connect: timedelta,
    http: ClusterHttpOptions,
    second_tries: int = _SECOND_TRIES,
    of_cluster: bool = False,
) -> Cluster:
    cluster = Cluster(
        name=name,
        connect_timeout=connect,
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        circuit_breakers=circuit_breakers(limit, second_tries=second_tries),
        typed_extension_protocol_options={HTTP_OPTIONS: packed(http)},
        load_assignment=ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[
                LocalityLbEndpoints(
                    lb_endpoints=[LbEndpoint(endpoint=Endpoint(address=address(where)))]
                )
            ],
        ),
    )
    found = socket_address(where)
    if isinstance(found, UnixAddress) or found.is_ip:
        cluster.type = ClusterDiscoveryType.STATIC
    else:
        cluster.cluster_type = ClusterCustomClusterType(
            name="envoy.clusters.dns",
            typed_config=packed(resolution(found.host, every=name == AUTHZ, of_cluster=of_cluster)),
        )
    return cluster


def checks_cluster(config: Config, settings: SidecarSettings) -> Cluster | None:
    """Return the cluster of the Check door; None where Checks go to the gRPC server like all else.

    It is for an Envoy that finds the service by what the configuration says: in the same pod.
    """
    if config.listen.checks is None or settings.authz_address not in (None, config.listen.grpc):
        return None
    return _cluster(
        CHECKS,
        config.listen.checks,
        limit=_AUTHZ_LIMITS,
        second_tries=0,
        connect=_CONNECT_LOCAL,
        http=to_authz(),
    )


def circuit_breakers(limit: int, *, second_tries: int = 0) -> CircuitBreakers:
    """Return the bound on what is under way to a cluster.

    Args:
        limit: Connections, and requests.
        second_tries: Requests that are sent a second time. With 0 none is, whatever a route may say.
    """
    return CircuitBreakers(
        thresholds=[
            CircuitBreakersThresholds(
                max_connections=limit,
                max_pending_requests=limit,
                max_requests=limit,
                max_retries=second_tries,
            )
        ]
    )


def _reachable(listen: str) -> str:
    """Return where a client in the same pod finds what listens on every address."""
    found = socket_address(listen)
    if isinstance(found, UnixAddress):
        return listen
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(found.host)  # noqa: S104 - read, not bound
    return listen if loopback is None else str(TcpAddress(loopback, found.port))


def _authz_transport_socket(config: Config, settings: SidecarSettings) -> TransportSocket | None:
    tls, ours = config.listen.tls, settings.authz_tls
    if tls is None and ours is None:
        return None
    if tls is None:
        raise RenderError("authz_tls: the service has no listen.tls")
    if ours is None:
        raise RenderError("authz_tls: is missing, and the service has listen.tls")
    if tls.client_ca_file is not None and not ours.has_certificate:
        raise RenderError("authz_tls: certificate_file is missing, and the service asks for one")
    return authz_tls(ours)
