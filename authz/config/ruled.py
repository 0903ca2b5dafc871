"""From the rules of the configuration to those of `authz.core`: what a route becomes under each of them."""

from dataclasses import replace
from typing import TypeVar

from authz.config.sections.routes import Egress, Inbound
from authz.config.sections.rules import Rule as Written
from authz.config.sections.rules import names_of
from authz.core.grant import Delegated, NoToken, Own
from authz.core.policy import EgressRoute, InboundRoute
from authz.core.rules.rule import Rule, Rules
from authz.core.rules.template import Template

Route = TypeVar("Route", InboundRoute, EgressRoute)


def inbound_under_rules(route: InboundRoute, written: Inbound) -> InboundRoute:
    """Return an inbound route with its rules: each demands what it says beside what the route does."""
    if not written.rules:
        return route
    rules = [
        _rule(name, rule, None if rule.deny else replace(route, rule=name))
        for name, rule in zip(names_of(written.rules), written.rules, strict=True)
    ]
    return replace(route, rules=Rules(tuple(rules)))


def egress_under_rules(route: EgressRoute, written: Egress) -> EgressRoute:
    """Return an egress route with its rules, each of which gives the token that it says, or the route's."""
    if not written.rules:
        return route
    rules = []
    for name, rule in zip(names_of(written.rules), written.rules, strict=True):
        found = replace(route, rule=name)
        match route.grant:
            case Delegated() | Own() if rule.scopes:
                found = replace(found, grant=route.grant.with_scopes(rule.scopes))
            case Delegated() | Own() | NoToken():
                pass
        rules.append(_rule(name, rule, None if rule.deny else found))
    return replace(route, rules=Rules(tuple(rules)))


def _rule(name: str, written: Written, outcome: Route | None) -> Rule[Route]:
    return Rule(
        name,
        outcome,
        frozenset(written.methods),
        tuple(Template.parse(each) for each in written.paths),
    )
