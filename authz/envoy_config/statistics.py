"""The listener for Prometheus: Envoy's statistics, and nothing else of its administration.

Off unless it has an address. The cluster says who reaches it (NetworkPolicy), as for authz's own metrics.
"""

from datetime import timedelta
from typing import Final

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import HttpProtocolOptions
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from authz.core.address import TcpAddress
from authz.envoy_config.clusters import address, circuit_breakers
from authz.envoy_config.document import packed
from authz.envoy_config.listeners import listen_on
from authz.envoy_config.settings import RenderError, SidecarSettings, must_be_ip, socket_address

PATH: Final = "/stats/prometheus"
_NAME: Final = "statistics"
_ADMINISTRATION: Final = "administration"
_SCRAPE: Final = timedelta(seconds=30)
_IDLE: Final = timedelta(minutes=5)
_MOST: Final = 10
"""Scrapes at a time: each makes the whole text."""


def statistics_listener(settings: SidecarSettings, where: str) -> Listener:
    """Return the listener.

    Args:
        settings: Whether there is IPv6.
        where: Its address.

    Raises:
        RenderError: It is no address to listen on.
    """
    must_be_ip("statistics_address", where)
    route = Route(
        match=RouteMatch(
            path=PATH,
            headers=[HeaderMatcher(name=":method", string_match=StringMatcher(exact="GET"))],
        ),
        route=RouteAction(cluster=_ADMINISTRATION, timeout=_SCRAPE),
        # The administration reads neither today. A scrape has no use for them.
        request_headers_to_remove=["authorization", "cookie"],
    )
    manager = HttpConnectionManager(
        stat_prefix=_NAME,
        route_config=RouteConfiguration(
            name=_NAME, virtual_hosts=[VirtualHost(name=_NAME, domains=["*"], routes=[route])]
        ),
        http_filters=[HttpFilter(name="envoy.filters.http.router", typed_config=packed(Router()))],
        common_http_protocol_options=HttpProtocolOptions(idle_timeout=_IDLE),
        request_headers_timeout=timedelta(seconds=10),
        stream_idle_timeout=_SCRAPE,
    )
    listener = Listener(
        name=_NAME,
        # What has to be seen most when there are too many connections.
        ignore_global_conn_limit=True,
        bypass_overload_manager=True,
        filter_chains=[
            FilterChain(
                filters=[
                    Filter(
                        name="envoy.filters.network.http_connection_manager",
                        typed_config=packed(manager),
                    )
                ]
            )
        ],
    )
    listen_on(listener, where, settings)
    return listener


def administration_cluster(settings: SidecarSettings) -> Cluster:
    """Return the cluster that leads to Envoy's own administration, on loopback.

    Raises:
        RenderError: It has no address that is known here.
    """
    where = settings.admin_address
    found = socket_address(where)
    if isinstance(found, TcpAddress) and found.port == 0:
        raise RenderError(f"admin_address: found {where}, expected a real port with statistics")
    return Cluster(
        name=_ADMINISTRATION,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=1),
        circuit_breakers=circuit_breakers(_MOST),
        load_assignment=ClusterLoadAssignment(
            cluster_name=_ADMINISTRATION,
            endpoints=[
                LocalityLbEndpoints(
                    lb_endpoints=[LbEndpoint(endpoint=Endpoint(address=address(where)))]
                )
            ],
        ),
    )
