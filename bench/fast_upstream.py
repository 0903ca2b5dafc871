"""The fast upstream server: an Envoy that answers by itself, so that the Envoy in front of it is the limit.

It checks what `bench.upstream` checks: a request to `/agent` must bring a token (else 401) that is not the
user's (else 409).
"""

import json
from typing import Any

from bench.bootstraps import LISTENER
from bench.upstream import GUARDED

_HEADER = "authorization"


def bootstrap(user_authorization: str) -> str:
    """Return its configuration.

    Args:
        user_authorization: The value of `Authorization` that must not come through.
    """
    of_the_user = {"name": _HEADER, "string_match": {"exact": user_authorization}}
    missing = {"name": _HEADER, "present_match": False}
    routes = [
        _route(409, {"path": GUARDED, "headers": [of_the_user]}),
        _route(401, {"path": GUARDED, "headers": [missing]}),
        _route(200, {"prefix": "/"}),
    ]
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": "upstream",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    filters = [
        {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
    ]
    listener = {
        "name": LISTENER,
        "address": _free_port(),
        "filter_chains": [{"filters": filters}],
    }
    return json.dumps(
        {"admin": {"address": _free_port()}, "static_resources": {"listeners": [listener]}}
    )


def _route(status: int, match: dict[str, Any]) -> dict[str, Any]:
    body = {"inline_string": '{"value":"ok"}'}
    return {"match": match, "direct_response": {"status": status, "body": body}}


def _free_port() -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
