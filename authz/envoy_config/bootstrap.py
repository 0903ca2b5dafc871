"""`render`: the whole configuration of the Envoy beside an agent, as YAML; `render_document`: as plain data.

Needs the extra `render`. A running service never imports this: Envoy is configured before it starts.
"""

from typing import Any as Anything
from typing import Final

from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.config.overload.v3 import OverloadManager, ResourceMonitor
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections.v3 import (
    DownstreamConnectionsConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher

from authz.config import Config, compile_policy
from authz.config.consistency.route_checks import https_hosts
from authz.config.rendered import MARK, Rendered, Selection, answered_paths
from authz.envoy_config.administration import FAIL_HEALTH
from authz.envoy_config.clusters import (
    AUTHZ,
    address,
    app_cluster,
    authz_cluster,
    checks_cluster,
    destination_clusters,
)
from authz.envoy_config.connect import bootstrap_extension, connect_clusters, inner_listener
from authz.envoy_config.credentials import NODE
from authz.envoy_config.destinations import destinations
from authz.envoy_config.document import document, packed
from authz.envoy_config.https import https_chains, https_listener
from authz.envoy_config.interception import original_destination, take_redirected
from authz.envoy_config.listeners import HTTP, egress_listener, inbound_listener
from authz.envoy_config.settings import RenderError, SidecarSettings, Transparent
from authz.envoy_config.statistics import administration_cluster, statistics_listener
from authz.envoy_config.text import Shared, text
from authz.envoy_config.virtual_hosts import egress_routes, inbound_routes

_MAX_CONNECTIONS: Final = 10_000
"""Downstream connections of the whole process; those beyond are closed at once."""

_READABLE: Final = r"/(ready|clusters|listeners|stats|stats/prometheus)(\?.*)?"
"""Paths of the administration interface that only tell, with any query. The agent shares the loopback
interface, so it could otherwise read the configuration, turn on debug logs, or stop Envoy. The one path
beside them, `FAIL_HEALTH`, costs an agent that uses it its own connections."""

_FILTERS: Final = "egress-filters"


def render(config: Config, settings: SidecarSettings) -> str:
    """Return Envoy's bootstrap configuration for a configuration of the service, as YAML.

    Raises:
        RenderError: Configuration and settings do not go together.
    """
    return text(render_document(config, settings))


def render_document(config: Config, settings: SidecarSettings) -> dict[str, Anything]:
    """Return it as plain data, which `text` has as YAML or JSON.

    There is a listener for inbound requests if there is an inbound route, one for egress if there is an
    egress route with hosts, and one for statistics if the settings have an address for it.

    Raises:
        RenderError: Configuration and settings do not go together.
    """
    listeners, clusters = [], [authz_cluster(config, settings)]
    checks = checks_cluster(config, settings)
    clusters += [] if checks is None else [checks]
    decides = AUTHZ if checks is None else checks.name
    policy = compile_policy(config)
    inbound = _inbound_route(config, settings)
    if inbound is not None:
        repeatable = policy.inbound[inbound].may_repeat_at_edge
        repeated = repeatable and config.cache.edge.max_ttl > 0
        asked = answered_paths(config, policy.inbound[inbound])
        ruled = policy.inbound[inbound].rules is not None
        written = config.inbound[inbound]
        routes = inbound_routes(
            inbound,
            settings,
            repeated=repeated,
            ruled=ruled,
            asked=asked,
            mcp=written.mcp,
            cors=written.cors,
        )
        listeners.append(
            inbound_listener(
                settings,
                routes,
                handles=policy.gives_handles,
                rules=ruled,
                mcp=written.mcp,
                cors=written.cors is not None,
                decides=decides,
            )
        )
        clusters.append(app_cluster(settings))
    targets = destinations(config, policy, settings)
    pushed = any(target.pushed for target in targets)
    if targets:
        wildcards = any(target.is_wildcard for target in targets)
        hosts = https_hosts(config.egress) if config.https is not None else []
        egress = egress_listener(
            settings,
            egress_routes(targets, hosts, settings),
            wildcards=wildcards,
            pushed=pushed,
            handles=policy.gives_handles,
            rules=any(target.ruled for target in targets),
            servers=[target.mcp for target in targets],
            decides=decides,
        )
        if config.https is not None and settings.egress_hosts:
            raise RenderError("egress_hosts: the service has https, with its own hosts only")
        ended = https_chains(egress, hosts, cluster=AUTHZ)
        inner = inner_listener(egress, ended)
        if settings.transparent is not None:
            listeners.append(take_redirected(egress, settings, targets, ended))
        else:
            listeners.append(egress)
            if ended:
                listeners.append(https_listener(egress, ended, settings))
        listeners.append(inner)
        clusters += destination_clusters(targets, settings)
        clusters += connect_clusters(targets)
        if settings.transparent is Transparent.PASS_TLS:
            clusters.append(original_destination())
    elif settings.transparent is not None:
        raise RenderError("transparent: there is no egress route with hosts")
    if not listeners:
        raise RenderError("there is nothing to listen for: no inbound route, no egress host")
    if settings.statistics_address is not None:
        listeners.append(statistics_listener(settings, settings.statistics_address))
        clusters.append(administration_cluster(settings))
    named = settings.authz_tls is not None and settings.authz_tls.secrets_folder is not None
    bootstrap = Bootstrap(
        # Envoy takes secrets only under a name.
        node=NODE if pushed or config.https is not None or named else None,
        admin=Admin(
            address=address(settings.admin_address),
            allow_paths=[
                StringMatcher(safe_regex=RegexMatcher(regex=_READABLE)),
                StringMatcher(exact=FAIL_HEALTH),
            ],
        ),
        overload_manager=OverloadManager(
            resource_monitors=[
                ResourceMonitor(
                    name="envoy.resource_monitors.global_downstream_max_connections",
                    typed_config=packed(
                        DownstreamConnectionsConfig(
                            max_active_downstream_connections=_MAX_CONNECTIONS
                        )
                    ),
                )
            ]
        ),
        bootstrap_extensions=[bootstrap_extension()] if targets else [],
        static_resources=BootstrapStaticResources(listeners=listeners, clusters=clusters),
    )
    data: dict[str, Anything] = document(bootstrap)
    selection = Selection(settings.inbound_route or "", tuple(settings.egress_hosts))
    _mark(data, Rendered(config, policy).mark(selection))
    _share_filters(data["static_resources"]["listeners"])
    return data


def _mark(data: dict[str, Anything], mark: str) -> None:
    """Let Envoy say in each Check, and on each stream of secrets, what it was rendered from."""
    if "node" in data:
        data["node"]["metadata"] = {MARK: mark}
    pending: list[Anything] = [data["static_resources"]["listeners"]]
    while pending:
        value = pending.pop()
        if isinstance(value, dict) and "context_extensions" in value:
            value["context_extensions"][MARK] = mark
        elif isinstance(value, dict | list):
            pending += value.values() if isinstance(value, dict) else value


def _share_filters(listeners: list[dict[str, Anything]]) -> None:
    """Let the chains of egress, whose filters are the same, have them once in the text, and by name then.

    What follows TLS or CONNECT is what plain HTTP meets, and it is long.
    """
    chains = [
        chain
        for listener in listeners
        for chain in (*listener["filter_chains"], listener.get("default_filter_chain"))
        if chain is not None and chain["filters"][0]["name"] == HTTP
    ]
    for index, chain in enumerate(chains):
        same = [other for other in chains[index:] if other["filters"] == chain["filters"]]
        if len(same) > 1:
            filters = Shared(_FILTERS, chain["filters"])
            for other in same:
                other["filters"] = filters
            return


def _inbound_route(config: Config, settings: SidecarSettings) -> str | None:
    name = settings.inbound_route or config.listen.inbound_route
    if name is not None:
        if name not in config.inbound:
            raise RenderError(f"inbound_route: {name!r} is no inbound route")
        return name
    if len(config.inbound) > 1:
        names = ", ".join(config.inbound)
        raise RenderError(f"inbound_route: is missing, and there are several: {names}")
    return next(iter(config.inbound), None)
