"""Which HTTP Envoy speaks to a cluster, and how long it keeps connections. No cluster is made here."""

from copy import deepcopy
from datetime import timedelta
from typing import Final, assert_never

from envoy_data_plane.envoy.config.core.v3 import (
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    KeepaliveSettings,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions as ClusterHttpOptions,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsAutoHttpConfig,
    HttpProtocolOptionsExplicitHttpConfig,
    HttpProtocolOptionsUseDownstreamHttpConfig,
)

from authz.envoy_config.settings import AppProtocol

_STREAMS: Final = 100
"""Requests that share one HTTP/2 connection to a destination. Beyond them there is another connection."""
_STREAM_WINDOW: Final = 256 * 1024
"""What app or destination may send of an answer that its client does not read: with Envoy's own 16 MiB, a few
such clients would fill its memory. On a way of 50 ms it still lets 5 MB a second through."""
_UPSTREAM_IDLE: Final = timedelta(seconds=4)
"""Shorter than what servers and load balancers commonly allow (uvicorn, Node.js and Apache 5 seconds): what
changes something is not sent twice, so it must not meet a connection that is just being closed."""
_APP_IDLE: Final = timedelta(seconds=1)
"""Shorter than what servers of web applications allow: uvicorn and Node.js close an idle connection
after 5 seconds, gunicorn after 2. Inside the pod a new one costs next to nothing."""
HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def to_app(protocol: AppProtocol) -> ClusterHttpOptions:
    """Return how HTTP is spoken to the agent."""
    options = ClusterHttpOptions(
        common_http_protocol_options=HttpProtocolOptions(idle_timeout=_APP_IDLE)
    )
    match protocol:
        case AppProtocol.HTTP1:
            options.explicit_http_config = HttpProtocolOptionsExplicitHttpConfig(
                http_protocol_options=Http1ProtocolOptions()
            )
        case AppProtocol.HTTP2:
            options.explicit_http_config = HttpProtocolOptionsExplicitHttpConfig(
                http2_protocol_options=_http2()
            )
        case AppProtocol.SAME:
            options.use_downstream_protocol_config = _as_called()
        case _ as unreachable:
            assert_never(unreachable)
    return options


def to_authz() -> ClusterHttpOptions:
    """Return how HTTP is spoken to the service: gRPC, so HTTP/2."""
    return ClusterHttpOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
            http2_protocol_options=Http2ProtocolOptions(
                # A peer that vanished without closing is noticed, not waited for.
                connection_keepalive=KeepaliveSettings(
                    interval=timedelta(seconds=30), timeout=timedelta(seconds=5)
                )
            )
        )
    )


def by_http1(options: ClusterHttpOptions) -> ClusterHttpOptions:
    """Return options that negotiate a version as others that speak HTTP/1.1."""
    # Another cluster uses the same message.
    options = deepcopy(options)
    options.auto_config = None
    options.explicit_http_config = HttpProtocolOptionsExplicitHttpConfig(
        http_protocol_options=Http1ProtocolOptions()
    )
    return options


def negotiated(*, plain: bool, filters: list[HttpFilter]) -> ClusterHttpOptions:
    """Return HTTP/2 where the destination offers it in ALPN, else HTTP/1.1.

    Without TLS there is no ALPN. The agent, as without Envoy, knows which version the destination speaks.

    Args:
        plain: Whether there is no TLS.
        filters: What changes a request last, before it leaves.
    """
    options = ClusterHttpOptions(
        common_http_protocol_options=HttpProtocolOptions(idle_timeout=_UPSTREAM_IDLE),
        http_filters=filters,
    )
    if plain:
        options.use_downstream_protocol_config = _as_called()
    else:
        options.auto_config = HttpProtocolOptionsAutoHttpConfig(
            http_protocol_options=Http1ProtocolOptions(), http2_protocol_options=_http2()
        )
    return options


def _as_called() -> HttpProtocolOptionsUseDownstreamHttpConfig:
    """Return what has a request sent on in the version of HTTP in which it came."""
    return HttpProtocolOptionsUseDownstreamHttpConfig(
        http_protocol_options=Http1ProtocolOptions(), http2_protocol_options=_http2()
    )


def _http2() -> Http2ProtocolOptions:
    return Http2ProtocolOptions(
        max_concurrent_streams=_STREAMS,
        initial_stream_window_size=_STREAM_WINDOW,
        # What all its streams may hold, so that those who do not read leave room for the others.
        initial_connection_window_size=_STREAMS * _STREAM_WINDOW,
    )
