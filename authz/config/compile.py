"""From `Config` to the values of `authz.core`: policy, clients, agents and issuers.

A `Config` has been checked, so nothing here can fail and nothing is left to decide.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from authz.config.clouds import NO_TENANT, cloud_of
from authz.config.consistency.origins import belongs
from authz.config.consistency.tunnels import tunnelled
from authz.config.model import Config
from authz.config.ruled import egress_under_rules, inbound_under_rules, one, public_of
from authz.config.sections.clients import Agent, Application, Credential
from authz.config.sections.demands import Requires
from authz.config.sections.hosts import EgressHost
from authz.config.sections.routes import Egress, Inbound
from authz.core import grammar
from authz.core.exchange import AgentIdentity, Client, Flow, Target
from authz.core.grant import Asker, Delegated, NoToken, Own, own_exchange
from authz.core.policy import KnownAgent, Policy
from authz.core.requirement import Requirement
from authz.core.resource import ProtectedResource
from authz.core.route import EgressRoute, InboundRoute
from authz.core.scopes import default_beside
from authz.core.subject import REFERENCES, SubjectSource
from authz.core.token import Expectation

_WITHOUT_USER: Final = {Flow.ON_BEHALF_OF: Flow.AUTONOMOUS, Flow.APP_ON_BEHALF_OF: Flow.APP}
"""The flow by which the same agent or application gets a token of its own."""

_GUID: Final = re.compile(grammar.GUID)

UNCONFIGURED: Final = "(not configured)"
"""Route name of APIs that are not configured, in metrics and log: theirs come from callers."""


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """One issuer whose signing keys are needed.

    Attributes:
        issuer: `iss` of its tokens.
        tenant_id: The tenant it speaks for.
        version: Version of its tokens, 1 or 2.
        metadata_url: Its OpenID Connect discovery document.
        aliases: The tenant's issuers of the other version, which its keys may name instead.
        required: Whether the service is not ready without its keys. The v1 issuers of some clouds are
            not published, so a v1 issuer that cannot be confirmed must not keep v2 tokens out.
    """

    issuer: str
    tenant_id: str
    version: int
    metadata_url: str
    aliases: tuple[str, ...]
    required: bool


def compile_policy(config: Config) -> Policy:
    """Return the policy of a configuration."""
    version, tokens = policy_version(config), tokens_version(config)
    tunnels = tunnelled(config)
    default_inbound = config.listen.inbound_route
    if default_inbound is None and len(config.inbound) == 1:
        default_inbound = next(iter(config.inbound))
    return Policy(
        version=version,
        inbound={name: _inbound(config, name, route) for name, route in config.inbound.items()},
        egress={
            name: _egress(config, name, route, tokens, tunnels)
            for name, route in config.egress.items()
            if not _lacks_scopes(route)
        },
        unscoped={
            name: _egress(config, name, route, tokens, tunnels)
            for name, route in config.egress.items()
            if _lacks_scopes(route)
        },
        unconfigured=_unconfigured(config, default_inbound, tokens),
        default_direction=config.listen.direction,
        default_inbound=default_inbound,
        max_token_bytes=config.limits.max_token_bytes,
        edge_ttl=config.cache.edge.max_ttl,
        agents=_known_agents(config),
        open_blueprints=frozenset(
            _client(name, blueprint)
            for name, blueprint in config.blueprints.items()
            if blueprint.any_agent
        ),
        any_resource=config.api.any_resource,
    )


def policy_version(config: Config) -> str:
    """Return the digest of what decides: all but where we listen, what we log, when we look again."""
    parts = config.model_dump(mode="json", exclude={"listen", "https", "log", "reload_interval"})
    # Of a request for which Envoy says neither.
    parts["unstated"] = [config.listen.direction, config.listen.inbound_route]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest_of(config: Config) -> str:
    """Return the digest of a whole configuration but for credentials: no secret can be tried against it."""
    parts = config.model_dump(mode="json", exclude={"blueprints", "applications"})
    for section, clients in (
        ("blueprints", config.blueprints),
        ("applications", config.applications),
    ):
        parts[section] = {
            name: client.model_dump(mode="json", exclude={"credentials"})
            for name, client in clients.items()
        }
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def tokens_version(config: Config) -> str:
    """Return the digest of what decides which token Entra issues, beside what each exchange names itself."""
    return sha256(config.entra.authority.encode()).hexdigest()


def issuers(config: Config) -> list[IssuerSettings]:
    """Return the issuers of every tenant that a route trusts, both token versions of each."""
    tenants: dict[str, None] = {}
    for inbound in config.inbound.values():
        tenants.update(dict.fromkeys(_tenants(config, inbound)))
    for egress in config.egress.values():
        if egress.flow.is_delegated:
            tenants[_application(config, egress).tenant_id] = None
    # Keys of a tenant that is not known cannot be asked for.
    tenants.pop(NO_TENANT, None)
    authority = config.entra.authority
    settings = []
    for tenant_id in tenants:
        v1, v2 = _issuers_of(authority, tenant_id)
        for issuer, version, path in ((v1, 1, ""), (v2, 2, "/v2.0")):
            url = f"{authority}/{tenant_id}{path}/.well-known/openid-configuration"
            aliases = tuple({v1, v2} - {issuer})
            required = version == 2  # noqa: PLR2004 - the token version
            settings.append(IssuerSettings(issuer, tenant_id, version, url, aliases, required))
    return settings


def tenant_of(authority: str, issuer: str) -> str | None:
    """Return the id of the tenant whose v2 issuer that is in an authority's cloud; None for others."""
    tenant_id = issuer.removesuffix("/v2.0").rpartition("/")[2].lower()
    is_issuer = _GUID.fullmatch(tenant_id) and issuer == _issuers_of(authority, tenant_id)[1]
    return tenant_id if is_issuer else None


def exchange_resource(config: Config) -> str:
    """Return the resource of token-exchange tokens in the configured cloud, without `/.default`."""
    return cloud_of(config.entra.authority).exchange_resource


def trusted_hosts(config: Config) -> frozenset[str]:
    """Return the hosts, beside their own, of which discovery documents may name addresses."""
    return cloud_of(config.entra.authority).hosts | set(config.entra.trusted_hosts)


def credentials(config: Config) -> dict[Client, tuple[Credential, ...]]:
    """Return how each client proves itself, in the order to try."""
    known = {_client(name, app): app.credentials for name, app in config.applications.items()}
    return known | {_client(name, app): app.credentials for name, app in config.blueprints.items()}


def agent_identities(config: Config) -> dict[str, AgentIdentity]:
    """Return the agent identities by name."""
    return {name: _agent(config, name, agent) for name, agent in config.agents.items()}


def _known_agents(config: Config) -> dict[str, KnownAgent]:
    """Return the agents by client id. Entries of one agent identity are taken together."""
    known: dict[str, KnownAgent] = {}
    for name, agent in config.agents.items():
        identity = replace(_agent(config, name, agent), user=None)
        other = known.get(agent.agent_identity, KnownAgent(identity))
        known[agent.agent_identity] = KnownAgent(
            other.identity,
            other.users | ({agent.agent_user} if agent.agent_user is not None else set()),
            other.workloads | set(agent.workloads),
        )
    return known


def _client(name: str, application: Application) -> Client:
    return Client(name, application.tenant_id, application.client_id)


def _agent(config: Config, name: str, agent: Agent) -> AgentIdentity:
    blueprint = _client(agent.blueprint, config.blueprints[agent.blueprint])
    return AgentIdentity(name, agent.agent_identity, blueprint, agent.agent_user)


def _application(config: Config, route: Egress | Inbound) -> Application:
    """Return the application that a route speaks of: of an agent, its blueprint."""
    if route.agent is not None:
        return config.blueprints[config.agents[route.agent].blueprint]
    if route.blueprint is not None:
        return config.blueprints[route.blueprint]
    assert route.application is not None
    return config.applications[route.application]


def _inbound(config: Config, name: str, route: Inbound) -> InboundRoute:
    audiences = route.audiences or _application(config, route).accepted_audiences
    requirement = Requirement(
        subjects=route.served,
        scopes=route.scopes,
        roles=route.roles if route.serves_applications else (),
        user_roles=route.roles_of_users,
        actors=frozenset(route.actors),
        blueprints=frozenset(route.actor_blueprints),
        auth_contexts=one(route.auth_context),
        resource=_resource(audiences, route.resource),
    )
    compiled = InboundRoute(
        name=name,
        expectation=_entrance(config, route),
        requirement=requirement,
        forward=frozenset(route.forward),
        called=_called(config, route),
        prefetch=route.prefetch,
        resource=_described(config, route, requirement),
        public=public_of(route),
        bound_at=route.mcp.paths if route.mcp is not None and route.mcp.bind_sessions else (),
    )
    return inbound_under_rules(compiled, route)


def _described(
    config: Config, route: Inbound, requirement: Requirement
) -> ProtectedResource | None:
    """Return what clients without a token may learn of a route; None where it is nothing."""
    if route.resource is None:
        return None
    # A tenant that is not known yet has no issuer.
    tenants = (tenant for tenant in _tenants(config, route) if tenant != NO_TENANT)
    issuers = tuple(_issuers_of(config.entra.authority, tenant)[1] for tenant in tenants)
    # Where no scope is demanded, `/.default` asks for whatever was consented to.
    scopes = requirement.to_ask_for(delegated=bool(requirement.scopes))
    return ProtectedResource(route.resource, issuers, scopes)


def _resource(audiences: Sequence[str], called: str | None = None) -> str:
    """Return what a token of one of these audiences is asked for by: a URI as it is, a client id as one.

    `api://CLIENT_ID` is the URI that Entra proposes for an application (Entra page
    "identifier-uri-restrictions"). The URL by which clients call comes first: they name it to Entra as
    `resource` (RFC 8707) too, and Entra takes one resource only.
    """
    if called is not None and called in audiences:
        return called
    uris = (audience for audience in audiences if "://" in audience)
    return next(uris, f"api://{audiences[0]}")


def _egress(
    config: Config, name: str, route: Egress, tokens: str, tunnels: Collection[str]
) -> EgressRoute:
    hosts = tuple(name for host in route.hosts for name in EgressHost.of(host).names)
    if route.flow is Flow.NONE:
        without = EgressRoute(name, hosts, NoToken(tunnel=name in tunnels), remove=route.removed)
        return egress_under_rules(without, route)
    workloads = route.workloads
    if route.agent is not None:
        workloads = config.agents[route.agent].workloads
    target = Target(route.scopes, route.claims, tokens)
    grant = (
        _delegated(config, route, target)
        if route.flow.is_delegated
        else Own(own_exchange(route.flow, _asker(config, route), target), push=route.pushed)
    )
    compiled = EgressRoute(
        name,
        hosts,
        grant,
        workloads=frozenset(workloads),
        peer_source=config.listen.workload_identity,
        remove=route.removed,
    )
    return egress_under_rules(compiled, route)


def _delegated(config: Config, route: Egress, target: Target) -> Delegated:
    application, asker = _application(config, route), _asker(config, route)
    audiences, requires = application.accepted_audiences, route.requires or Requires()
    without_user = None
    if SubjectSource.NONE in route.sources:
        own = replace(target, scopes=(default_beside(route.scopes[0]),))
        without_user = Own(own_exchange(_WITHOUT_USER[route.flow], asker, own), stands_in=True)
    return Delegated(
        asker,
        target,
        _expectation(config, audiences, (application.tenant_id,), route.leeway),
        Requirement(
            scopes=requires.scopes,
            user_roles=requires.user_roles,
            actors=frozenset(requires.actors),
            blueprints=frozenset(requires.actor_blueprints),
            auth_contexts=one(requires.auth_context),
            resource=_resource(audiences),
        ),
        sources=route.sources,
        origins=_origins(config, route) if REFERENCES.intersection(route.sources) else {},
        without_user=without_user,
    )


def _asker(config: Config, route: Egress | Inbound) -> Asker:
    """Return who asks for a route's token: its agent identity, else its application."""
    if route.agent is not None:
        return _agent(config, route.agent, config.agents[route.agent])
    return _client(route.blueprint or route.application or "", _application(config, route))


def _lacks_scopes(route: Egress) -> bool:
    return route.flow is not Flow.NONE and not route.scopes


def _unconfigured(config: Config, entrance: str | None, tokens: str) -> EgressRoute | None:
    """Return the route for APIs that are not configured: by what the default inbound route calls."""
    route = config.inbound.get(entrance or "")
    if route is None or not config.api.any_resource or _called(config, route) is None:
        return None
    asker, target = _asker(config, route), Target((), None, tokens)
    workloads: tuple[str, ...] = ()
    if route.agent is not None:
        workloads = config.agents[route.agent].workloads
    grant: Own | Delegated
    if isinstance(asker, AgentIdentity) and asker.user is not None:
        grant = Own(own_exchange(Flow.AGENT_USER, asker, target))
    else:
        grant = Delegated(asker, target, _entrance(config, route))
    return EgressRoute(
        UNCONFIGURED,
        (),
        grant,
        workloads=frozenset(workloads),
        peer_source=config.listen.workload_identity,
    )


def _called(config: Config, route: Inbound) -> str | None:
    """Return the client id of what an inbound route calls; None where it does not say."""
    if route.agent is not None:
        return config.agents[route.agent].agent_identity
    if route.blueprint is None and route.application is None:
        return None
    return _application(config, route).client_id


def _origins(config: Config, route: Egress) -> dict[str, str | None]:
    """Return the inbound routes whose references count, with the client id that each calls."""
    return {
        name: _called(config, inbound)
        for name, inbound in config.inbound.items()
        if belongs(inbound, route, config.agents)
    }


def _tenants(config: Config, route: Inbound) -> tuple[str, ...]:
    return route.tenants or (_application(config, route).tenant_id,)


def _entrance(config: Config, route: Inbound) -> Expectation:
    """Return what a token must be that comes in by an inbound route."""
    audiences = route.audiences or _application(config, route).accepted_audiences
    return _expectation(config, audiences, _tenants(config, route), route.leeway)


def _expectation(
    config: Config, audiences: Iterable[str], tenants: Iterable[str], leeway: float
) -> Expectation:
    trusted: Mapping[str, str] = {
        issuer: tenant_id
        for tenant_id in tenants
        for issuer in _issuers_of(config.entra.authority, tenant_id)
    }
    return Expectation(frozenset(audiences), trusted, leeway)


def _issuers_of(authority: str, tenant_id: str) -> tuple[str, str]:
    # Entra page "access-tokens": the slash after a v1 tenant is part of the issuer.
    cloud = cloud_of(authority)
    return f"{cloud.v1_base}/{tenant_id}/", f"{cloud.base}/{tenant_id}/v2.0"
