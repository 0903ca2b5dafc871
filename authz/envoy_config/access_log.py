"""What Envoy writes about each request: one JSON line to standard output, decision included.

No header of the request is written but those named here, and no query: either may hold a token.
"""

import json
from collections.abc import Mapping
from typing import Final

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.core.v3 import SubstitutionFormatString
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.google.protobuf import Struct

from authz.envoy_config.credentials import METADATA
from authz.envoy_config.document import packed
from authz.envoy_config.replies import REASON_HEADER

_CHECK: Final = "envoy.filters.http.ext_authz"
_DECISION: Final = f"%DYNAMIC_METADATA({_CHECK}:{{}})%"


def _first(*operators: tuple[str, str]) -> str:
    """Return the format for the first of several values that there is."""
    named = [{"command": command, "param": parameter} for command, parameter in operators]
    return f"%COALESCE({json.dumps({'operators': named})})%"


_FIELDS: Final[Mapping[str, str]] = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ)%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "decision": _DECISION.format("decision"),
    # Of a denial, else of an answer that Envoy gave by itself.
    "reason": _first(("DYNAMIC_METADATA", f"{_CHECK}:reason"), ("RESP", REASON_HEADER)),
    "route": _DECISION.format("route"),
    "rule": _DECISION.format("rule"),
    "flow": _DECISION.format("flow"),
    "pushed": f"%METADATA(ROUTE:{METADATA}:route)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "upstream": "%UPSTREAM_CLUSTER%",
    "duration_ms": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}

_CONNECTION_FIELDS: Final[Mapping[str, str]] = {
    "time": "%START_TIME%",
    "tls_name": "%REQUESTED_SERVER_NAME%",
    "destination": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "details": "%CONNECTION_TERMINATION_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "upstream": "%UPSTREAM_CLUSTER%",
    "duration_ms": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}


def access_log(direction: str, *, edge: str | None = None) -> AccessLog:
    """Return the log of one listener.

    Args:
        direction: Tells its lines from the other's.
        edge: Metadata of the edge cache, if there is one. A line then tells the decision, whoever made it,
            and in `edge` the one that was repeated.
    """
    fields = {"direction": direction, **_FIELDS}
    if edge is not None:
        repeated = ("DYNAMIC_METADATA", f"{edge}:decision")
        fields["decision"] = _first(("DYNAMIC_METADATA", f"{_CHECK}:decision"), repeated)
        for name in ("route", "flow"):
            told = ("DYNAMIC_METADATA", f"{_CHECK}:{name}")
            fields[name] = _first(told, ("METADATA", f"ROUTE:{edge}:{name}"))
        fields["rule"] = _first(
            ("DYNAMIC_METADATA", f"{_CHECK}:rule"), ("DYNAMIC_METADATA", f"{edge}:rule")
        )
        fields["edge"] = "%{}({})%".format(*repeated)
    return _written(fields)


def connection_log(**facts: str) -> AccessLog:
    """Return the log of connections whose requests Envoy does not see, one line each.

    Args:
        facts: Further fields, which are the same in each line.
    """
    return _written({"direction": "egress", **_CONNECTION_FIELDS, **facts})


def _written(fields: Mapping[str, str]) -> AccessLog:
    return AccessLog(
        name="envoy.access_loggers.stdout",
        typed_config=packed(
            StdoutAccessLog(
                log_format=SubstitutionFormatString(
                    json_format=Struct.from_dict(dict(fields)), omit_empty_values=True
                )
            )
        ),
    )
