"""What a caller of the HTTP API may override of an API's token, and the route that follows from it.

Overrides name an identity and the shape of a token. Whom they may name is the configuration's to say. What it
does not permit is refused, and never gives a token of another identity.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from authz.core.errors import AgentNotAllowed, BadOverride
from authz.core.exchange import AgentIdentity, AgentUser, Client, Flow, Target
from authz.core.grant import Asker, Delegated, NoToken, Own, own_exchange
from authz.core.policy import KnownAgent
from authz.core.route import EgressRoute
from authz.core.scopes import fits_app_token, is_exchange, resource_of
from authz.core.token import Expectation


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a caller asks for beside what is configured. Nothing by default.

    Attributes:
        agent: Client id of the agent identity that is to act.
        user: The agent's user account that is to act.
        scopes: Scopes in place of the configured ones.
        app_token: Whether a token without user is asked for; None leaves it to the configuration.
        tenant: Where the token is to be issued; only the client's own tenant can be.
        claims: JSON text of the OpenID Connect `claims` parameter, in place of the configured one.
        challenge: JSON text of claims that the API demands, on top of those: it has refused a token.
        force_refresh: Whether the token must come from Entra and not from the cache.
        for_own_resource: Whether the token is for the configured resource and no other, whatever is
            granted: where it is sent there at once.
    """

    agent: str | None = None
    user: AgentUser | None = None
    scopes: tuple[str, ...] = ()
    app_token: bool | None = None
    tenant: str | None = None
    claims: str | None = None
    challenge: str | None = None
    force_refresh: bool = False
    for_own_resource: bool = False


@dataclass(frozen=True, slots=True)
class Permitted:
    """What overrides may name.

    Attributes:
        agents: The configured agents by client id, in lower case.
        open_blueprints: Blueprints of which any agent may be named, whether or not it is configured.
        subject: What a user's token must be where overrides make a delegated flow of another one.
        any_resource: Whether scopes of another resource than the configured one may be named.
    """

    agents: Mapping[str, KnownAgent]
    open_blueprints: frozenset[Client]
    subject: Expectation
    any_resource: bool = False


def overridden(route: EgressRoute, overrides: Overrides, permitted: Permitted) -> EgressRoute:
    """Return a route with the overrides of a caller applied.

    Raises:
        BadOverride: Its parts do not go together, or not with what is configured.
        AgentNotAllowed: It names an agent, or a user account, that callers may not name.
    """
    grant = granted(route)
    client = grant.asker.blueprint if isinstance(grant.asker, AgentIdentity) else grant.asker
    if overrides.user is not None and overrides.agent is None:
        raise BadOverride("AgentUsername and AgentUserId need AgentIdentity")
    if overrides.tenant is not None and overrides.tenant.lower() != client.tenant_id.lower():
        raise BadOverride(
            "optionsOverride.AcquireTokenOptions.Tenant: not the tenant of this API's client"
        )
    known = _agent(route, overrides, client, permitted)
    flow = _flow(route, overrides, None if known is None else known.identity)
    changed = overrides.app_token is not None and flow is not route.flow
    target = _target(grant.target, overrides, flow, permitted, changed=changed)
    asker = client if known is None else known.identity
    workloads = route.workloads if known is None else known.workloads
    return replace(route, grant=_grant(grant, flow, asker, target, permitted), workloads=workloads)


def granted(route: EgressRoute) -> Own | Delegated:
    """Return what gives a route's token.

    Raises:
        BadOverride: It has none.
    """
    if isinstance(route.grant, NoToken):
        raise BadOverride("this API is configured to get no token")
    return route.grant


def _grant(
    configured: Own | Delegated, flow: Flow, asker: Asker, target: Target, permitted: Permitted
) -> Own | Delegated:
    if not flow.is_delegated:
        return Own(own_exchange(flow, asker, target))
    if isinstance(configured, Delegated):
        expectation, requirement = configured.expectation, configured.requirement
        return Delegated(asker, target, expectation, requirement)
    return Delegated(asker, target, permitted.subject)


def _agent(
    route: EgressRoute, overrides: Overrides, client: Client, permitted: Permitted
) -> KnownAgent | None:
    if overrides.agent is None:
        if route.agent is None:
            return None
        return KnownAgent(route.agent, workloads=route.workloads)
    known = permitted.agents.get(overrides.agent.lower())
    is_open = any(_is_same(client, blueprint) for blueprint in permitted.open_blueprints)
    if known is None:
        if not is_open:
            raise AgentNotAllowed(f"agent {overrides.agent} of {client.name}")
        agent = AgentIdentity(overrides.agent, overrides.agent, client, by_request=True)
        known = KnownAgent(agent)
    elif not _is_same(known.identity.blueprint, client):
        raise AgentNotAllowed(f"agent {overrides.agent} is not one of {client.name}")
    user = overrides.user
    if user is not None and user not in known.users:
        if any(user in other.users for other in permitted.agents.values()):
            raise AgentNotAllowed(
                f"user account of another agent than {overrides.agent}", of_another=True
            )
        if not is_open:
            raise AgentNotAllowed(f"user account of agent {overrides.agent}")
        user = replace(user, by_request=True)
    return replace(known, identity=replace(known.identity, user=user))


def _is_same(client: Client, other: Client) -> bool:
    """Whether two clients of the configuration are one registration."""
    return (client.tenant_id, client.client_id) == (other.tenant_id, other.client_id)


def _flow(route: EgressRoute, overrides: Overrides, agent: AgentIdentity | None) -> Flow:
    if overrides.user is not None:
        if overrides.app_token:
            raise BadOverride("RequestAppToken: an agent's user account has no app tokens")
        return Flow.AGENT_USER
    if route.flow is Flow.AGENT_USER and overrides.agent is None and not overrides.app_token:
        return Flow.AGENT_USER
    if route.flow.is_app_only if overrides.app_token is None else overrides.app_token:
        if agent is not None:
            return Flow.AUTONOMOUS
        return Flow.BLUEPRINT if route.flow is Flow.BLUEPRINT else Flow.APP
    return Flow.APP_ON_BEHALF_OF if agent is None else Flow.ON_BEHALF_OF


def _target(
    target: Target, overrides: Overrides, flow: Flow, permitted: Permitted, *, changed: bool
) -> Target:
    scopes = tuple(sorted(set(overrides.scopes))) or target.scopes
    if not scopes:
        raise BadOverride(
            "optionsOverride.Scopes: expected scopes, as none are configured for this API"
        )
    resources = {resource_of(scope) for scope in scopes}
    if len(resources) > 1:
        raise BadOverride("optionsOverride.Scopes: expected scopes of one resource")
    is_own = resources == {resource_of(scope) for scope in target.scopes}
    if not is_own and any(map(is_exchange, resources)):
        raise BadOverride(
            "optionsOverride.Scopes: tokens that vouch for an identity are not given out"
        )
    # An API without scopes has no resource that its calls could be held to.
    is_bound = overrides.for_own_resource and bool(target.scopes)
    if not is_own and (is_bound or not permitted.any_resource):
        raise BadOverride("optionsOverride.Scopes: expected scopes of the API's own resource")
    if flow.is_app_only and not fits_app_token(scopes):
        raise BadOverride("a token without user takes exactly one scope, which ends in /.default")
    claims = _joined(overrides.claims or target.claims, overrides.challenge)
    by_request = scopes != target.scopes or changed
    return replace(target, scopes=scopes, claims=claims, by_request=by_request)


def _joined(claims: str | None, challenge: str | None) -> str | None:
    """Return the claims of both; where they differ the challenge's count."""
    if claims is None or challenge is None:
        return challenge or claims
    joined = _merged(json.loads(claims), json.loads(challenge))
    return json.dumps(joined, sort_keys=True, separators=(",", ":"))


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = {**one, **other}
    for name in one.keys() & other.keys():
        if isinstance(one[name], dict) and isinstance(other[name], dict):
            merged[name] = _merged(one[name], other[name])
    return merged
