"""Envoy's configurations: what `authz envoy` renders, with the few changes that measuring needs.

The changes are the same for every row that is compared with another one; see README.md.
"""

import json
from functools import lru_cache
from typing import Any, Final

import yaml

from authz.config.reading.document import parse
from authz.envoy_config.bootstrap import render
from authz.envoy_config.clusters import AUTHZ
from authz.envoy_config.connect import INSIDE
from authz.envoy_config.settings import SidecarSettings, Upstream

LISTENER: Final = "egress"
ROUTER: Final = "envoy.filters.http.router"
_CODEC: Final = "envoy.filters.http.upstream_codec"
_OURS: Final = (
    "typed_per_filter_config", "metadata", "request_headers_to_remove", "response_headers_to_remove",
)  # fmt: skip
"""Keys of routes, hosts and their table."""
_PROTOCOL: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


class Bootstrap:
    """One Envoy's configuration, changed in place.

    Args:
        config: The service's configuration, as JSON or YAML, without inbound routes.
        authz_address: Where the service is; None for what the configuration says.
        upstream: `host:port` of the upstream server, plain HTTP.
    """

    def __init__(self, config: str, *, authz_address: str | None, upstream: str) -> None:
        self._content: dict[str, Any] = json.loads(_rendered(config, authz_address, upstream))
        self.manager.pop("access_log", None)
        if authz_address is not None:
            # Another server need not have gRPC's health service.
            for cluster in self._clusters():
                if cluster["name"] == AUTHZ:
                    cluster.pop("health_checks", None)

    def without_us(self) -> None:
        """Leave Envoy alone: the router, one route for each host, the destinations' clusters."""
        manager = self.manager
        manager["http_filters"] = [f for f in manager["http_filters"] if f["name"] == ROUTER]
        manager.pop("local_reply_config", None)
        for ours in ("upgrade_configs", "early_header_mutation_extensions"):
            manager.pop(ours, None)
        table = manager["route_config"]
        hosts = table["virtual_hosts"]
        for host in hosts:
            # The last one takes every request.
            host["routes"] = host["routes"][-1:]
        for place in (table, *hosts, *(route for host in hosts for route in host["routes"])):
            for ours in _OURS:
                place.pop(ours, None)
        self._content.pop("bootstrap_extensions", None)
        resources = self._content["static_resources"]
        resources["listeners"] = [one for one in resources["listeners"] if one["name"] == LISTENER]
        resources["clusters"] = [
            c for c in resources["clusters"] if c["name"] not in (AUTHZ, INSIDE)
        ]
        for cluster in self._clusters():
            _take_injector(cluster)

    def answer_directly(self, host: str) -> None:
        """Let the routes answer by themselves, without an upstream server: the hardest case.

        Envoy runs a cluster's own filters only when it connects to an upstream. So the credential
        injector of the host that is measured, which stands there, moves to the listener, where it does
        the same. And what is made of Envoy's own replies is left out: to Envoy every answer is one here,
        elsewhere only refusals.
        """
        manager = self.manager
        manager.pop("local_reply_config", None)
        for cluster in self._clusters():
            injector = _take_injector(cluster)
            if cluster["name"] == f"egress/{host}":
                manager["http_filters"][-1:-1] = injector
        for virtual_host in manager["route_config"]["virtual_hosts"]:
            for route in virtual_host["routes"]:
                if route.pop("route", None) is not None:
                    route["direct_response"] = {"status": 200, "body": {"inline_string": "ok"}}

    @property
    def manager(self) -> dict[str, Any]:
        """The egress listener's HTTP connection manager."""
        listener = next(
            entry
            for entry in self._content["static_resources"]["listeners"]
            if entry["name"] == LISTENER
        )
        manager: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
        return manager

    @property
    def text(self) -> str:
        """The configuration as JSON."""
        return json.dumps(self._content, indent=2)

    def _clusters(self) -> list[dict[str, Any]]:
        clusters: list[dict[str, Any]] = self._content["static_resources"]["clusters"]
        return clusters


@lru_cache
def _rendered(config: str, authz_address: str | None, upstream: str) -> str:
    """Return what `authz envoy` renders, as JSON; rendering takes a second, and rows share a few."""
    parsed = parse(config, {})
    hosts = [host for route in parsed.egress.values() for host in route.hosts]
    settings = SidecarSettings(
        egress_address="127.0.0.1:0",
        admin_address="127.0.0.1:0",
        authz_address=authz_address,
        upstreams=dict.fromkeys(hosts, Upstream(upstream)),
    )
    return json.dumps(yaml.safe_load(render(parsed, settings)))


def _take_injector(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """Take a cluster's credential injector away, and the codec that then has no use."""
    options = cluster.get("typed_extension_protocol_options", {}).get(_PROTOCOL, {})
    filters = options.pop("http_filters", [])
    return [entry for entry in filters if entry["name"] != _CODEC]
