"""Notices about rules that are valid but may let through, or refuse, what their operator does not expect."""

from collections.abc import Iterator, Sequence

from authz.config.consistency.rule_checks import templates_of
from authz.config.faults import Notice
from authz.config.model import Config
from authz.config.sections.routes import Egress, Inbound
from authz.config.sections.rules import Rule, names_of
from authz.config.shown import shown
from authz.core.rules.rule import names_including

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
        if not rule.deny:
            continue
        for name, other in zip(names[:place], rules[:place], strict=True):
            if other.deny or other.tools or other.operations or not other.methods:
                continue
            passing = [each for each in other.methods if not rule.methods or each in rule.methods]
            wider = [
                theirs.text
                for theirs in templates_of(other)
                if any(
                    theirs.covers(denied) and not denied.covers(theirs)
                    for denied in templates_of(rule)
                )
            ]
            if passing and wider:
                yield Notice(
                    f"{path}.{place}",
                    f"denies less than its paths: {', '.join(passing)} passes before it by {name} ({shown(wider[0])}). "
                    "If the denial is meant for every method, put it first",
                )


def _about_beginnings(path: str, route: Inbound | Egress) -> Iterator[Notice]:
    """Return where clients may open sessions, and those that know a newer MCP may not begin."""
    if route.mcp is None:
        return
    allowed = [rule for rule in route.rules if not rule.deny]
    if any(not (rule.tools or rule.operations) and not rule.paths for rule in allowed):
        return
    operations = {each for rule in allowed for each in rule.operations}
    if _FIRST_OF_SESSIONS in operations and operations.isdisjoint(names_including(_FIRST)):
        yield Notice(
            path,
            f"allow {_FIRST_OF_SESSIONS} and not {_FIRST}, with which clients of MCP 2026-07-28 begin: some of them "
            "do not try another way",
        )
