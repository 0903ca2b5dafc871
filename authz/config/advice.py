"""Notices about a configuration that is valid but may not be what its operator wants."""

from collections.abc import Iterator
from typing import Final

from authz.config.faults import Notice
from authz.config.hosts import is_loopback
from authz.config.model import Config
from authz.core.exchange import Flow

_GRAPH: Final = (
    "https://graph.microsoft.com/",
    "https://graph.microsoft.us/",
    "https://dod-graph.microsoft.us/",
    "https://microsoftgraph.chinacloudapi.cn/",
    "00000003-0000-0000-c000-000000000000/",
)


def advice(config: Config) -> Iterator[Notice]:
    """Return what the operator should know."""
    yield from _about_reach(config)
    yield from _about_workloads(config)
    yield from _about_api(config)
    for name, inbound in config.inbound.items():
        if not (inbound.scopes or inbound.roles or inbound.actors):
            yield Notice(
                f"inbound.{name}.scopes",
                "every user with a token for this client may call, whatever they consented to: expected the "
                "scopes of which one is needed",
            )
    for name, route in config.egress.items():
        if route.token_over_plain_http:
            yield Notice(
                f"egress.{name}.token_over_plain_http",
                "anybody on the network behind Envoy can read the token and use it: expected a network that "
                "encrypts, such as a mesh",
            )
        if route.blueprint is None:
            continue
        if route.flow is Flow.APP_ON_BEHALF_OF:
            yield Notice(
                f"egress.{name}.blueprint",
                "Entra refuses on-behalf-of by a blueprint itself (AADSTS82002): "
                "the agent flow is on_behalf_of",
            )
        elif route.scopes and not route.scopes[0].lower().startswith(_GRAPH):
            yield Notice(
                f"egress.{name}.scopes",
                "Entra gives a blueprint app tokens for Microsoft Graph only (AADSTS82001)",
            )


def _about_reach(config: Config) -> Iterator[Notice]:
    listen = config.listen
    authenticated = listen.tls is not None and listen.tls.client_ca_file is not None
    if listen.socket_path is None and not authenticated and not is_loopback(listen.grpc.lower()):
        yield Notice(
            "listen.grpc",
            f"whoever reaches {listen.grpc} can ask for tokens: set listen.tls.client_ca_file, or "
            "let nobody but Envoy reach it",
        )


def _about_api(config: Config) -> Iterator[Notice]:
    if config.listen.api is None:
        return
    for name, blueprint in config.blueprints.items():
        if blueprint.any_agent:
            yield Notice(
                f"blueprints.{name}.any_agent",
                f"callers of {config.listen.api} may act as any agent of this blueprint",
            )
    if config.api.peers:
        yield Notice(
            "api.peers",
            "their tokens travel without TLS of ours: expected a network that encrypts, such as a mesh",
        )


def _about_workloads(config: Config) -> Iterator[Notice]:
    bound = {name for name, agent in config.agents.items() if agent.workloads}
    tls = config.listen.tls
    shared = tls is not None and tls.client_ca_file is not None
    if not (shared or bound or any(route.workloads for route in config.egress.values())):
        return
    for name, route in config.egress.items():
        if route.flow is not Flow.NONE and route.agent not in bound and not route.workloads:
            yield Notice(
                f"egress.{name}",
                "every workload that may connect may use this route: it is not restricted by workloads",
            )
