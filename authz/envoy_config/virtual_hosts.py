"""Which request goes where: Envoy's routes, and what each tells the service about itself."""

from collections.abc import Collection, Iterable, Sequence
from copy import deepcopy
from datetime import timedelta
from typing import Final

from envoy_data_plane.envoy.config.route.v3 import (
    FilterConfig,
    HeaderMatcher,
    RetryPolicy,
    Route,
    RouteAction,
    RouteActionUpgradeConfig,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import (
    CheckSettings,
    ExtAuthzPerRoute,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Any

from authz.config.sections.cors import Cors
from authz.config.sections.rules import Mcp
from authz.core.exchange import Flow
from authz.core.request import Direction
from authz.core.rules.overriding import OTHER_METHODS, OTHER_PATHS, OTHER_VARIABLES, OVERRIDING
from authz.envoy_config.bodyless import without_body
from authz.envoy_config.clusters import APP
from authz.envoy_config.connect import is_connect, to_be_read, tunnel
from authz.envoy_config.cors import with_cors, without_cors
from authz.envoy_config.counterpart import NOT_CONFIGURED
from authz.envoy_config.credentials import route_metadata
from authz.envoy_config.destinations import Destination
from authz.envoy_config.document import packed
from authz.envoy_config.edge_cache import (
    EDGE,
    EDGE_EXTENSION,
    EDGE_RULES_EXTENSION,
    RULED,
    route_facts,
    with_script,
    without_script,
)
from authz.envoy_config.messages import EXT_AUTHZ, message_routes
from authz.envoy_config.replies import (
    REASON_HEADER,
    refused_methods,
    refused_tunnel,
    unknown_destination,
)
from authz.envoy_config.settings import SidecarSettings

_UNLIMITED: Final = timedelta()
"""No limit to a whole request: answers stream. Silence has its limit."""

_UNREAD: Final = timedelta(minutes=5)
"""How long the last of an answer waits for a client that does not read."""

_WEBSOCKET: Final = "websocket"

_HEALTH_TIMEOUT: Final = timedelta(seconds=5)

_NOTHING_TAKEN: Final = "refused-stream"
"""The other side says that it has not looked at the request (RFC 9113 section 8.7)."""
_NOTHING_ANSWERED: Final = "reset"
"""The connection ended, or there was none, before an answer began. The request may have had its effect."""

_LOOPBACK: Final = (
    r"(?i)(.*\.)?localhost\.?(:.*)?",
    r"(?i)localhost[46]?(\.localdomain[46]?)?\.?(:.*)?",
    r"(?i)ip6-(localhost|loopback)\.?(:.*)?",
    r"127\..*",
    # Forms that name resolution reads as well: 0, 2130706433, 127.1, 0x7f.1, 0177.0.0.1.
    r"(?i)0[0-9x.].*",
    r"[0-9]+(\.[0-9]+)?(\.[0-9]+)?\.?(:.*)?",
    r"\[[0:]+1?\].*",
    r"(?i)\[[0:]*:ffff:(0|7f|127).*",
)
"""Authorities that name loopback, or an address in a form that can hide it. RE2 takes only short ones."""


def inbound_routes(
    route: str,
    settings: SidecarSettings,
    *,
    repeated: bool = False,
    ruled: bool = False,
    asked: Sequence[str] = (),
    mcp: Mcp | None = None,
    cors: Cors | None = None,
) -> RouteConfiguration:
    """Return the routes to the agent: all need a decision, but health checks.

    Args:
        route: The inbound route.
        settings: On which paths GET, HEAD and OPTIONS need no decision, and how long requests may be silent.
        repeated: Whether Envoy may repeat decisions.
        ruled: Whether the route has rules.
        asked: Paths at which it may repeat none: the service answers to them itself.
        mcp: The agent as MCP server; None where it is none.
        cors: Which web pages may call the agent; None where Envoy has no part in it.
    """
    action = _to(APP, settings.inbound_idle_timeout)
    if Direction.INBOUND in settings.websockets:
        action.upgrade_configs = [RouteActionUpgradeConfig(upgrade_type=_WEBSOCKET)]
    decided = Route(
        name=route,
        match=RouteMatch(prefix="/"),
        route=action,
        typed_per_filter_config=_told(Direction.INBOUND, route)
        | (without_script() if repeated else {}),
    )
    messages = message_routes(decided, _extensions(Direction.INBOUND, route), mcp)
    if not repeated:
        routes = _with_second_try(decided)
    elif ruled:
        # Envoy drops headers with underscores here.
        names = (*OTHER_METHODS, *OTHER_PATHS, *OTHER_VARIABLES)
        routes = _with_rules(decided, Direction.INBOUND, route, None, names)
    else:
        routes = _with_second_try(_repeated(decided, Direction.INBOUND, route, None))
    return RouteConfiguration(
        name="inbound",
        virtual_hosts=[
            VirtualHost(
                name="app",
                domains=["*"],
                routes=[
                    _refused(repeated=repeated),
                    *(_metadata_route(route, path, cors) for path in asked),
                    *(_health_route(path, repeated=repeated) for path in settings.health_paths),
                    *messages,
                    *routes,
                ],
                typed_per_filter_config=with_cors(cors) if cors else {},
            )
        ],
        response_headers_to_remove=[REASON_HEADER],
        typed_per_filter_config=with_script() if repeated else {},
    )


def egress_routes(
    targets: Sequence[Destination], ended: Collection[str], settings: SidecarSettings
) -> RouteConfiguration:
    """Return the routes to the destinations, and a dead end for everything else.

    Args:
        targets: The destinations.
        ended: Names for which Envoy ends TLS that the agent starts.
        settings: How long requests may be silent, and whether they may become WebSockets.
    """
    some_repeated = any(target.repeated for target in targets)
    hosts = [_destination_host(target, ended, settings) for target in targets]
    if not any("*" in host.domains for host in hosts):
        hosts.append(_dead_end())
    if some_repeated:
        for route in (route for host in hosts for route in host.routes):
            if route.metadata is None or EDGE not in route.metadata.filter_metadata:
                route.typed_per_filter_config.update(without_script())
    return RouteConfiguration(
        name="egress",
        virtual_hosts=hosts,
        # The second Envoy adds by itself, and would say "http", of the agent's hop to it.
        request_headers_to_remove=["proxy-authorization", "x-forwarded-proto"],
        response_headers_to_remove=[REASON_HEADER],
        typed_per_filter_config=with_script() if some_repeated else {},
    )


def _refused(*, repeated: bool = False) -> Route:
    """Return what each host has first: a method that nobody may use is not worth a decision."""
    route = refused_methods()
    route.typed_per_filter_config = _unasked() | (without_script() if repeated else {})
    return route


def _only_reading() -> HeaderMatcher:
    """Return what matches the methods that change nothing (RFC 9110 section 9.2.1)."""
    matched = StringMatcher(safe_regex=RegexMatcher(regex="GET|HEAD|OPTIONS"))
    return HeaderMatcher(name=":method", string_match=matched)


def _with_second_try(route: Route) -> list[Route]:
    """Return a route as two, for what may be sent a second time after nothing was answered.

    A request that only reads may be, wherever it broke off: no effect happens twice. Any other may where the
    other side has not taken it; a proxy must not guess that (RFC 9110 section 9.2.2).
    """
    assert route.match is not None
    assert route.route is not None
    reading = deepcopy(route)
    assert reading.match is not None
    # With one of these headers it may be something else to the other side.
    names = (*OTHER_METHODS, *(name.replace("-", "_") for name in OTHER_METHODS))
    overrides = [HeaderMatcher(name=name, present_match=False) for name in names]
    reading.match.headers = [_only_reading(), *overrides]
    # A body, which few of them have, is not kept for it: then there is no second try.
    reading.request_body_buffer_limit = 0
    _try_again(reading, _NOTHING_ANSWERED)
    _try_again(route, _NOTHING_TAKEN)
    return [reading, route]


def _repeated(
    route: Route, direction: Direction, name: str, flow: Flow | None, *, ruled: bool = False
) -> Route:
    """Return a route whose decisions Envoy may repeat: one on which the service is asked otherwise."""
    found = deepcopy(route)
    found.metadata = route_facts(name, flow)
    found.typed_per_filter_config = _told(direction, name, repeated=True, ruled=ruled)
    if ruled:
        found.name += RULED
    return found


def _with_rules(
    route: Route, direction: Direction, name: str, flow: Flow | None, overriding: Iterable[str]
) -> list[Route]:
    """Return a route with rules as three: decisions are repeated, but not of requests that rules refuse.

    The edge cache tells requests of such a route apart by method and path, and not by these headers.
    """
    routes = _with_second_try(_repeated(route, direction, name, flow, ruled=True))
    for each in routes:
        assert each.match is not None
        known = {matcher.name for matcher in each.match.headers}
        each.match.headers += [
            HeaderMatcher(name=header, present_match=False)
            for header in overriding
            if header not in known
        ]
    _try_again(route, _NOTHING_TAKEN)
    return [*routes, route]


def _try_again(route: Route, when: str) -> None:
    assert route.route is not None
    route.route.retry_policy = RetryPolicy(retry_on=when, num_retries=1)


def _health_route(path: str, *, repeated: bool) -> Route:
    route = Route(
        name=f"health{path}",
        # Nothing but this very path, and only to be read.
        match=RouteMatch(path=path, headers=[_only_reading()]),
        route=RouteAction(cluster=APP, timeout=_HEALTH_TIMEOUT),
        # Nobody has looked at them here, so the app must not take them for verified, nor hand them on.
        request_headers_to_remove=["authorization", "baggage", *OTHER_PATHS, *OTHER_METHODS],
        typed_per_filter_config=(
            _unasked() | without_body() | (without_script() if repeated else {})
        ),
    )
    _try_again(route, _NOTHING_ANSWERED)
    return route


def _metadata_route(route: str, path: str, cors: Cors | None) -> Route:
    """Return the route of a path that the service answers to itself, whatever token comes with it.

    Should it allow the request instead, the app answers.
    """
    return Route(
        name=f"metadata{path}",
        match=RouteMatch(path=path, headers=[_only_reading()]),
        route=RouteAction(cluster=APP, timeout=_HEALTH_TIMEOUT),
        typed_per_filter_config=_told(Direction.INBOUND, route)
        | without_script()
        | (without_cors() if cors else {}),
    )


def _destination_host(
    target: Destination, ended: Collection[str], settings: SidecarSettings
) -> VirtualHost:
    action = _to(target.cluster, settings.egress_idle_timeout)
    if not target.is_wildcard:
        # However the request writes it, port 80 included: that is the proxy's side of the call.
        action.host_rewrite_literal = target.authority
    route = Route(
        name=target.route,
        match=RouteMatch(prefix="/"),
        route=action,
        typed_per_filter_config=_told(Direction.EGRESS, target.route),
    )
    if target.repeated and not target.ruled:
        route = _repeated(route, Direction.EGRESS, target.route, target.flow)
    if target.pushed:
        # The cluster injects the token, or refuses: there is nothing left to ask.
        route.typed_per_filter_config = _unasked()
        route.metadata = route_metadata(target.route)
        route.request_headers_to_remove = list(target.removes)
    messages = message_routes(route, _extensions(Direction.EGRESS, target.route), target.mcp)
    decided = _with_second_try(deepcopy(route))
    if target.repeated and target.ruled:
        decided = _with_rules(
            deepcopy(route), Direction.EGRESS, target.route, target.flow, sorted(OVERRIDING)
        )
    routes = [*_connections(target, ended), *messages, *decided]
    if Direction.EGRESS in settings.websockets:
        routes.insert(0, _websocket(route, target))
    routes = [_refused(), *(_loopback() if target.spares_loopback else []), *routes]
    return VirtualHost(name=target.authority, domains=list(target.domains), routes=routes)


def _to(cluster: str, idle: float) -> RouteAction:
    return RouteAction(
        cluster=cluster,
        timeout=_UNLIMITED,
        idle_timeout=timedelta(seconds=idle),
        flush_timeout=_UNREAD,
    )


def _websocket(route: Route, target: Destination) -> Route:
    """Return a destination's route for a request that is to become a WebSocket."""
    found = deepcopy(route)
    matched = StringMatcher(exact=_WEBSOCKET, ignore_case=True)
    found.match = RouteMatch(
        prefix="/", headers=[HeaderMatcher(name="upgrade", string_match=matched)]
    )
    assert found.route is not None
    found.route.cluster = target.websocket_cluster
    found.route.upgrade_configs = [RouteActionUpgradeConfig(upgrade_type=_WEBSOCKET)]
    return found


def _connections(target: Destination, ended: Collection[str]) -> list[Route]:
    """Return the routes of CONNECT to a destination: no such request gets any further.

    What Envoy reads is asked about inside. The service has its say on everything else, and is on record.
    """
    read = to_be_read(target, ended)
    unread = tunnel(target) if target.tunnel else refused_tunnel(is_connect())
    unread.typed_per_filter_config = _told(Direction.EGRESS, target.route)
    if read is None:
        return [unread]
    read.typed_per_filter_config = _unasked()
    return [read, unread]


def _loopback() -> list[Route]:
    """Return the dead ends for requests that name loopback."""
    matchers = [
        HeaderMatcher(
            name=":authority", string_match=StringMatcher(safe_regex=RegexMatcher(regex=regex))
        )
        for regex in _LOOPBACK
    ]
    routes = [
        unknown_destination(RouteMatch(prefix="/", headers=[matcher])) for matcher in matchers
    ]
    for route in routes:
        route.typed_per_filter_config = _unasked()
    return routes


def _dead_end() -> VirtualHost:
    """Return the host of all that is not configured: the service denies it, and is on record.

    Should it allow the request by mistake, there is still nowhere to go.
    """
    routes = [unknown_destination(match) for match in (is_connect(), RouteMatch(prefix="/"))]
    for route in routes:
        route.typed_per_filter_config = _told(Direction.EGRESS)
    return VirtualHost(name=NOT_CONFIGURED, domains=["*"], routes=[_refused(), *routes])


def _unasked() -> dict[str, Any]:
    """Return what a route has on which the service is not asked."""
    return {EXT_AUTHZ: packed(FilterConfig(disabled=True))}


def _told(
    direction: Direction,
    route: str | None = None,
    *,
    repeated: bool = False,
    ruled: bool = False,
) -> dict[str, Any]:
    """Return what a route tells the service; it alone decides which rules apply."""
    extensions = _extensions(direction, route)
    if repeated:
        extensions |= EDGE_EXTENSION | (EDGE_RULES_EXTENSION if ruled else {})
    settings = CheckSettings(context_extensions=extensions)
    return {EXT_AUTHZ: packed(ExtAuthzPerRoute(check_settings=settings))}


def _extensions(direction: Direction, route: str | None) -> dict[str, str]:
    return {"authz.direction": direction.value} | ({} if route is None else {"authz.route": route})
