"""From the rules of the configuration to those of `authz.core`: what a route becomes under each of them.

So do public paths, which are written alike.
"""

from dataclasses import replace
from typing import TypeVar

from authz.config.sections.routes import Egress, Inbound
from authz.config.sections.rules import EgressRule, InboundRule, Mcp, names_of
from authz.config.sections.rules import Rule as Written
from authz.core.grant import Delegated, Grant, NoToken
from authz.core.route import EgressRoute, InboundRoute
from authz.core.rules.public import PublicPaths
from authz.core.rules.rule import Rule, Rules
from authz.core.rules.template import Template

Route = TypeVar("Route", InboundRoute, EgressRoute)


def inbound_under_rules(route: InboundRoute, written: Inbound) -> InboundRoute:
    """Return an inbound route with its rules: each demands what it says beside what the route does."""
    if not written.rules:
        return route
    route = replace(route, reads_messages=written.mcp is not None)
    rules = [
        _rule(name, rule, None if rule.deny else _demanding(route, written, name, rule))
        for name, rule in zip(names_of(written.rules), written.rules, strict=True)
    ]
    return replace(route, rules=Rules(tuple(rules), endpoints=_endpoints(written.mcp)))


def _endpoints(mcp: Mcp | None) -> tuple[str, ...]:
    return () if mcp is None else mcp.paths


def public_of(written: Inbound) -> PublicPaths | None:
    """Return the paths of an inbound route that need no token; None where each does."""
    templates = tuple(Template.parse(each) for each in written.public_paths)
    return PublicPaths(templates) if templates else None


def _demanding(route: InboundRoute, written: Inbound, name: str, rule: InboundRule) -> InboundRoute:
    """Return an inbound route that demands what one of its rules does, too."""
    own = route.requirement
    # As with the route's own: roles count for users where no application is served.
    of_users = () if written.serves_applications else rule.roles
    requirement = replace(
        own,
        scopes=own.scopes + rule.scopes,
        roles=own.roles + (rule.roles if written.serves_applications else ()),
        user_roles=own.user_roles + rule.user_roles + of_users,
        auth_contexts=own.auth_contexts + one(rule.auth_context),
    )
    return replace(route, rule=name, requirement=requirement)


def one(value: str | None) -> tuple[str, ...]:
    """Return a value as all that there is, or nothing."""
    return () if value is None else (value,)


def egress_under_rules(route: EgressRoute, written: Egress) -> EgressRoute:
    """Return an egress route with its rules, each of which gives the token that it says, or the route's."""
    if not written.rules:
        return route
    route = replace(route, reads_messages=written.mcp is not None)
    rules = []
    for name, rule in zip(names_of(written.rules), written.rules, strict=True):
        found = replace(route, rule=name, grant=_granting(route.grant, rule))
        rules.append(_rule(name, rule, None if rule.deny else found))
    return replace(route, rules=Rules(tuple(rules), endpoints=_endpoints(written.mcp)))


def _granting(grant: Grant, rule: EgressRule) -> Grant:
    """Return what an egress route grants under one of its rules."""
    if rule.scopes and not isinstance(grant, NoToken):
        grant = grant.with_scopes(rule.scopes)
    if rule.auth_context is not None and isinstance(grant, Delegated):
        own = grant.requirement
        contexts = (*own.auth_contexts, rule.auth_context)
        # The agent's own token would do without the user's sign-in.
        grant = replace(grant, requirement=replace(own, auth_contexts=contexts), without_user=None)
    return grant


def _rule(name: str, written: Written, outcome: Route | None) -> Rule[Route]:
    return Rule(
        name,
        outcome,
        frozenset(written.methods),
        tuple(Template.parse(each) for each in written.paths),
        frozenset(written.tools),
        frozenset(written.operations),
    )
