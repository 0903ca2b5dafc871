"""A filter that refuses every request with a body, on the routes that ask for it: those nobody decides on.

An app that leaves a body unread takes it for its next request on that connection, and with it whatever
headers it brings. Where no Check is made a body is therefore refused, before the app receives the request.
"""

from typing import Final

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua, LuaPerRoute
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.google.protobuf import Any

from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.doors.problem import describe
from authz.envoy_config.document import packed

BODYLESS: Final = "authz.bodyless"

_REFUSE: Final = "refuse"
_DETAIL: Final = "Requests to this path have no body. Send none."

_SCRIPT: Final = """\
-- Not a route's match: no header that Envoy keeps needs to say that there is a body.
function envoy_on_request(request)
  local length = request:headers():get("content-length")
  if length == nil or length == "0" then
    -- A body of no bytes, or trailers alone, would have an end for the app to leave unread.
    if request:body() == nil and request:trailers() == nil then return end
  end
  request:respond({%s}, [==[%s]==])
end
"""


def bodyless_filter() -> HttpFilter:
    """Return the filter. It is off, and costs nothing, where a route does not ask for it."""
    return HttpFilter(
        name=BODYLESS,
        typed_config=packed(Lua(source_codes={_REFUSE: DataSource(inline_string=_script())})),
        disabled=True,
    )


def without_body() -> dict[str, Any]:
    """Return what a route has that takes no body."""
    return {BODYLESS: packed(LuaPerRoute(name=_REFUSE))}


def _script() -> str:
    problem = describe(Deny(Reason.REQUEST_TOO_LARGE), detail=_DETAIL)
    headers = ((":status", str(problem.http_status)), *problem.headers)
    return _SCRIPT % (", ".join(f'["{name}"] = "{value}"' for name, value in headers), problem.body)
