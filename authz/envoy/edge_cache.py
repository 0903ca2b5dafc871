"""What Envoy's configuration says of the edge cache: its two filters, its script, and what it is told.

The cache itself is `edge_cache.lua`, which Envoy runs. What an answer says to it is in `ext_authz`.
"""

from importlib.resources import files
from typing import Final

from envoy_data_plane.envoy.config.core.v3 import DataSource, Metadata
from envoy_data_plane.envoy.config.route.v3 import FilterConfig
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua, LuaPerRoute
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import (
    MetadataMatcher,
    MetadataMatcherPathSegment,
    StringMatcher,
    ValueMatcher,
)
from envoy_data_plane.google.protobuf import Any, Struct

from authz.core.exchange import Flow
from authz.envoy.ext_authz import EDGE_VERSION

EDGE_CACHE: Final = "authz.edge_cache"
"""Name of both filters, by which Envoy finds the script for them."""

EDGE_EXTENSION: Final = {"authz.edge": EDGE_VERSION}
"""How a route tells the service that its answers may be repeated."""

EDGE: Final = "authz.edge"
"""Dynamic metadata of the script."""


def script() -> str:
    """Return the program, as it is shipped."""
    return files(__package__).joinpath("edge_cache.lua").read_text("utf-8")


def edge_filter() -> HttpFilter:
    """Return the filter that stands before ext_authz and, once more, after it.

    It has no script of its own: two filters with one script each would have two memories.
    """
    # A route is chosen before; the headers that an answer sets cannot change where a request goes.
    return HttpFilter(name=EDGE_CACHE, typed_config=Any.pack(Lua(clear_route_cache=False)))


def with_script() -> dict[str, Any]:
    """Return what a route configuration says to the filters: one script, and so one memory."""
    source = DataSource(inline_string=script())
    return {EDGE_CACHE: Any.pack(LuaPerRoute(source_code=source))}


def without_script() -> dict[str, Any]:
    """Return what a route says to the filters when they have nothing to do on it."""
    # The filter is not even built for the request, which costs less than one that does nothing.
    return {EDGE_CACHE: Any.pack(FilterConfig(disabled=True))}


def route_facts(route: str, flow: Flow | None) -> Metadata:
    """Return what the service says of a route in each answer, for the log line of a repeated one."""
    facts = {"route": route, **({"flow": flow.value} if flow is not None else {})}
    return Metadata(filter_metadata={EDGE: Struct.from_dict(facts)})


def unless_repeated() -> MetadataMatcher:
    """Return when ext_authz asks: always, but for a request that the script has answered.

    A client cannot set dynamic metadata. Where there is none, ext_authz asks.
    """
    return MetadataMatcher(
        filter=EDGE,
        path=[MetadataMatcherPathSegment(key="decision")],
        value=ValueMatcher(string_match=StringMatcher(exact="allow")),
        invert=True,
    )
