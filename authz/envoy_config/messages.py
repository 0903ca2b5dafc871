"""Routes to the endpoints of MCP servers: there Envoy sends the service the body, which rules are about."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from typing import Final

from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteConfiguration,
    RouteMatch,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import (
    BufferSettings,
    CheckSettings,
    ExtAuthzPerRoute,
)

from authz.config.sections.rules import Mcp
from authz.core.rules.overriding import SESSION
from authz.envoy_config.document import packed

EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"
HEADERS: Final = ("content-type", "content-encoding", "mcp-method", "mcp-name", SESSION)
"""Headers of a request to an MCP server that the service reads beside the body."""


def message_routes(route: Route, extensions: dict[str, str], mcp: Mcp | None) -> list[Route]:
    """Return what stands before a route with an MCP server: one for each of its endpoints.

    Envoy holds a message back until it has all of it, and refuses one that is longer than it may be (413).

    Args:
        route: The route.
        extensions: What it tells the service about itself.
        mcp: The server; None where there is none.
    """
    return (
        [] if mcp is None else [_message_route(route, extensions, mcp, path) for path in mcp.paths]
    )


def longest(servers: Iterable[Mcp | None]) -> BufferSettings | None:
    """Return the setting of ext_authz itself for bodies; None where no server of the listener needs any.

    Envoy sends them as bytes only where the filter says so, and not its routes alone.
    """
    sizes = [mcp.max_body for mcp in servers if mcp is not None]
    return BufferSettings(max_request_bytes=max(sizes), pack_as_bytes=True) if sizes else None


def leave_other_bodies(routes: RouteConfiguration) -> None:
    """Have Envoy hold back no body on the routes that are not about messages."""
    for route in (route for host in routes.virtual_hosts for route in host.routes):
        packed_check = route.typed_per_filter_config.get(EXT_AUTHZ)
        check = None if packed_check is None else packed_check.unpack()
        if not isinstance(check, ExtAuthzPerRoute) or check.check_settings is None:
            continue
        if check.check_settings.with_request_body is None:
            settings = replace(check.check_settings, disable_request_body_buffering=True)
            route.typed_per_filter_config[EXT_AUTHZ] = packed(
                ExtAuthzPerRoute(check_settings=settings)
            )


def _message_route(route: Route, extensions: dict[str, str], mcp: Mcp, path: str) -> Route:
    found = deepcopy(route)
    body = BufferSettings(max_request_bytes=mcp.max_body, pack_as_bytes=True)
    settings = CheckSettings(context_extensions=extensions, with_request_body=body)
    check = packed(ExtAuthzPerRoute(check_settings=settings))
    found.typed_per_filter_config = {**route.typed_per_filter_config, EXT_AUTHZ: check}
    # By any method: what comes with another one than POST is refused if it has a body.
    found.match = RouteMatch(path=path)
    return found
