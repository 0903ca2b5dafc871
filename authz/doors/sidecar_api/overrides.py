"""What a caller of the HTTP API may wish of an API's token, and the route that follows from it.

A wish names an identity and the shape of a token. Whom it may name is the configuration's to say: a wish
that is not granted is refused, and never gives a token of another identity.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from authz.core.errors import AgentNotAllowed, BadWish
from authz.core.exchange import AgentIdentity, AgentUser, Client, Flow, Target
from authz.core.grant import Asker, Delegated, NoToken, Own, own_exchange
from authz.core.policy import EgressRoute, KnownAgent
from authz.core.token import Expectation

_GRAPH: Final = "https://graph.microsoft.com"
_NAMES_OF_GRAPH: Final = (
    "00000003-0000-0000-c000-000000000000",
    "https://graph.microsoft.us",
    "https://dod-graph.microsoft.us",
    "https://microsoftgraph.chinacloudapi.cn",
)
"""Other names of Microsoft Graph, whose scopes may also come without any (Entra page "scopes-oidc")."""
_VOUCHING: Final = ("api://azureadtokenexchange", "fb60f99c-7a34-4190-8149-302f77469936")
"""The token-exchange resource of every cloud: its tokens are credentials of agents, not for an API."""
_APP_ONLY: Final = (Flow.AUTONOMOUS, Flow.APP, Flow.BLUEPRINT)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller asks for beside what is configured. Nothing by default.

    Attributes:
        agent: Client id of the agent identity that is to act.
        user: The agent's user account that is to act.
        scopes: Scopes in place of the configured ones.
        app_token: Whether a token without user is wished; None leaves it to the configuration.
        tenant: Where the token is to be issued; only the client's own tenant can be.
        claims: JSON text of the OpenID Connect `claims` parameter, in place of the configured one.
        challenge: JSON text of claims that the API demands, on top of those: it has refused a token.
        anew: Whether a token from the cache will not do.
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
    anew: bool = False
    for_own_resource: bool = False


@dataclass(frozen=True, slots=True)
class Grants:
    """What wishes may name.

    Attributes:
        agents: The configured agents by client id, in lower case.
        open_blueprints: Blueprints of which any agent may be named, whether or not it is configured.
        subject: What a user's token must be where a wish makes a delegated flow of another one.
        any_resource: Whether scopes of another resource than the configured one may be named.
    """

    agents: Mapping[str, KnownAgent]
    open_blueprints: frozenset[Client]
    subject: Expectation
    any_resource: bool = False


def fulfil(route: EgressRoute, wish: Wish, grants: Grants) -> EgressRoute:
    """Return the route by which a wish is fulfilled.

    Raises:
        BadWish: Its parts do not go together, or not with what is configured.
        AgentNotAllowed: It names an agent, or a user account, that callers may not name.
    """
    grant = granted(route)
    client = grant.asker.blueprint if isinstance(grant.asker, AgentIdentity) else grant.asker
    if wish.user is not None and wish.agent is None:
        raise BadWish("AgentUsername and AgentUserId need AgentIdentity")
    if wish.tenant is not None and wish.tenant.lower() != client.tenant_id.lower():
        raise BadWish(
            "optionsOverride.AcquireTokenOptions.Tenant: not the tenant of this API's client"
        )
    known = _agent(route, wish, client, grants)
    flow = _flow(route, wish, None if known is None else known.identity)
    target = _target(grant.target, wish, flow, grants)
    asker = client if known is None else known.identity
    workloads = route.workloads if known is None else known.workloads
    return replace(route, grant=_grant(grant, flow, asker, target, grants), workloads=workloads)


def granted(route: EgressRoute) -> Own | Delegated:
    """Return what gives a route's token.

    Raises:
        BadWish: It has none.
    """
    if isinstance(route.grant, NoToken):
        raise BadWish("this API is configured to get no token")
    return route.grant


def _grant(
    configured: Own | Delegated, flow: Flow, asker: Asker, target: Target, grants: Grants
) -> Own | Delegated:
    if not flow.is_delegated:
        return Own(own_exchange(flow, asker, target))
    if isinstance(configured, Delegated):
        expectation, requirement = configured.expectation, configured.requirement
        return Delegated(asker, target, expectation, requirement)
    return Delegated(asker, target, grants.subject)


def _agent(route: EgressRoute, wish: Wish, client: Client, grants: Grants) -> KnownAgent | None:
    if wish.agent is None:
        if route.agent is None:
            return None
        return KnownAgent(route.agent, workloads=route.workloads)
    known = grants.agents.get(wish.agent.lower())
    is_open = any(_is_same(client, blueprint) for blueprint in grants.open_blueprints)
    if known is None:
        if not is_open:
            raise AgentNotAllowed(f"agent {wish.agent} of {client.name}")
        known = KnownAgent(AgentIdentity(wish.agent, wish.agent, client))
    elif not _is_same(known.identity.blueprint, client):
        raise AgentNotAllowed(f"agent {wish.agent} is not one of {client.name}")
    if wish.user is not None and not is_open and wish.user not in known.users:
        raise AgentNotAllowed(f"user account of agent {wish.agent}")
    return replace(known, identity=replace(known.identity, user=wish.user))


def _is_same(client: Client, other: Client) -> bool:
    """Whether two clients of the configuration are one registration."""
    return (client.tenant_id, client.client_id) == (other.tenant_id, other.client_id)


def _flow(route: EgressRoute, wish: Wish, agent: AgentIdentity | None) -> Flow:
    if wish.user is not None:
        if wish.app_token:
            raise BadWish("RequestAppToken: an agent's user account has no app tokens")
        return Flow.AGENT_USER
    if route.flow is Flow.AGENT_USER and wish.agent is None and not wish.app_token:
        return Flow.AGENT_USER
    if route.flow in _APP_ONLY if wish.app_token is None else wish.app_token:
        if agent is not None:
            return Flow.AUTONOMOUS
        return Flow.BLUEPRINT if route.flow is Flow.BLUEPRINT else Flow.APP
    return Flow.APP_ON_BEHALF_OF if agent is None else Flow.ON_BEHALF_OF


def _target(target: Target, wish: Wish, flow: Flow, grants: Grants) -> Target:
    scopes = wish.scopes or target.scopes
    if not scopes:
        raise BadWish(
            "optionsOverride.Scopes: expected scopes, as none are configured for this API"
        )
    resources = {_resource(scope) for scope in scopes}
    if len(resources) > 1:
        raise BadWish("optionsOverride.Scopes: expected scopes of one resource")
    is_own = resources == {_resource(scope) for scope in target.scopes}
    if not is_own and any(resource.startswith(_VOUCHING) for resource in resources):
        raise BadWish("optionsOverride.Scopes: tokens that vouch for an identity are not given out")
    # An API without scopes has no resource that its calls could be held to.
    is_bound = wish.for_own_resource and bool(target.scopes)
    if not is_own and (is_bound or not grants.any_resource):
        raise BadWish("optionsOverride.Scopes: expected scopes of the API's own resource")
    if flow in _APP_ONLY and (len(scopes) != 1 or not scopes[0].endswith("/.default")):
        raise BadWish("a token without user takes exactly one scope, which ends in /.default")
    claims = _joined(wish.claims or target.claims, wish.challenge)
    return replace(target, scopes=scopes, claims=claims)


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


def _resource(scope: str) -> str:
    resource = scope.rpartition("/")[0].rstrip("/").lower()
    return _GRAPH if not resource or resource in _NAMES_OF_GRAPH else resource
