"""What the rules of one route must keep to: each is reached, none contradicts another, all have an effect."""

import re
from collections.abc import Iterator, Mapping, Sequence

from authz.config.consistency.scope_checks import check_scopes
from authz.config.faults import Fault
from authz.config.sections.routes import Egress, Inbound
from authz.config.sections.rules import Mcp, Rule, names_of
from authz.config.shown import shown
from authz.core.exchange import Flow
from authz.core.operation import loosened
from authz.core.rules.rule import ANY, EVERY_PATH, SENDS, names_including
from authz.core.rules.template import Template
from authz.core.subject import SubjectSource

_HOWEVER = "in whatever case and with or without a slash at the end"


def check_rules(inbound: Mapping[str, Inbound], egress: Mapping[str, Egress]) -> Iterator[Fault]:
    """Return the faults of the rules of all routes."""
    for name, route in inbound.items():
        yield from _check_mcp(f"inbound.{name}", route)
        yield from _check_order(f"inbound.{name}.rules", route.rules, route.mcp)
        yield from _check_demands(f"inbound.{name}.rules", route)
    for name, target in egress.items():
        path = f"egress.{name}"
        yield from _check_mcp(path, target)
        yield from _check_order(f"{path}.rules", target.rules, target.mcp)
        if target.rules:
            yield from _check_egress(path, target)
        demands = target.requires is not None and target.requires.auth_context is not None
        if demands and SubjectSource.NONE in target.sources:
            yield Fault(
                f"{path}.subject",
                "found none beside requires.auth_context: without a user there is no sign-in to demand, expected one "
                "of the two",
            )


def _check_mcp(path: str, route: Inbound | Egress) -> Iterator[Fault]:
    if route.mcp is not None:
        if not route.rules:
            yield Fault(f"{path}.mcp", "has no effect: expected rules, for tools and operations")
        yield from _check_endpoints(path, route.rules, route.mcp)
        return
    for place, rule in enumerate(route.rules):
        for key in ("tools", "operations"):
            if getattr(rule, key):
                yield Fault(
                    f"{path}.rules.{place}.{key}",
                    f"expected {path}.mcp as well, with the paths of the MCP server",
                )


def _check_endpoints(path: str, rules: Sequence[Rule], mcp: Mcp) -> Iterator[Fault]:
    """Return the faults of rules about messages that are for requests without any."""
    for place, rule in enumerate(rules):
        if not (rule.tools or rule.operations):
            continue
        where = f"{path}.rules.{place}"
        if rule.methods and "POST" not in rule.methods:
            yield Fault(
                f"{where}.methods",
                "name no POST, by which messages come: expected it, or no methods",
            )
        templates = [Template.parse(each) for each in rule.paths]
        if templates and not any(
            re.fullmatch(each.exact(), endpoint) for each in templates for endpoint in mcp.paths
        ):
            yield Fault(
                f"{where}.paths",
                f"match no path of {path}.mcp, where messages are read: expected one of "
                f"{', '.join(mcp.paths)}, or no paths",
            )


def _check_order(path: str, rules: Sequence[Rule], mcp: Mcp | None) -> Iterator[Fault]:
    names, templates = names_of(tuple(rules)), [_reach(rule, mcp) for rule in rules]
    for place, rule in enumerate(rules):
        where = f"{path}.{place}"
        if names[place] in names[:place]:
            yield Fault(
                f"{where}.name", f"found {shown(names[place])} twice: expected a name for each"
            )
        if rule.deny:
            for key in ("scopes", "roles", "user_roles", "auth_context"):
                if getattr(rule, key, None):
                    yield Fault(f"{where}.{key}", "has no effect: the rule denies")
        before = list(zip(names[:place], rules[:place], templates[:place], strict=True))
        if rule.tools or rule.operations:
            yield from _check_messages_reach(where, rule, templates[place], before)
            continue
        for index, template in enumerate(templates[place]):
            part = f"{where}.paths.{index}" if rule.paths else where
            yield from _check_reached(part, rule, template, before)


def _reach(rule: Rule, mcp: Mcp | None) -> list[Template]:
    """Return the paths that a rule is for: of one about messages those at which messages are read."""
    templates = templates_of(rule)
    if mcp is None or not (rule.tools or rule.operations):
        return templates
    endpoints = [Template.parse(each) for each in mcp.paths]
    return [
        each for each in endpoints if any(template.covers(each) for template in templates)
    ] or templates


def _check_messages_reach(
    path: str,
    rule: Rule,
    endpoints: Sequence[Template],
    before: Sequence[tuple[str, Rule, Sequence[Template]]],
) -> Iterator[Fault]:
    """Return the fault of a rule about messages that is reached at none of the server's paths."""
    posted = rule.model_copy(update={"methods": (SENDS,), "paths": ()})
    faults = [list(_check_reached(path, posted, each, before)) for each in endpoints]
    if all(faults):
        yield from faults[0]


def _check_demands(path: str, route: Inbound) -> Iterator[Fault]:
    """Return the faults of demands on those whom the route does not serve."""
    if route.serves_users:
        return
    for place, rule in enumerate(route.rules):
        for key in ("scopes", "user_roles", "auth_context"):
            if getattr(rule, key) and not rule.deny:
                yield Fault(f"{path}.{place}.{key}", "has no effect: subjects names no user")


def _check_reached(
    path: str,
    rule: Rule,
    template: Template,
    before: Sequence[tuple[str, Rule, Sequence[Template]]],
) -> Iterator[Fault]:
    taken: set[str] = set()
    for name, other, others in before:
        shared = _shared_methods(other, rule)
        if shared is None or not _names_all(other, rule):
            continue
        for theirs in others:
            if theirs.covers(template):
                taken |= shared
                if "*" in shared or (rule.methods and taken >= set(rule.methods)):
                    found = (
                        f"found {shown(template.text)}, which is never"
                        if rule.paths
                        else "is never"
                    )
                    yield Fault(
                        path,
                        f"{found} reached: {name} before it takes all such requests, {_HOWEVER}",
                    )
                    return
            elif (
                other.deny != rule.deny
                and not rule.tools + rule.operations
                and not template.covers(theirs)
            ):
                met = theirs.meeting(template)
                if met is not None:
                    yield Fault(path, _contradiction(template, theirs, name, met, denies=rule.deny))
                    return


def _names_all(one: Rule, other: Rule) -> bool:
    """Whether a rule is for all operations that another is for."""
    if not (one.tools or one.operations):
        return True
    if not (other.tools or other.operations):
        return False
    tools = ANY in one.tools or {*map(loosened, other.tools)} <= {*map(loosened, one.tools)}
    mine = {*map(loosened, one.operations)}
    return tools and all(
        not mine.isdisjoint(names_including(name)) for name in map(loosened, other.operations)
    )


def _contradiction(
    template: Template, other: Template, name: str, met: str, *, denies: bool
) -> str:
    verbs = ("denies", "allows") if denies else ("allows", "denies")
    return (
        f"found {shown(template.text)}, which the rule {verbs[0]}, and {shown(other.text)}, which {name} before it "
        f"{verbs[1]}: both are for {met}, expected paths of which one includes the other"
    )


def templates_of(rule: Rule) -> list[Template]:
    """Return what a rule's paths are; a rule without any is for every one."""
    return [Template.parse(each) for each in rule.paths] or [EVERY_PATH]


def _shared_methods(one: Rule, other: Rule) -> set[str] | None:
    """Return the methods that two rules share; `*` alone for those of both that the first takes all of."""
    if not one.methods:
        return {"*"}
    shared = set(one.methods) & set(other.methods) if other.methods else set(one.methods)
    return shared or None


def _check_egress(path: str, route: Egress) -> Iterator[Fault]:
    if route.push:
        yield Fault(
            f"{path}.push",
            "found true beside rules: a token that Envoy has ahead is used for every request, expected one of the two",
        )
    if route.tunnel:
        yield Fault(
            f"{path}.tunnel",
            "found true beside rules: nobody sees the requests in a tunnel, expected one of the two",
        )
    if route.downstream is not None:
        yield Fault(
            f"{path}.downstream",
            "found it beside rules, which are for requests through Envoy: expected a route of its own, without rules",
        )
    for place, rule in enumerate(route.rules):
        where = f"{path}.rules.{place}"
        if rule.auth_context is not None and not route.flow.is_delegated:
            yield Fault(
                f"{where}.auth_context",
                f"does not go with flow {route.flow}, in which no user has a part",
            )
        if rule.scopes and route.flow is Flow.NONE:
            yield Fault(f"{where}.scopes", "does not go with flow none, which gives no token")
        elif rule.scopes:
            ruled = route.model_copy(update={"scopes": rule.scopes})
            yield from check_scopes(where, ruled, may_lack=False)
