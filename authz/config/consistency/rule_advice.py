"""Notices about rules that are valid but may let through, or refuse, what their operator does not expect."""

import re
from collections.abc import Iterator, Sequence

from authz.config.consistency.rule_checks import templates_of
from authz.config.faults import Notice
from authz.config.model import Config
from authz.config.sections.routes import Egress, Inbound
from authz.config.sections.rules import Mcp, Rule, names_of
from authz.config.shown import shown
from authz.core.rules.rule import SENDS, names_including
from authz.core.rules.template import Template

_FIRST_OF_SESSIONS = "initialize"
_FIRST = "server/discover"
"""With which clients of MCP 2026-07-28 begin."""


def advice_on_rules(config: Config) -> Iterator[Notice]:
    """Return what the operator should know of the rules of all routes."""
    for name, inbound in config.inbound.items():
        yield from _about_denials(f"inbound.{name}.rules", inbound.rules)
        yield from _about_beginnings(f"inbound.{name}.rules", inbound)
    for name, egress in config.egress.items():
        yield from _about_denials(f"egress.{name}.rules", egress.rules)
        yield from _about_beginnings(f"egress.{name}.rules", egress)


def _about_denials(path: str, rules: Sequence[Rule]) -> Iterator[Notice]:
    """Return where a wider allowance before a denial takes some of its methods."""
    names = names_of(tuple(rules))
    for place, rule in enumerate(rules):
        if not rule.deny or _is_about_messages(rule):
            continue
        for index, denied in enumerate(templates_of(rule)):
            found = _passing(rule, denied, list(zip(names, rules[:place], strict=False)))
            if found is not None:
                name, wider, methods = found
                yield Notice(
                    f"{path}.{place}.paths.{index}",
                    f"the rule does not deny every request at {shown(denied.text)}: {name} before it ({shown(wider)}) allows "
                    f"{', '.join(methods)}. If the denial is meant for each method, put it first",
                )
                break


def _passing(
    rule: Rule, denied: Template, before: Sequence[tuple[str, Rule]]
) -> tuple[str, str, list[str]] | None:
    """Return a wider allowance before a denial, its path, and the denied methods that it allows."""
    gone: set[str] = set()
    for name, other in before:
        covering = [each for each in templates_of(other) if each.covers(denied)]
        if _is_about_messages(other) or not covering or not other.methods:
            continue
        passing = [
            each
            for each in other.methods
            if each not in gone and (not rule.methods or each in rule.methods)
        ]
        if other.deny:
            gone |= set(passing)
        elif passing and (wider := next((e for e in covering if not denied.covers(e)), None)):
            return name, wider.text, passing
    return None


def _about_beginnings(path: str, route: Inbound | Egress) -> Iterator[Notice]:
    """Return where clients may open sessions, and those that know a newer MCP may not begin."""
    if route.mcp is None:
        return
    named = {each for rule in route.rules for each in rule.operations}
    allowed = {each for rule in route.rules if not rule.deny for each in rule.operations}
    if _FIRST_OF_SESSIONS not in allowed or not named.isdisjoint(names_including(_FIRST)):
        return
    if not any(_takes_messages(rule, route.mcp) for rule in route.rules):
        yield Notice(
            path,
            f"allow {_FIRST_OF_SESSIONS} and not {_FIRST}, with which clients of MCP 2026-07-28 begin: some of them "
            "do not try another way",
        )


def _takes_messages(rule: Rule, mcp: Mcp) -> bool:
    """Whether a rule without tools and operations allows each message to a server."""
    if rule.deny or _is_about_messages(rule) or (rule.methods and SENDS not in rule.methods):
        return False
    return any(
        re.fullmatch(each.exact(), endpoint)
        for each in templates_of(rule)
        for endpoint in mcp.paths
    )


def _is_about_messages(rule: Rule) -> bool:
    return bool(rule.tools or rule.operations)
