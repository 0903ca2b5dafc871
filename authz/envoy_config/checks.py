"""The filters that decide on a request: ext_authz, and the edge cache around it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from betterproto2 import Message
from envoy_data_plane.envoy.config.core.v3 import ApiVersion, GrpcService, GrpcServiceEnvoyGrpc
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import BufferSettings, ExtAuthz
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import (
    ListStringMatcher,
    MetadataMatcher,
    RegexMatcher,
    StringMatcher,
)
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode

from authz.config.sections.rules import Mcp
from authz.core.rules.overriding import OTHER_METHODS, OTHER_PATHS, OTHER_VARIABLES, UNLIKE
from authz.doors.envoy.header_names import OWN_PREFIX
from authz.envoy_config.document import packed
from authz.envoy_config.edge_cache import (
    EDGE_CACHE,
    asking_filter,
    learning_filter,
    unless_repeated,
)
from authz.envoy_config.messages import EXT_AUTHZ, HEADERS, leave_other_bodies, longest
from authz.envoy_config.settings import SidecarSettings

_ASKED_ABOUT: Final = ("authorization", "baggage", "traceparent", "x-request-id")
"""Request headers that the service reads beside its own. It is not shown the others."""


def decision(
    settings: SidecarSettings,
    routes: RouteConfiguration,
    decides: str,
    *,
    rules: bool,
    servers: Sequence[Mcp | None],
) -> list[HttpFilter]:
    """Return the filters that decide: ext_authz and, where a route may use it, the edge cache around it.

    Args:
        settings: How long a Check may take.
        routes: The listener's.
        decides: Cluster that Checks go to.
        rules: Whether some route has rules.
        servers: MCP servers behind the listener, whose messages the service reads.
    """
    repeated = EDGE_CACHE in routes.typed_per_filter_config
    bodies = longest(servers)
    if bodies is not None:
        leave_other_bodies(routes)
    when = unless_repeated() if repeated else None
    check = _ext_authz(settings, decides, when, rules=rules, bodies=bodies)
    return [asking_filter(), check, learning_filter()] if repeated else [check]


def http_filter(name: str, config: Message) -> HttpFilter:
    """Return a filter."""
    return HttpFilter(name=name, typed_config=packed(config))


def _ext_authz(
    settings: SidecarSettings,
    decides: str,
    when: MetadataMatcher | None,
    *,
    rules: bool,
    bodies: BufferSettings | None,
) -> HttpFilter:
    return http_filter(
        EXT_AUTHZ,
        ExtAuthz(
            transport_api_version=ApiVersion.V3,
            grpc_service=GrpcService(
                envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=decides),
                timeout=timedelta(seconds=settings.authz_timeout),
            ),
            # Not Envoy's 403: no decision was made, and a client may try again.
            status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),
            allowed_headers=ListStringMatcher(
                patterns=[
                    *(StringMatcher(exact=name) for name in _ASKED_ABOUT),
                    StringMatcher(prefix=OWN_PREFIX),
                    *(_about_requests() if rules else []),
                ]
            ),
            validate_mutations=True,
            filter_enabled_metadata=when,
            with_request_body=bodies,
        ),
    )


def _about_requests() -> list[StringMatcher]:
    """Return what matches the headers that rules ask about, in each spelling that counts."""
    # One expression of all would be longer than Envoy takes.
    overriding = [
        "|".join(name.replace("-", "[-_]") for name in names)
        for names in (OTHER_METHODS, OTHER_PATHS, OTHER_VARIABLES)
    ]
    return [
        *(StringMatcher(safe_regex=RegexMatcher(regex=regex)) for regex in overriding),
        *(StringMatcher(exact=name) for name in (*HEADERS, *UNLIKE)),
    ]
