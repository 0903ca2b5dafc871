"""What Envoy writes about each request: one JSON line to standard output, decision included.

No header of the request is written but those named here, and no query: either may hold a token.
"""

from collections.abc import Mapping
from typing import Final

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.core.v3 import SubstitutionFormatString
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.google.protobuf import Any, Struct

_DECISION: Final = "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:{})%"

_FIELDS: Final[Mapping[str, str]] = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ)%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "decision": _DECISION.format("decision"),
    "reason": _DECISION.format("reason"),
    "route": _DECISION.format("route"),
    "flow": _DECISION.format("flow"),
    "request_id": "%REQ(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "upstream": "%UPSTREAM_CLUSTER%",
    "duration_ms": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}


def access_log(direction: str) -> AccessLog:
    """Return the log of one listener; `direction` tells its lines from the other's."""
    fields = {"direction": direction, **_FIELDS}
    return AccessLog(
        name="envoy.access_loggers.stdout",
        typed_config=Any.pack(
            StdoutAccessLog(
                log_format=SubstitutionFormatString(
                    json_format=Struct.from_dict(fields), omit_empty_values=True
                )
            )
        ),
    )
