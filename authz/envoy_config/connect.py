"""CONNECT at the egress listener: connections that the agent has its proxy open.

Clients ask so for `https://` (`HTTPS_PROXY`); clients of gRPC and WebSocket, and Node.js, for `http://` as
well. What Envoy can read it reads: plain HTTP, and TLS that it may end (`https`). That meets the filters and
routes of every egress request. What it cannot read becomes a tunnel where a route allows it, and is
refused elsewhere.

What a route tells the service is in `virtual_hosts`. Which tunnels may be: `config.consistency.tunnels`.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    EnvoyInternalAddress,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.listener.v3 import (
    FilterChain,
    FilterChainMatch,
    Listener,
    ListenerFilter,
    ListenerInternalListenerConfig,
)
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    Route,
    RouteAction,
    RouteActionUpgradeConfig,
    RouteActionUpgradeConfigConnectConfig,
    RouteMatch,
    RouteMatchConnectMatcher,
)
from envoy_data_plane.envoy.extensions.bootstrap.internal_listener.v3 import InternalListener
from envoy_data_plane.envoy.extensions.filters.listener.tls_inspector.v3 import TlsInspector
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerUpgradeConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from authz.core.request import CONNECT
from authz.envoy_config.clusters import BUFFER_BYTES, circuit_breakers, tunnel_clusters
from authz.envoy_config.destinations import Destination
from authz.envoy_config.document import packed
from authz.envoy_config.refused_tls import alert_filter, refusal_log

INSIDE: Final = "connect"
"""The listener that reads what is inside of such connections, and the cluster that leads there."""

_REFUSED: Final = "refused"
_CONNECT_LOCAL: Final = timedelta(seconds=1)
_CONNECTIONS: Final = 4096
"""Connections that the agent may have open by CONNECT, to all hosts that Envoy reads together."""
_FIRST_BYTES: Final = timedelta(seconds=15)
"""A client that waits for the server to speak first is no client of HTTP, and is let go after this."""
_TUNNEL_IDLE: Final = timedelta(hours=1)
"""Silence in a tunnel, as in redirected TLS that is passed on: nobody sees whether a request is under way."""


def upgrade() -> HttpConnectionManagerUpgradeConfig:
    """Return what has a listener take CONNECT to its routes. Each host's first routes answer it."""
    return HttpConnectionManagerUpgradeConfig(upgrade_type=CONNECT)


def is_connect(*headers: HeaderMatcher) -> RouteMatch:
    """Return what matches CONNECT, and nothing else does: such a request has no path."""
    return RouteMatch(connect_matcher=RouteMatchConnectMatcher(), headers=list(headers))


def to_be_read(target: Destination, ended: Collection[str]) -> Route | None:
    """Return the route of connections to a destination that Envoy reads; None if it can read none.

    Args:
        target: The destination.
        ended: Names for which Envoy ends TLS.
    """
    if target.plain or (target.host in ended and not target.tunnel):
        match = is_connect()
    elif target.authority == "*" or f"{target.authority}:80" in target.domains:
        # Who asks for this port of a host that we speak TLS to speaks plain HTTP to us, as without CONNECT.
        match = is_connect(
            HeaderMatcher(name=":authority", string_match=StringMatcher(suffix=":80"))
        )
    else:
        return None
    # What is inside has limits of its own.
    return _route("connect", match, cluster=INSIDE, idle=timedelta())


def tunnel(target: Destination) -> Route:
    """Return the route of connections that go on unread."""
    return _route(target.route, is_connect(), cluster=target.tunnel_cluster, idle=_TUNNEL_IDLE)


def inner_listener(egress: Listener, ended: Sequence[FilterChain]) -> Listener:
    """Return the listener that reads what is inside: it has no address, and Envoy alone reaches it.

    Whether TLS or plain HTTP is inside shows only after the client was answered that its connection is
    there. TLS for a name that Envoy may not end is refused by an alert of TLS, before it has begun.

    Args:
        egress: The listener for plain HTTP: what follows CONNECT is the same.
        ended: Chains that end the TLS of a host.
    """
    (plain,) = egress.filter_chains
    return Listener(
        name=INSIDE,
        internal_listener=ListenerInternalListenerConfig(),
        traffic_direction=egress.traffic_direction,
        per_connection_buffer_limit_bytes=egress.per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout=egress.per_connection_buffer_high_watermark_timeout,
        listener_filters=[
            ListenerFilter(
                name="envoy.filters.listener.tls_inspector", typed_config=packed(TlsInspector())
            )
        ],
        listener_filters_timeout=_FIRST_BYTES,
        filter_chains=[
            *ended,
            FilterChain(
                name="http",
                filter_chain_match=FilterChainMatch(transport_protocol="raw_buffer"),
                filters=plain.filters,
            ),
            FilterChain(
                name=_REFUSED,
                filter_chain_match=FilterChainMatch(transport_protocol="tls"),
                filters=[alert_filter()],
            ),
        ],
        access_log=[refusal_log(_REFUSED)],
    )


def connect_clusters(targets: Sequence[Destination]) -> list[Cluster]:
    """Return the cluster that leads to `inner_listener`, and those of tunnels."""
    inside = Address(envoy_internal_address=EnvoyInternalAddress(server_listener_name=INSIDE))
    endpoint = LbEndpoint(endpoint=Endpoint(address=inside))
    return [
        Cluster(
            name=INSIDE,
            type=ClusterDiscoveryType.STATIC,
            connect_timeout=_CONNECT_LOCAL,
            per_connection_buffer_limit_bytes=BUFFER_BYTES,
            circuit_breakers=circuit_breakers(_CONNECTIONS),
            load_assignment=ClusterLoadAssignment(
                cluster_name=INSIDE, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
            ),
        ),
        *tunnel_clusters(targets),
    ]


def bootstrap_extension() -> TypedExtensionConfig:
    """Return what has Envoy know listeners without an address."""
    return TypedExtensionConfig(
        name="envoy.bootstrap.internal_listener", typed_config=packed(InternalListener())
    )


def _route(name: str, match: RouteMatch, *, cluster: str, idle: timedelta) -> Route:
    return Route(
        name=name,
        match=match,
        route=RouteAction(
            cluster=cluster,
            timeout=timedelta(),
            idle_timeout=idle,
            upgrade_configs=[
                RouteActionUpgradeConfig(
                    upgrade_type=CONNECT, connect_config=RouteActionUpgradeConfigConnectConfig()
                )
            ],
        ),
    )
