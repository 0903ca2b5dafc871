"""Envoy's two listeners, and the filters a request passes on its way to the agent and from it."""

from collections.abc import Sequence
from datetime import timedelta
from functools import reduce
from typing import Final

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import (
    HeaderMutation,
    HeaderMutationRemoveOnMatch,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    SchemeHeaderTransformation,
    TrafficDirection,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.listener.v3 import (
    AdditionalAddress,
    Filter,
    FilterChain,
    Listener,
)
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.extensions.filters.http.dynamic_forward_proxy.v3 import FilterConfig
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import (
    HeaderMutation as FilterOfHeaders,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerServerHeaderTransformation,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.type.matcher.v3 import (
    RegexMatcher,
    StringMatcher,
)

from authz.config.sections.rules import Mcp
from authz.core.address import TcpAddress
from authz.core.baggage import CARRIERS
from authz.core.request import Direction
from authz.doors.envoy.header_names import OWN_PREFIX
from authz.envoy_config.access_log import access_log
from authz.envoy_config.bodyless import bodyless_filter
from authz.envoy_config.checks import decision, http_filter
from authz.envoy_config.clusters import AUTHZ, BUFFER_BYTES, KEPT_ALIVE, address, dns_cache
from authz.envoy_config.connect import upgrade
from authz.envoy_config.cors import cors_filter
from authz.envoy_config.document import packed
from authz.envoy_config.edge_cache import (
    EDGE,
    EDGE_CACHE,
)
from authz.envoy_config.replies import local_replies
from authz.envoy_config.settings import SidecarSettings, must_be_ip, socket_address

HTTP: Final = "envoy.filters.network.http_connection_manager"
"""Name of the filter that reads requests."""

_IDLE: Final = timedelta(minutes=5)
"""Silence on a connection without requests, on a request that leads nowhere, and of a client that does not
read. Requests that go somewhere have limits of their own."""

_OTHER_FAMILY: Final = {"0.0.0.0": "::", "127.0.0.1": "::1"}  # noqa: S104 - rendered, not bound

_HEADERS_IN: Final = timedelta(seconds=10)
_MAX_HEADERS_KB: Final = 60
_MAX_HEADERS: Final = 100
_MORE_HOPS_THAN_FIT: Final = 100_000
"""Addresses of `x-forwarded-for` that Envoy passes over from the right: more than headers have room for."""
_MAX_STREAMS: Final = 100
_STREAM_WINDOW: Final = 64 * 1024

_HOST_OF_NOBODY: Final = "localhost"
"""What the app receives as the host of a request that names none."""

_NO_WEBSOCKET: Final = "(?i)" + reduce(
    lambda rest, letter: f"([^{letter}].*|{letter}{rest})?", reversed("websocket"), ".+"
)
"""Every protocol but WebSocket: that one does nothing if it is not switched to. RE2 cannot say "not"."""

_ENVOYS_PREFIX: Final = "x-envoy-"


def inbound_listener(
    settings: SidecarSettings,
    routes: RouteConfiguration,
    *,
    handles: bool,
    rules: bool,
    mcp: Mcp | None = None,
    cors: bool = False,
    decides: str = AUTHZ,
) -> Listener:
    """Return the listener for the callers of the agent.

    Args:
        settings: Where it listens.
        routes: Where requests may go.
        handles: Whether the agent receives references in `baggage`.
        rules: Whether the route has rules.
        mcp: The agent as MCP server; None where it is none.
        cors: Whether Envoy answers web pages of other origins.
        decides: Cluster that Checks go to.
    """
    manager = _connection_manager(
        Direction.INBOUND,
        routes,
        [
            *([cors_filter()] if cors else []),
            *decision(settings, routes, decides, rules=rules, servers=(mcp,)),
            *([bodyless_filter()] if settings.health_paths else []),
            _without_trailers(),
            _router(),
        ],
    )
    # Before anything else looks at the request, on every route: only we may say who is calling, and no
    # caller steers Envoy's timeouts, or speaks to the app in Envoy's name.
    manager.early_header_mutation_extensions = [
        _without(OWN_PREFIX, _ENVOYS_PREFIX, *_carriers(handles=handles))
    ]
    # Many frameworks read x_authz_subject and x-authz-subject as one name.
    assert manager.common_http_protocol_options is not None
    manager.common_http_protocol_options.headers_with_underscores_action = (
        HttpProtocolOptionsHeadersWithUnderscoresAction.DROP_HEADER
    )
    # A client of HTTP/1.0 need not name a host (RFC 9112 section 3.3), and the app expects one.
    assert manager.http_protocol_options is not None
    manager.http_protocol_options.default_host_for_http_10 = _HOST_OF_NOBODY
    if not settings.paths_as_sent:
        # Some apps read a path more freely than others: what the service sees is what they read.
        manager.normalize_path = True
        manager.merge_slashes = True
        manager.path_with_escaped_slashes_action = (
            HttpConnectionManagerPathWithEscapedSlashesAction.REJECT_REQUEST
        )
    manager.local_reply_config = local_replies(Direction.INBOUND, rules=rules)
    return _listener(Direction.INBOUND, settings, manager)


def egress_listener(
    settings: SidecarSettings,
    routes: RouteConfiguration,
    *,
    wildcards: bool,
    pushed: bool,
    handles: bool,
    rules: bool,
    servers: Sequence[Mcp | None] = (),
    decides: str = AUTHZ,
) -> Listener:
    """Return the listener for the agent's own calls: a forward proxy that originates TLS.

    Args:
        settings: Where it listens.
        routes: Where requests may go.
        wildcards: Whether some destinations are known only when a request names them.
        pushed: Whether Envoy holds the tokens of some destinations.
        handles: Whether the agent receives references in `baggage`.
        rules: Whether some route has rules.
        servers: The MCP servers among the destinations.
        decides: Cluster that Checks go to.
    """
    filters = decision(settings, routes, decides, rules=rules, servers=servers)
    if wildcards:
        filters.append(
            http_filter(
                "envoy.filters.http.dynamic_forward_proxy",
                FilterConfig(dns_cache_config=dns_cache()),
            )
        )
    manager = _connection_manager(
        Direction.EGRESS, routes, [*filters, _without_trailers(), _router()]
    )
    # What is between app, Envoy and service is none of the destination's business. Not a filter:
    # each one that Envoy builds for a request takes its time.
    manager.early_header_mutation_extensions = [
        _without(OWN_PREFIX, _ENVOYS_PREFIX, *_carriers(handles=handles))
    ]
    # Routes here are hosts, so the path is the destination's business and stays as it is.
    manager.normalize_path = False
    manager.path_with_escaped_slashes_action = (
        HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED
    )
    manager.strip_trailing_host_dot = True
    manager.upgrade_configs.append(upgrade())
    # The agent speaks plain HTTP to us and the destination TLS: it must see the scheme https.
    manager.scheme_header_transformation = SchemeHeaderTransformation(match_upstream=True)
    manager.local_reply_config = local_replies(Direction.EGRESS, rules=rules, pushed=pushed)
    return _listener(Direction.EGRESS, settings, manager)


def listen_on(listener: Listener, where: str, settings: SidecarSettings) -> None:
    """Have a listener take connections at an address, and at its like of the other family.

    Args:
        listener: The listener.
        where: Its address; IPv4, if it is to have another.
        settings: Whether there is IPv6.
    """
    listener.address = address(where)
    name = socket_address(where)
    if not isinstance(name, TcpAddress) or not settings.ipv6:
        return
    other = _OTHER_FAMILY.get(name.host)
    # A port that the operating system chooses would be another one.
    if other is None or name.port == 0:
        return
    listener.additional_addresses = [
        AdditionalAddress(address=address(str(TcpAddress(other, name.port))))
    ]
    # A pod may have no ::1. Nobody comes there then, and Envoy must start all the same.
    if other == "::1":
        listener.freebind = True


def _listener(
    direction: Direction, settings: SidecarSettings, manager: HttpConnectionManager
) -> Listener:
    where = settings.inbound_address if direction is Direction.INBOUND else settings.egress_address
    traffic = {
        Direction.INBOUND: TrafficDirection.INBOUND,
        Direction.EGRESS: TrafficDirection.OUTBOUND,
    }
    must_be_ip(f"{direction.value}_address", where)
    listener = Listener(
        name=direction.value,
        traffic_direction=traffic[direction],
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        per_connection_buffer_high_watermark_timeout=_IDLE,
        tcp_keepalive=KEPT_ALIVE,
        filter_chains=[
            FilterChain(
                filters=[
                    Filter(
                        name=HTTP,
                        typed_config=packed(manager),
                    )
                ]
            )
        ],
    )
    listen_on(listener, where, settings)
    return listener


def _connection_manager(
    direction: Direction, routes: RouteConfiguration, filters: list[HttpFilter]
) -> HttpConnectionManager:
    return HttpConnectionManager(
        stat_prefix=direction.value,
        route_config=routes,
        http_filters=filters,
        access_log=[
            access_log(
                direction.value, edge=EDGE if EDGE_CACHE in routes.typed_per_filter_config else None
            )
        ],
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=_IDLE, max_headers_count=_MAX_HEADERS
        ),
        http_protocol_options=Http1ProtocolOptions(
            # Proxies and health checks speak it to this day.
            accept_http_10=True,
            # An offer that a server may leave aside (RFC 9110 section 7.8); Envoy would refuse the request.
            ignore_http_11_upgrade=[StringMatcher(safe_regex=RegexMatcher(regex=_NO_WEBSOCKET))],
        ),
        http2_protocol_options=Http2ProtocolOptions(
            max_concurrent_streams=_MAX_STREAMS,
            initial_stream_window_size=_STREAM_WINDOW,
            # What all its streams may hold: bodies that wait, for a decision or for somebody to read
            # them, leave room for those of the others.
            initial_connection_window_size=_MAX_STREAMS * _STREAM_WINDOW,
        ),
        max_request_headers_kb=_MAX_HEADERS_KB,
        request_headers_timeout=_HEADERS_IN,
        stream_idle_timeout=_IDLE,
        # Bodies may stream for as long as they move.
        request_timeout=timedelta(),
        # A sidecar is no edge: what the gateway in front says of the client is passed on, and not believed.
        # No address in it counts, so no caller is "internal". An `internal_address_config`, even an empty
        # one, would have Envoy take private addresses for internal.
        use_remote_address=False,
        xff_num_trusted_hops=_MORE_HOPS_THAN_FIT,
        generate_request_id=True,
        preserve_external_request_id=True,
        server_header_transformation=HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
    )


def _carriers(*, handles: bool) -> tuple[str, ...]:
    """Return the headers that may fill the agent's baggage, or empty it, past the service.

    A caller could name a user in them, and a reference go out in them.
    """
    return CARRIERS if handles else ()


def _without_trailers() -> HttpFilter:
    """Return what takes all trailers of a request away: nobody looks at them, and each is a header to many.

    HTTP/1.1 loses its own in Envoy's codecs. Requests of gRPC have none; trailers of answers pass.
    """
    everything = HeaderMutationRemoveOnMatch(
        key_matcher=StringMatcher(safe_regex=RegexMatcher(regex=".*"))
    )
    mutations = Mutations(request_trailers_mutations=[HeaderMutation(remove_on_match=everything)])
    return http_filter("envoy.filters.http.header_mutation", FilterOfHeaders(mutations=mutations))


def _without(*prefixes: str) -> TypedExtensionConfig:
    """Return what takes the headers with these prefixes away before anything looks at a request."""
    removals = [
        HeaderMutation(
            remove_on_match=HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(prefix=prefix))
        )
        for prefix in prefixes
    ]
    return TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=packed(EarlyHeaderMutation(mutations=removals)),
    )


def _router() -> HttpFilter:
    return http_filter("envoy.filters.http.router", Router(suppress_envoy_headers=True))
