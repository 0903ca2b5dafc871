"""Envoy where the kernel redirects the agent's connections to it, and the agent knows of no proxy.

Plain HTTP meets the same filters and routes as with a proxy, and so does TLS that Envoy may end (`https`).
Other TLS cannot be given a token: it is refused, or passes untouched. Its first bytes tell what it is.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from ipaddress import ip_address
from typing import Final

from betterproto2 import Message
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType, ClusterLbPolicy
from envoy_data_plane.envoy.config.core.v3 import CidrRange
from envoy_data_plane.envoy.config.listener.v3 import (
    Filter,
    FilterChain,
    FilterChainMatch,
    Listener,
    ListenerFilter,
)
from envoy_data_plane.envoy.extensions.filters.listener.original_dst.v3 import OriginalDst
from envoy_data_plane.envoy.extensions.filters.listener.tls_inspector.v3 import TlsInspector
from envoy_data_plane.envoy.extensions.filters.network.tcp_proxy.v3 import TcpProxy

from authz.core.address import is_ip
from authz.envoy_config.access_log import connection_log
from authz.envoy_config.clusters import (
    BUFFER_BYTES,
    CONNECT_REMOTE,
    DESTINATION_LIMITS,
    circuit_breakers,
)
from authz.envoy_config.destinations import Destination
from authz.envoy_config.document import packed
from authz.envoy_config.refused_tls import alert_filter, refusal_log
from authz.envoy_config.settings import SidecarSettings, Transparent

UNTOUCHED: Final = "untouched"
"""Cluster of the connections that go on to where they were going."""

_REFUSED: Final = "refused"
_ROUTED: Final = "routed"
_LOOPBACK: Final = (("127.0.0.0", 8), ("::1", 128))

_IDLE: Final = timedelta(hours=1)
_FIRST_BYTES: Final = timedelta(seconds=15)
"""A client that waits for the server to speak first is no client of HTTP, and is let go after this."""


def take_redirected(
    listener: Listener,
    settings: SidecarSettings,
    targets: Sequence[Destination],
    ended: Sequence[FilterChain],
) -> Listener:
    """Return the egress listener, changed so that redirected connections may arrive at it.

    Args:
        listener: As it is with a proxy.
        settings: Where it listens, and what becomes of TLS.
        targets: The hosts of egress routes.
        ended: Chains that end the TLS of a host, each named like it.
    """
    (http,) = listener.filter_chains
    listener.listener_filters = [
        _listener_filter("envoy.filters.listener.original_dst", OriginalDst()),
        _listener_filter("envoy.filters.listener.tls_inspector", TlsInspector()),
    ]
    listener.listener_filters_timeout = _FIRST_BYTES
    # Not a chain that matches everything: those below are looked for by address first, and an
    # address that is found there is not looked for anywhere else.
    http.name = "http"
    listener.default_filter_chain = http
    listener.access_log = [refusal_log(_REFUSED, _ROUTED)]
    if settings.transparent is Transparent.PASS_TLS and not any(
        target.authority == "*" and target.ends_tls for target in targets
    ):
        names = {chain.name for chain in ended}
        listener.filter_chains = [*ended, *_refused(targets, names), _passed()]
    else:
        listener.filter_chains = [*ended, _tls(_REFUSED)]
    return listener


def original_destination() -> Cluster:
    """Return the cluster that leads to where a redirected connection was going."""
    return Cluster(
        name=UNTOUCHED,
        type=ClusterDiscoveryType.ORIGINAL_DST,
        lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED,
        connect_timeout=CONNECT_REMOTE,
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        circuit_breakers=circuit_breakers(DESTINATION_LIMITS),
    )


def _refused(targets: Sequence[Destination], ended: Collection[str]) -> list[FilterChain]:
    """Return the chains that end what must not go on.

    The first is what nobody has redirected: who speaks TLS to Envoy itself would be led back to
    Envoy, or to another port of the pod. The others are hosts that have a route: the agent meant to
    have a token, and without one the call would go on with the user's, or fail at a place that tells
    nobody why.
    """
    targets = [target for target in targets if target.ends_tls]
    addresses = dict.fromkeys(
        (target.host, ip_address(target.host).max_prefixlen)
        for target in targets
        if is_ip(target.host)
    )
    hosts = [target.host.lower() for target in targets if not is_ip(target.host)]
    # Some clients ask for a name as it is written in the URL, with the root's dot: no certificate of ours is
    # for that, and it is the same host.
    names = dict.fromkeys(
        [name for name in hosts if name not in ended] + [f"{name}." for name in hosts]
    )
    chains = [_tls(_REFUSED, ranges=[*_LOOPBACK, *addresses])]
    if names:
        chains.append(_tls(_ROUTED, names=list(names)))
    return chains


def _passed() -> FilterChain:
    proxy = TcpProxy(
        stat_prefix=UNTOUCHED, cluster=UNTOUCHED, idle_timeout=_IDLE, access_log=[connection_log()]
    )
    return _tls(UNTOUCHED, proxy=proxy)


def _tls(
    name: str,
    *,
    ranges: Iterable[tuple[str, int]] = (),
    names: Sequence[str] = (),
    proxy: TcpProxy | None = None,
) -> FilterChain:
    """Return a chain for TLS. Without a proxy the connection is refused at once."""
    return FilterChain(
        name=name,
        filter_chain_match=FilterChainMatch(
            prefix_ranges=[
                CidrRange(address_prefix=prefix, prefix_len=length) for prefix, length in ranges
            ],
            server_names=list(names),
            transport_protocol="tls",
        ),
        filters=[alert_filter()]
        if proxy is None
        else [Filter(name="envoy.filters.network.tcp_proxy", typed_config=packed(proxy))],
    )


def _listener_filter(name: str, config: Message) -> ListenerFilter:
    return ListenerFilter(name=name, typed_config=packed(config))
