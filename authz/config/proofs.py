"""By which exchange each client shows its credential to Entra: one whose token is of use anyhow.

When that happens, and what follows from it, is `authz.tokens.proving`.
"""

from collections.abc import Iterator
from dataclasses import replace

from authz.config.compile import (
    agent_identities,
    credentials,
    exchange_resource,
    tokens_version,
)
from authz.config.model import Config
from authz.core.exchange import (
    AgentIdentity,
    AppToken,
    BlueprintAssertion,
    BlueprintToken,
    Client,
    Target,
    TokenExchange,
)
from authz.core.grant import Delegated, Own
from authz.core.policy import Policy
from authz.core.scopes import default_beside, default_of


def proofs(config: Config, policy: Policy) -> dict[Client, TokenExchange]:
    """Return the exchange of each client.

    Of a blueprint it is the assertion T1 of one of its agents, that of the first route if there is one: the
    cache keeps it, and the first request finds it there. Of an application it is the token of its first
    route of flow `app`, else a token for the resource that it calls for users. Who has neither asks for a
    token of its own: whatever Entra answers then, it has looked at the credential first.
    """
    found: dict[Client, TokenExchange] = {}
    for client, exchange in _candidates(config, policy):
        found.setdefault(client, exchange)
    return found


def _candidates(config: Config, policy: Policy) -> Iterator[tuple[Client, TokenExchange]]:
    tokens = tokens_version(config)
    assertion = Target((default_of(exchange_resource(config)),), policy_version=tokens)
    routes = [*policy.egress.values(), *policy.unscoped.values()]
    agents = [route.agent for route in routes if route.agent is not None]
    for agent in (*agents, *agent_identities(config).values()):
        yield agent.blueprint, _assertion(agent, assertion)
    grants = [route.grant for route in routes]
    for grant in grants:
        if isinstance(grant, Own) and grant.target.scopes:
            exchange = grant.exchange
            if isinstance(exchange, AppToken | BlueprintToken):
                yield exchange.client, exchange
    for grant in grants:
        if isinstance(grant, Delegated) and isinstance(grant.asker, Client) and grant.target.scopes:
            scope = default_beside(grant.target.scopes[0])
            yield grant.asker, AppToken(grant.asker, replace(grant.target, scopes=(scope,)))
    blueprints = {blueprint.client_id for blueprint in config.blueprints.values()}
    for client in credentials(config):
        if client.client_id in blueprints:
            yield client, BlueprintToken(client, assertion)
        else:
            own = Target((default_of(client.client_id),), policy_version=tokens)
            yield client, AppToken(client, own)


def _assertion(agent: AgentIdentity, target: Target) -> BlueprintAssertion:
    return BlueprintAssertion(replace(agent, user=None), target)
