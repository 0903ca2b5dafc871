"""Egress routes to test with: one of any flow, and the parts of one, changed or looked at."""

from dataclasses import fields, replace
from typing import Any, Final

from authz.core.exchange import AgentIdentity, Client, Flow, Target
from authz.core.grant import Delegated, Grant, NoToken, Own, own_exchange
from authz.core.route import EgressRoute
from authz.core.token import Expectation
from support.fakes.exchanges import AGENT_IDENTITY, BLUEPRINT_CLIENT, GRAPH
from support.fakes.tenant import TENANT

SOME_TOKEN: Final = Expectation(frozenset({"audience"}), {"issuer": TENANT})
_BY_CLIENT: Final = (Flow.BLUEPRINT, Flow.APP_ON_BEHALF_OF, Flow.APP)


def grant_of(
    flow: Flow,
    *,
    asker: AgentIdentity | Client | None = None,
    target: Target = GRAPH,
    expectation: Expectation = SOME_TOKEN,
    **parts: Any,
) -> Grant:
    """Return a grant of a flow, by the agent or the client of `exchanges` unless another is given."""
    asker = asker or (BLUEPRINT_CLIENT if flow in _BY_CLIENT else AGENT_IDENTITY)
    if flow is Flow.NONE:
        return NoToken(**parts)
    if flow.is_delegated:
        return Delegated(asker, target, expectation, **parts)
    return Own(own_exchange(flow, asker, target), **parts)


def route_of(
    name: str, flow: Flow, hosts: tuple[str, ...] = (), /, *, own: Any = None, **parts: Any
) -> EgressRoute:
    """Return a route of a flow. Keywords are parts of the grant; `own` has those of the route itself."""
    return EgressRoute(name, hosts, grant_of(flow, **parts), **(own or {}))


def regranted(route: EgressRoute, **changes: Any) -> EgressRoute:
    """Return a route with parts of its grant changed: of its exchange too, where it has one."""
    grant: Any = route.grant
    if isinstance(grant, Own):
        names = {each.name for each in fields(grant.exchange)}
        inner = {name: changes.pop(name) for name in list(changes) if name in names}
        grant = replace(grant, exchange=replace(grant.exchange, **inner))
    return replace(route, grant=replace(grant, **changes))


def delegated(route: EgressRoute | None) -> Delegated:
    """Return the grant of a route for users."""
    assert route is not None
    assert isinstance(route.grant, Delegated)
    return route.grant


def own(route: EgressRoute | None) -> Own:
    """Return the grant of a route that needs no user."""
    assert route is not None
    assert isinstance(route.grant, Own)
    return route.grant


def target_of(route: EgressRoute | None) -> Target:
    """Return what the token of a route is for."""
    assert route is not None
    assert not isinstance(route.grant, NoToken)
    return route.grant.target
