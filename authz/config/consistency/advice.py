"""Notices about a configuration that is valid but may not be what its operator wants."""

from collections.abc import Iterator
from typing import Final

from authz.config.consistency.origins import belongs
from authz.config.consistency.rule_advice import advice_on_rules
from authz.config.consistency.tunnels import lost_keys, tunnelled
from authz.config.faults import Notice
from authz.config.model import Config
from authz.config.sections.hosts import EgressHost, is_loopback
from authz.config.sections.routes import Egress, Inbound
from authz.config.shown import shown
from authz.core.exchange import Flow
from authz.core.scopes import GRAPH, resource_of
from authz.core.subject import SubjectSource

_SECOND_LEVELS: Final = frozenset(
    {"ac", "co", "com", "edu", "go", "gob", "gov", "gouv", "ne", "net", "or", "org"}
)
"""Below a country's domain these are public suffixes in many countries: `co.uk`, `com.au`, `or.jp`."""
_COUNTRY: Final = 2
"""Letters of a country's domain."""

_NOT_PUBLIC: Final = frozenset({"internal", "local", "localdomain", "localhost", "svc", "test"})
"""Top-level names under which nobody outside gets a name or a certificate (RFC 2606, RFC 6761, RFC 6762)."""

_DEEP_PLATFORMS: Final = frozenset({"amazonaws.com", "core.windows.net"})
"""Those with a region and a product before a customer's name."""

_PLATFORMS: Final = frozenset({
    # Azure.
    "azure-api.net", "devtunnels.ms", "azure-mobile.net", "azureedge.net", "azurefd.net", "azurewebsites.net",
    "azurecontainerapps.io", "azurestaticapps.net", "cloudapp.azure.com", "cloudapp.net",
    "core.windows.net", "trafficmanager.net",
    # Others.
    "amazonaws.com", "appspot.com", "cloudfront.net", "cloudfunctions.net", "fly.dev", "hf.space", "ngrok.dev", "on.aws", "trycloudflare.com", "github.io",
    "gitlab.io", "herokuapp.com", "netlify.app", "ngrok.app", "ngrok.io", "ngrok-free.app", "onrender.com",
    "pages.dev", "run.app", "vercel.app", "web.app", "workers.dev",
})  # fmt: skip
"""Domains of platforms where any customer gets a name, also below the part of a region or a product."""


def advice(config: Config) -> Iterator[Notice]:
    """Return what the operator should know."""
    yield from _about_reach(config)
    yield from _about_workloads(config)
    yield from _about_api(config)
    yield from _about_tunnels(config)
    yield from _about_subjects(config)
    yield from _about_loopback(config)
    yield from lost_keys(config)
    yield from advice_on_rules(config)
    for name, inbound in config.inbound.items():
        yield from _about_inbound(name, inbound)
        yield from _about_resource(config, name, inbound)
    for name, route in config.egress.items():
        yield from _about_hosts(name, route)
        yield from _about_scopes(name, route)


def _about_inbound(name: str, inbound: Inbound) -> Iterator[Notice]:
    named = inbound.actors or inbound.actor_blueprints
    if not (inbound.scopes or inbound.roles or inbound.user_roles or named):
        yield Notice(
            f"inbound.{name}.scopes",
            "every user with a token for this client may call, whatever they consented to: expected the "
            "scopes of which one is needed",
        )


def _about_resource(config: Config, name: str, inbound: Inbound) -> Iterator[Notice]:
    if inbound.resource is None or inbound.resource in _audiences(config, inbound):
        return
    yield Notice(
        f"inbound.{name}.resource",
        "is not among the audiences: clients send it to Entra as `resource`, which Entra refuses beside scopes of "
        "another one (AADSTS9010010): expected it as an Application ID URI in Entra, and in audiences",
    )


def _audiences(config: Config, inbound: Inbound) -> tuple[str, ...]:
    """Return the `aud` values that an inbound route accepts, after defaults."""
    if inbound.audiences is not None:
        return inbound.audiences
    if inbound.application is not None:
        return config.applications[inbound.application].accepted_audiences
    blueprint = inbound.blueprint
    if inbound.agent is not None:
        blueprint = config.agents[inbound.agent].blueprint
    return config.blueprints[blueprint or ""].accepted_audiences


def _about_reach(config: Config) -> Iterator[Notice]:
    listen = config.listen
    authenticated = listen.tls is not None and listen.tls.client_ca_file is not None
    if listen.socket_path is None and not authenticated and not is_loopback(listen.grpc.lower()):
        yield Notice(
            "listen.grpc",
            f"anyone who reaches {listen.grpc} can request tokens: set listen.tls.client_ca_file, or "
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


def _about_scopes(name: str, route: Egress) -> Iterator[Notice]:
    for index, scope in enumerate(route.scopes):
        if "/" not in scope:
            yield Notice(
                f"egress.{name}.scopes.{index}",
                # The value is not repeated: a token may stand there by mistake.
                "names no resource, so it is a permission of Microsoft Graph: expected api://API/PERMISSION for "
                "another API, or https://graph.microsoft.com/PERMISSION",
            )
    if route.blueprint is None:
        return
    if route.flow is Flow.APP_ON_BEHALF_OF:
        yield Notice(
            f"egress.{name}.blueprint",
            "Entra refuses on-behalf-of by a blueprint itself (AADSTS82002): "
            "the agent flow is on_behalf_of",
        )
    elif route.scopes and resource_of(route.scopes[0]) != GRAPH:
        yield Notice(
            f"egress.{name}.scopes",
            "Entra gives a blueprint app tokens for Microsoft Graph only (AADSTS82001)",
        )


def _about_hosts(name: str, route: Egress) -> Iterator[Notice]:
    if "hosts" in route.model_fields_set and not route.hosts:
        yield Notice(
            f"egress.{name}.hosts",
            "no host is listed, so Envoy sends no request to this route: expected the API's hosts, or no hosts key "
            "for a route of listen.api alone",
        )
    if route.token_over_plain_http:
        yield Notice(
            f"egress.{name}.token_over_plain_http",
            "anybody on the network behind Envoy can read the token and use it: expected a network that "
            "encrypts, such as a mesh",
        )
    for index, written in enumerate(route.hosts):
        path, host = f"egress.{name}.hosts.{index}", EgressHost.of(written)
        if host.is_tls_on_port_80:
            yield Notice(
                path,
                f"Envoy speaks TLS to {host} on the port of plain HTTP: expected "
                f"http://{host.authority.removesuffix(':80')} for a host without TLS",
            )
        if route.flow is Flow.NONE:
            continue
        if host.is_wildcard and _is_open_to_strangers(host.authority):
            yield Notice(
                path,
                f"the token of flow {route.flow} goes to any host that {shown(str(host))} matches, and strangers "
                "can get such a name and a certificate for it: expected the hosts of the API by name, or a "
                "wildcard of a domain that is yours",
            )


def _about_loopback(config: Config) -> Iterator[Notice]:
    """Return one notice for all routes: each of them says `token_to_loopback` already."""
    hosts = {
        name: [str(host) for host in map(EgressHost.of, route.hosts) if host.is_in_pod]
        for name, route in config.egress.items()
        if route.token_to_loopback
    }
    routes = [name for name, found in hosts.items() if found]
    if routes:
        yield Notice(
            f"egress.{routes[0]}.token_to_loopback",
            "any program of the pod or of this machine can listen on "
            f"{', '.join(dict.fromkeys(host for name in routes for host in hosts[name]))}, the agent too, and receive "
            f"the token of {', '.join(f'egress.{name}' for name in routes)}: expected hosts outside of it",
        )


def _is_open_to_strangers(wildcard: str) -> bool:
    """Whether names that a wildcard matches are given to anybody, as far as is known here."""
    suffix = wildcard.removeprefix("*").removeprefix(".")
    parent, _, last = suffix.rpartition(".")
    if last in _NOT_PUBLIC:
        return False
    return (
        not parent
        or (len(last) == _COUNTRY and parent in _SECOND_LEVELS)
        or suffix in _PLATFORMS
        or suffix.partition(".")[2] in _PLATFORMS
        or ".".join(suffix.split(".")[2:]) in _DEEP_PLATFORMS
    )


def _about_tunnels(config: Config) -> Iterator[Notice]:
    for name in sorted(tunnelled(config)):
        route = config.egress[name]
        if "*" in route.hosts and not route.tunnel:
            yield Notice(
                f"egress.{name}.hosts.{route.hosts.index('*')}",
                "the app may open tunnels through Envoy to any host and port, for any protocol, and nobody sees "
                "what is sent in them: expected hosts by name, tunnel: false to refuse them, or tunnel: true if "
                "this is wanted",
            )


def _about_subjects(config: Config) -> Iterator[Notice]:
    """Return the delegated routes that take nothing of what the app receives of its user."""
    for name, route in config.egress.items():
        if not route.flow.is_delegated or SubjectSource.NONE in route.sources:
            continue
        belonging = {
            key: each for key, each in config.inbound.items() if belongs(each, route, config.agents)
        }
        given = {forward.value for each in belonging.values() for forward in each.forward}
        usable = [source for source in _BY_WHICH_A_USER_IS_FOUND if source in given]
        if belonging and not {source.value for source in route.sources} & given:
            yield Notice(
                f"egress.{name}.subject",
                f"takes {', '.join(route.sources)}, and the app receives {', '.join(usable) or 'nothing'} from "
                f"inbound.{next(iter(belonging))} (forward): expected subject: "
                f"[{', '.join(usable) or 'placeholder'}]"
                + ("" if usable else " and forward: placeholder"),
            )


_BY_WHICH_A_USER_IS_FOUND: Final = ("bearer", "placeholder", "handle")


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
