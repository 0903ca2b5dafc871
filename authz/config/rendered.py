"""What of a configuration Envoy's own is rendered from, and the mark by which each side knows the other's.

Credentials, scopes and whatever else only the service uses have no part in it. How Envoy's configuration
carries the mark is `envoy_config.bootstrap`; `authz.doors.envoy.pairing` and `check-config` compare it.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Self

from authz.config.compile import compile_policy
from authz.config.consistency.route_checks import https_hosts
from authz.config.consistency.tunnels import tunnelled
from authz.config.model import Config
from authz.config.sections.hosts import EgressHost
from authz.core.policy import Policy
from authz.core.route import InboundRoute

MARK: Final = "authz.rendered"
"""Key of the mark: in Envoy's `context_extensions` of routes with a decision, and in its node's metadata."""
LONGEST_MARK: Final = 1024
"""Characters. What is longer is no mark of ours."""

_DIGITS: Final = 16
"""Of a SHA-256 digest, in hexadecimal. Nobody has to be kept from finding another configuration with it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The routes that an Envoy was rendered for, where the service has more.

    Attributes:
        inbound: Its inbound route; empty where the configuration leaves no choice.
        egress: Its egress routes, whose hosts were named beside the configuration; empty for those that have
            hosts in the configuration.
    """

    inbound: str = ""
    egress: tuple[str, ...] = ()

    @classmethod
    def of_mark(cls, mark: str) -> Self:
        """Return what a mark says."""
        _, _, rest = mark.partition(";")
        inbound, _, egress = rest.partition(";")
        return cls(inbound, tuple(name for name in egress.split(",") if name))

    def __str__(self) -> str:
        return f";{self.inbound};{','.join(self.egress)}" if self.inbound or self.egress else ""


EVERYTHING: Final = Selection()


class Rendered:
    """One version of what Envoy's configuration is rendered from. With many routes it takes a while to make.

    Args:
        config: The configuration.
        policy: What it compiles to.

    Attributes:
        hosts: Hosts of all egress routes, as Envoy's configuration names them: without a scheme.
        content: All that is rendered, after defaults, in JSON's types.
    """

    def __init__(self, config: Config, policy: Policy) -> None:
        self._config = config
        self._policy = policy
        self.hosts = hosts_of(config)
        self.content = _content(config, policy, EVERYTHING)
        self._whole = _mark(self.content, EVERYTHING)

    @classmethod
    def of(cls, config: Config) -> Self:
        """Compile a configuration for this alone."""
        return cls(config, compile_policy(config))

    def mark(self, selection: Selection = EVERYTHING) -> str:
        """Return the mark: a digest, and the selection if there is one."""
        if selection == EVERYTHING:
            return self._whole
        return _mark(_content(self._config, self._policy, selection), selection)


def mark_of(config: Config, selection: Selection = EVERYTHING) -> str:
    """Return the mark of what is rendered of a configuration."""
    return Rendered.of(config).mark(selection)


def _mark(content: Mapping[str, Any], selection: Selection) -> str:
    text = json.dumps(content, sort_keys=True)
    return f"{sha256(text.encode()).hexdigest()[:_DIGITS]}{selection}"


def _content(config: Config, policy: Policy, selection: Selection) -> dict[str, Any]:
    """Return what is rendered of a selection.

    The address of the gRPC server is not among it: who looks for it elsewhere does not come to say so.
    """
    tls, tunnels = config.listen.tls, tunnelled(config)
    inbound = [selection.inbound] if selection.inbound else list(config.inbound)
    egress = selection.egress or tuple(name for name, route in config.egress.items() if route.hosts)
    return {
        "listen": {
            "socket": config.listen.socket_path is not None,
            "checks": config.listen.checks,
            "tls": tls is not None,
            "client_certificates": tls is not None and tls.client_ca_file is not None,
            "workload_identity": config.listen.workload_identity.value,
            "inbound_route": config.listen.inbound_route,
        },
        "https": https_hosts(config.egress) if config.https is not None else None,
        "edge": config.cache.edge.max_ttl > 0,
        "handles": policy.gives_handles,
        "inbound": {
            name: _inbound_content(config, policy.inbound[name])
            for name in inbound
            if name in policy.inbound
        },
        "egress": {
            name: {
                "hosts": sorted({str(EgressHost.of(host)) for host in config.egress[name].hosts}),
                "without_token": config.egress[name].flow.value == "none",
                "pushed": config.egress[name].pushed,
                "repeated": name in policy.egress and policy.egress[name].may_repeat_at_edge,
                **({"ruled": True} if config.egress[name].rules else {}),
                **(
                    {"mcp": mcp.model_dump(mode="json")} if (mcp := config.egress[name].mcp) else {}
                ),
                "remove_headers": list(config.egress[name].remove_headers),
                "tunnel": name in tunnels,
            }
            for name in egress
            if name in config.egress
        },
    }


def _inbound_content(config: Config, route: InboundRoute) -> dict[str, Any]:
    content: dict[str, Any] = {"repeated": route.may_repeat_at_edge}
    if route.rules is not None:
        content["ruled"] = True
    if (mcp := config.inbound[route.name].mcp) is not None:
        content["mcp"] = mcp.model_dump(mode="json", exclude={"bind_sessions"})
    if paths := answered_paths(config, route):
        content["metadata"] = list(paths)
    cors = config.inbound[route.name].cors
    if cors is not None:
        content["cors"] = cors.model_dump(mode="json")
    return content


def answered_paths(config: Config, route: InboundRoute) -> tuple[str, ...]:
    """Return the paths of an inbound route that the service answers itself, where Envoy has to know them.

    That is where it repeats decisions, or answers web pages: neither may happen at these paths.
    """
    repeated = route.may_repeat_at_edge and config.cache.edge.max_ttl > 0
    if route.resource is None or not (repeated or config.inbound[route.name].cors):
        return ()
    return route.resource.metadata_paths


def hosts_of(config: Config) -> frozenset[str]:
    """Return the hosts of all egress routes, as Envoy's configuration names them: without a scheme."""
    return frozenset(
        EgressHost.of(host).authority for route in config.egress.values() for host in route.hosts
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """How two configurations differ in what Envoy's is rendered from.

    Attributes:
        new_hosts: Hosts that only the newer one has.
        gone_hosts: Hosts that only the older one has.
        keys: Where else they differ.
    """

    new_hosts: tuple[str, ...] = ()
    gone_hosts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new_hosts or self.gone_hosts or self.keys)


def difference(old: Rendered, new: Rendered) -> Difference:
    """Return how two versions differ in what Envoy's configuration is rendered from."""
    # Where the hosts are the same, one may have another scheme or another route.
    named = ("hosts",) if old.hosts != new.hosts else ()
    return Difference(
        tuple(sorted(new.hosts - old.hosts)),
        tuple(sorted(old.hosts - new.hosts)),
        tuple(_differing(old.content, new.content, named)),
    )


def _differing(
    old: Mapping[str, Any], new: Mapping[str, Any], skip: Collection[str], path: str = ""
) -> Iterator[str]:
    """Return the paths at which nested mappings differ, but for some keys."""
    for key in sorted({*old, *new}):
        one, other = old.get(key), new.get(key)
        if key in skip or one == other:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differing(one, other, skip, f"{path}{key}.")
        else:
            yield f"{path}{key}"
