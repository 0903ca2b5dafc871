"""`Http2Front`: speaks HTTP/2 before a destination that knows HTTP/1.1 only. An Envoy with small buffers."""

from pathlib import Path
from typing import Final

import yaml

from support.proxy.envoy import EnvoyProcess
from support.proxy.sidecar import Authority

_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_HTTP: Final = "type.googleapis.com/envoy.extensions.filters"
_BUFFER: Final = 32 * 1024


class Http2Front(EnvoyProcess):
    """A context manager.

    Args:
        authority: Signs its certificate.
        name: In the certificate.
        behind: `host:port` of the destination, which speaks TLS.
        folder: For its files.
    """

    def __init__(self, authority: Authority, name: str, behind: str, folder: Path) -> None:
        issued = authority.ca.issue_cert(name)
        chain, key = folder / "front.pem", folder / "front.key"
        issued.cert_chain_pems[0].write_to_path(chain)
        issued.private_key_pem.write_to_path(key)
        super().__init__(yaml.safe_dump(_bootstrap(chain, key, behind)))

    @property
    def address(self) -> str:
        """`host:port` it listens on."""
        return f"127.0.0.1:{self.port('front')}"


def _bootstrap(chain: Path, key: Path, behind: str) -> dict[str, object]:
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "behind", "timeout": "0s"}}]
    manager = {
        "@type": f"{_HTTP}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        # It is not this one that makes anybody wait.
        "http2_protocol_options": {
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 64 * 1024**2,
        },
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_HTTP}.http.router.v3.Router"}}
        ],
    }
    certificate = {
        "certificate_chain": {"filename": str(chain)},
        "private_key": {"filename": str(key)},
    }
    shown = {
        "@type": f"{_TLS}DownstreamTlsContext",
        "common_tls_context": {"alpn_protocols": ["h2"], "tls_certificates": [certificate]},
    }
    chains = [
        {
            "transport_socket": {"name": "tls", "typed_config": shown},
            "filters": [{"name": "http", "typed_config": manager}],
        }
    ]
    endpoint = {"endpoint": {"address": _address(behind)}}
    return {
        "admin": {"address": _address("127.0.0.1:0")},
        "static_resources": {
            "listeners": [
                {
                    "name": "front",
                    "address": _address("127.0.0.1:0"),
                    "per_connection_buffer_limit_bytes": _BUFFER,
                    "filter_chains": chains,
                }
            ],
            "clusters": [
                {
                    "name": "behind",
                    "per_connection_buffer_limit_bytes": _BUFFER,
                    "load_assignment": {
                        "cluster_name": "behind",
                        "endpoints": [{"lb_endpoints": [endpoint]}],
                    },
                    "transport_socket": {
                        "name": "tls",
                        "typed_config": {"@type": f"{_TLS}UpstreamTlsContext"},
                    },
                }
            ],
        },
    }


def _address(text: str) -> dict[str, object]:
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
