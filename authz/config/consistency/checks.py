"""What several keys must agree on, except those of routes (`route_checks`) and scopes (`scope_checks`).

Each rule names the key that should change, so that all faults can be reported at once and in place.
"""

from collections.abc import Collection, Iterator, Mapping

from authz.config.consistency.inbound_checks import check_inbound
from authz.config.consistency.public_checks import check_public_paths
from authz.config.consistency.route_checks import (
    check_egress,
    check_ended_hosts,
    check_prefetch,
    check_references,
    check_users,
    gives_references,
    https_hosts,
)
from authz.config.consistency.rule_checks import check_rules
from authz.config.consistency.tunnels import check_tunnels
from authz.config.faults import Fault, did_you_mean
from authz.config.model import Config
from authz.config.sections.clients import Application
from authz.config.sections.listen import Listen
from authz.config.sections.values import span
from authz.config.shown import shown
from authz.core.route import PeerSource

Names = Mapping[str, Collection[str]]
"""Names of entries by section."""


def check(config: Config, left_out: Names) -> list[Fault]:
    """Return every fault that concerns more than one key.

    Args:
        config: Sections that are fine each by itself.
        left_out: Entries that exist beside those in `config` and have faults of their own. A section
            that is there without names was left out as a whole.
    """
    names = {
        section: {*getattr(config, section), *left_out.get(section, ())}
        for section in ("blueprints", "applications", "agents", "inbound", "egress")
    }
    return [
        *_check_presence(names, left_out),
        *(() if "listen" in left_out else _check_listen(config)),
        *(() if "listen" in left_out else _check_proof(config)),
        *(() if "listen" in left_out else _check_memory(config)),
        *(() if {"listen", "egress"} & left_out.keys() else _check_https(config)),
        *(() if {"listen", "inbound"} & left_out.keys() else _check_api(config, names["inbound"])),
        *(() if {"entra", "limits"} & left_out.keys() else _check_times(config)),
        *_check_clients(config),
        *_check_agents(config),
        *_check_identities(config),
        *_check_references(config, names, left_out),
        *check_inbound(config.inbound),
        *check_prefetch(config.inbound, config.egress),
        *(
            ()
            if {"inbound", "agents"} & left_out.keys()
            else check_references(config.inbound, config.egress, config.agents)
        ),
        *(
            ()
            if {"inbound", "agents", "blueprints", "applications"} & left_out.keys()
            else check_users(
                config.inbound,
                config.egress,
                config.agents,
                {"application": config.applications, "blueprint": config.blueprints},
            )
        ),
        *(() if "inbound" in left_out else check_tunnels(config.inbound, config.egress)),
        *check_rules(config.inbound, config.egress),
        *check_public_paths(config.inbound),
        *check_egress(config.egress, config.agents, callers_name_scopes=config.api.any_resource),
    ]


def _check_presence(names: Names, left_out: Names) -> Iterator[Fault]:
    if not any(names[section] or section in left_out for section in ("inbound", "egress")):
        yield Fault("", "no route is configured: expected inbound or egress routes")


def _check_listen(config: Config) -> Iterator[Fault]:
    listen = config.listen
    if listen.socket_path is not None:
        if listen.tls is not None:
            yield Fault(
                "listen.tls", "a Unix socket has no TLS: leave it out, or listen on host:port"
            )
        if listen.workers > 1:
            yield Fault(
                "listen.workers",
                f"found {listen.workers} with a Unix socket, which only one process can serve: "
                "expected 1, or grpc on host:port",
            )
        if listen.socket_mode == "0660" and listen.socket_group is None:
            yield Fault("listen.socket_group", "is missing: socket_mode 0660 admits a group")
        if listen.socket_mode == "0600" and listen.socket_group is not None:
            yield Fault("listen.socket_group", "has no effect: set socket_mode to 0660 as well")
    else:
        for key in ("socket_mode", "socket_group"):
            if key in listen.model_fields_set and getattr(listen, key) is not None:
                yield Fault(f"listen.{key}", "is for a Unix socket, and grpc is host:port")
    yield from _check_checks(listen)


def _check_checks(listen: Listen) -> Iterator[Fault]:
    if listen.checks is None:
        return
    if listen.socket_path is None:
        yield Fault(
            "listen.checks",
            "is for the Envoy of the same pod: expected listen.grpc on a Unix socket",
        )
    for key in ("grpc", "admin", "api"):
        if getattr(listen, key) == listen.checks:
            yield Fault("listen.checks", f"found the socket of listen.{key}: expected another path")


def _check_api(config: Config, inbound: Collection[str]) -> Iterator[Fault]:
    listen = config.listen
    if listen.api is None:
        return
    if listen.workers > 1:
        yield Fault(
            "listen.api",
            f"found it with {listen.workers} workers: expected listen.workers 1, or another process "
            "for the API",
        )
    if listen.inbound_route is None and len(inbound) != 1:
        yield Fault(
            "listen.inbound_route",
            "is missing: callers of listen.api are verified by one inbound route",
        )


def _check_https(config: Config) -> Iterator[Fault]:
    if config.https is None:
        return
    if config.listen.socket_path is None:
        yield Fault(
            "https", "is for the Envoy of the same pod: expected listen.grpc on a Unix socket"
        )
    if not https_hosts(config.egress):
        yield Fault("https", "has nothing to vouch for: expected egress hosts by their DNS names")
    yield from check_ended_hosts(config.egress)


def _check_memory(config: Config) -> Iterator[Fault]:
    if config.listen.workers > 1 and gives_references(config.inbound):
        yield Fault(
            "listen.workers",
            f"found {config.listen.workers}, and forward gives references, which only the process that "
            "gave them knows: expected 1",
        )
    if config.listen.workers > 1 and any(
        route.mcp is not None and route.mcp.bind_sessions for route in config.inbound.values()
    ):
        yield Fault(
            "listen.workers",
            f"found {config.listen.workers}, and mcp.bind_sessions remembers callers, whom only the process that "
            "saw them knows: expected 1",
        )


def _check_times(config: Config) -> Iterator[Fault]:
    entra, limits = config.entra, config.limits
    # Not for the default, which a shorter `timeout` simply cuts off.
    if "connect_timeout" in entra.model_fields_set and entra.connect_timeout > entra.timeout:
        yield _too_long("entra.connect_timeout", entra.connect_timeout, "timeout", entra.timeout)
    if entra.timeout > entra.exchange_timeout:
        yield _too_long("entra.timeout", entra.timeout, "exchange_timeout", entra.exchange_timeout)
    if limits.deadline_margin >= limits.check_timeout:
        yield _too_long(
            "limits.deadline_margin", limits.deadline_margin, "check_timeout", limits.check_timeout
        )


def _too_long(path: str, found: float, other: str, bound: float) -> Fault:
    return Fault(path, f"found {span(found)}, more than {other} ({span(bound)}) leaves room for")


def _check_clients(config: Config) -> Iterator[Fault]:
    seen: dict[tuple[str, str], tuple[str, Application]] = {}
    sections: tuple[tuple[str, Mapping[str, Application]], ...] = (
        ("blueprints", config.blueprints),
        ("applications", config.applications),
    )
    for section, clients in sections:
        for name, client in clients.items():
            path = f"{section}.{name}"
            first, other = seen.setdefault((client.tenant_id, client.client_id), (path, client))
            if other.credentials != client.credentials:
                yield Fault(
                    f"{path}.credentials",
                    f"differ from those of {first}, which is the same client: "
                    "expected the same list in both",
                )


def _check_agents(config: Config) -> Iterator[Fault]:
    seen: dict[str, tuple[str, str]] = {}
    for name, agent in config.agents.items():
        first, blueprint = seen.setdefault(agent.agent_identity, (name, agent.blueprint))
        if blueprint != agent.blueprint:
            yield Fault(
                f"agents.{name}.blueprint",
                f"found {shown(agent.blueprint)}, but agents.{first} is the same agent identity and has "
                f"{shown(blueprint)}: an agent identity belongs to one blueprint",
            )


def _check_identities(config: Config) -> Iterator[Fault]:
    """Find ids of an agent in each other's place: all are GUIDs, and Entra's pages show several together.

    One id in every place stands for any, where Envoy's configuration is rendered.
    """
    sections: tuple[Mapping[str, Application], ...] = (config.blueprints, config.applications)
    clients = {
        client.client_id: f"{section}.{name}"
        for section, entries in zip(("blueprints", "applications"), sections, strict=True)
        for name, client in reversed(list(entries.items()))
        if client.tenant_id != client.client_id
    }
    for name, agent in config.agents.items():
        path, identity = f"agents.{name}", agent.agent_identity
        blueprint = config.blueprints.get(agent.blueprint)
        if identity in clients:
            yield Fault(
                f"{path}.agent_identity",
                f"is the client_id of {clients[identity]}: expected the id of the agent identity, an object of its "
                "own in Entra, which is made with the blueprint's token",
            )
        elif blueprint is not None and identity == blueprint.tenant_id != blueprint.client_id:
            yield Fault(
                f"{path}.agent_identity",
                f"is the tenant_id of blueprints.{agent.blueprint}: expected the id of the agent identity",
            )
        elif blueprint is not None and identity != blueprint.client_id == blueprint.tenant_id:
            yield Fault(
                f"blueprints.{agent.blueprint}.client_id",
                "is the tenant_id: expected the application (client) id of the blueprint",
            )
        user = agent.agent_user
        if user is not None and user.object_id == identity:
            yield Fault(
                f"{path}.agent_user",
                "is the agent_identity: expected the object id of the agent's user account, or its user "
                "principal name",
            )


def _check_proof(config: Config) -> Iterator[Fault]:
    tls = config.listen.tls
    if config.listen.workload_identity is PeerSource.SOURCE_PRINCIPAL:
        return
    if tls is not None and tls.client_ca_file is not None:
        return
    for section in ("agents", "egress"):
        for name, entry in getattr(config, section).items():
            if entry.workloads:
                yield Fault(
                    f"{section}.{name}.workloads",
                    "no workload could prove itself: expected listen.tls.client_ca_file, "
                    "or listen.workload_identity: source_principal",
                )


def _check_references(config: Config, names: Names, left_out: Names) -> Iterator[Fault]:
    def unknown(path: str, section: str, name: str | None) -> Iterator[Fault]:
        if name is None or name in names[section] or left_out.get(section) == set():
            return
        hint = did_you_mean(name, names[section])
        yield Fault(path, f"found {shown(name)}, which is not among {section}{hint}")

    for name, agent in config.agents.items():
        yield from unknown(f"agents.{name}.blueprint", "blueprints", agent.blueprint)
    for section in ("inbound", "egress"):
        for name, route in getattr(config, section).items():
            for kind in ("agent", "blueprint", "application"):
                yield from unknown(f"{section}.{name}.{kind}", f"{kind}s", getattr(route, kind))
    for name, inbound in config.inbound.items():
        for index, egress in enumerate(inbound.prefetch):
            yield from unknown(f"inbound.{name}.prefetch.{index}", "egress", egress)
    yield from unknown("listen.inbound_route", "inbound", config.listen.inbound_route)
