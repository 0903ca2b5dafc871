"""By which exchange each client shows its credential to Entra: one whose token is of use anyhow.

When that happens, and what follows from it, is `authz.proving`.
"""

from collections.abc import Iterator
from dataclasses import replace

from authz.config.model import Config
from authz.config.policy import (
    agent_identities,
    compile_policy,
    credentials,
    exchange_resource,
    tokens_version,
)
from authz.core.exchange import (
    AgentIdentity,
    AppToken,
    BlueprintAssertion,
    BlueprintToken,
    Client,
    Flow,
    Target,
    TokenExchange,
)
from authz.core.policy import EgressRoute


def proofs(config: Config) -> dict[Client, TokenExchange]:
    """Return the exchange of each client.

    Of a blueprint it is the assertion T1 of one of its agents, that of the first route if there is one: the
    cache keeps it, and the first request finds it there. Of an application it is the token of its first
    route of flow `app`, else a token for the resource that it calls for users. Who has neither asks for a
    token of its own: whatever Entra answers then, it has looked at the credential first.
    """
    found: dict[Client, TokenExchange] = {}
    for client, exchange in _candidates(config):
        found.setdefault(client, exchange)
    return found


def _candidates(config: Config) -> Iterator[tuple[Client, TokenExchange]]:
    policy, tokens = compile_policy(config), tokens_version(config)
    assertion = Target((f"{exchange_resource(config)}/.default",), policy_version=tokens)
    routes = [*policy.egress.values(), *policy.unscoped.values()]
    agents = [route.agent for route in routes if route.agent is not None]
    for agent in (*agents, *agent_identities(config).values()):
        yield agent.blueprint, _assertion(agent, assertion)
    for route in (
        route for route in routes if route.client is not None and route.target is not None
    ):
        if (found := _own_token(route)) is not None:
            yield found
    for route in routes:
        if (
            route.flow is Flow.APP_ON_BEHALF_OF
            and route.client is not None
            and route.target is not None
        ):
            scopes = tuple(
                f"{scope.rpartition('/')[0]}/.default" for scope in route.target.scopes[:1]
            )
            if scopes:
                yield route.client, AppToken(route.client, replace(route.target, scopes=scopes))
    blueprints = {blueprint.client_id for blueprint in config.blueprints.values()}
    for client in credentials(config):
        if client.client_id in blueprints:
            yield client, BlueprintToken(client, assertion)
        else:
            own = Target((f"{client.client_id}/.default",), policy_version=tokens)
            yield client, AppToken(client, own)


def _assertion(agent: AgentIdentity, target: Target) -> BlueprintAssertion:
    return BlueprintAssertion(replace(agent, user=None), target)


def _own_token(route: EgressRoute) -> tuple[Client, TokenExchange] | None:
    """Return the client's own token that a route asks for, if it is one that needs no user."""
    assert route.client is not None
    assert route.target is not None
    if not route.target.scopes:
        return None
    match route.flow:
        case Flow.APP:
            return route.client, AppToken(route.client, route.target)
        case Flow.BLUEPRINT:
            return route.client, BlueprintToken(route.client, route.target)
        case _:
            return None
