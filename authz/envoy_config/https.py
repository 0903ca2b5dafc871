"""The listener for TLS that the app starts itself: ended by the pod's own certificates, then as any egress.

It takes connections for configured hosts only, told apart by the server name that the client asks for (RFC
6066 section 3). A connection for another name, or for none, ends before it has begun.
"""

from collections.abc import Sequence
from typing import Final

from envoy_data_plane.envoy.config.core.v3 import TransportSocket
from envoy_data_plane.envoy.config.listener.v3 import (
    FilterChain,
    FilterChainMatch,
    Listener,
    ListenerFilter,
)
from envoy_data_plane.envoy.extensions.filters.listener.tls_inspector.v3 import TlsInspector
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    TlsParameters,
    TlsParametersTlsProtocol,
)

from authz.envoy_config.credentials import secret_source
from authz.envoy_config.document import packed
from authz.envoy_config.listeners import listen_on
from authz.envoy_config.settings import SidecarSettings, must_be_ip
from authz.pod_ca.certificates import PREFIX

_NAME: Final = "https"
_PROTOCOLS: Final = ("h2", "http/1.1")


def https_chains(egress: Listener, hosts: Sequence[str], *, cluster: str) -> list[FilterChain]:
    """Return what ends the TLS of connections for these hosts.

    Args:
        egress: The listener for plain HTTP: what follows TLS is the same.
        hosts: DNS names of the destinations.
        cluster: Where certificates come from.
    """
    (plain,) = egress.filter_chains
    return [
        FilterChain(
            name=host,
            filter_chain_match=FilterChainMatch(server_names=[host]),
            filters=plain.filters,
            transport_socket=_tls(host, cluster),
        )
        for host in hosts
    ]


def https_listener(
    egress: Listener, chains: list[FilterChain], settings: SidecarSettings
) -> Listener:
    """Return the listener, for a pod whose connections are led here by name.

    Args:
        egress: The listener for plain HTTP.
        chains: One for each host.
        settings: Where it listens.
    """
    where = settings.https_address
    must_be_ip("https_address", where)
    listener = Listener(
        name=_NAME,
        traffic_direction=egress.traffic_direction,
        per_connection_buffer_limit_bytes=egress.per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout=egress.per_connection_buffer_high_watermark_timeout,
        tcp_keepalive=egress.tcp_keepalive,
        listener_filters=[
            ListenerFilter(
                name="envoy.filters.listener.tls_inspector", typed_config=packed(TlsInspector())
            )
        ],
        filter_chains=chains,
    )
    listen_on(listener, where, settings)
    return listener


def _tls(host: str, cluster: str) -> TransportSocket:
    return TransportSocket(
        name="envoy.transport_sockets.tls",
        typed_config=packed(
            DownstreamTlsContext(
                common_tls_context=CommonTlsContext(
                    tls_params=TlsParameters(
                        tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2
                    ),
                    tls_certificate_sds_secret_configs=[
                        SdsSecretConfig(name=f"{PREFIX}{host}", sds_config=secret_source(cluster))
                    ],
                    alpn_protocols=list(_PROTOCOLS),
                )
            )
        ),
    )
