"""TLS that Envoy may neither end nor let pass: how it is refused, so that the client and the log say why.

Which TLS that is depends on how connections arrive: `connect`, `interception`.
"""

from typing import Final

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog, AccessLogFilter, ExtensionFilter
from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.filters.network.direct_response.v3 import Config

from authz.core.errors import Reason
from authz.envoy_config.access_log import connection_log
from authz.envoy_config.document import packed

_ALERT: Final = bytes((21, 3, 3, 0, 2, 2, 49))
"""A fatal alert `access_denied` (RFC 8446 section 6.2), in a record of TLS 1.2, which every client reads."""


def alert_filter() -> Filter:
    """Return what a chain for such TLS has as its only filter: the client hears that access is denied."""
    return Filter(
        name="envoy.filters.network.direct_response",
        typed_config=packed(Config(response=DataSource(inline_bytes=_ALERT))),
    )


def refusal_log(*chains: str) -> AccessLog:
    """Return the log of the connections that came to some of a listener's chains, one line each."""
    log = connection_log(decision="deny", reason=Reason.TUNNEL_REFUSED.value)
    log.filter = AccessLogFilter(
        extension_filter=ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel",
            typed_config=packed(
                ExpressionFilter(
                    expression=" || ".join(f"xds.filter_chain_name == '{name}'" for name in chains)
                )
            ),
        )
    )
    return log
