"""What public paths must keep to: some path stays closed, each has an effect, and no rule denies it."""

import re
from collections.abc import Iterator, Mapping, Sequence

from authz.config.faults import Fault
from authz.config.sections.routes import Inbound
from authz.config.sections.rules import Mcp, Rule, names_of
from authz.config.shown import shown
from authz.core.rules.public import PUBLIC, READING
from authz.core.rules.template import Template


def check_public_paths(routes: Mapping[str, Inbound]) -> Iterator[Fault]:
    """Return the faults of the public paths of all inbound routes."""
    for name, route in routes.items():
        path = f"inbound.{name}"
        templates = [Template.parse(each) for each in route.public_paths]
        for place, template in enumerate(templates):
            others = (*templates[:place], *templates[place + 1 :])
            yield from _check_width(f"{path}.public_paths.{place}", template)
            yield from _check_effect(
                f"{path}.public_paths.{place}", template, templates[:place], others
            )
            yield from _check_denials(f"{path}.public_paths.{place}", template, route.rules)
            yield from _check_messages(f"{path}.public_paths.{place}", template, route.mcp)
        if templates and PUBLIC in (names := names_of(route.rules)):
            yield Fault(
                f"{path}.rules.{names.index(PUBLIC)}.name",
                f"found {PUBLIC!r}, which records say of public_paths: expected another name",
            )


def _check_width(path: str, template: Template) -> Iterator[Fault]:
    if template.segments and not template.has_literal:
        yield Fault(
            path,
            f"found {shown(template.text)}, with which nearly every path would need no token: expected a literal "
            "segment in it, such as /static/**",
        )


def _check_effect(
    path: str, template: Template, before: Sequence[Template], others: Sequence[Template]
) -> Iterator[Fault]:
    """Return the fault of a template whose paths another one has; of two that are the same, the later's."""
    for other in others:
        if not _includes(other, template) or (_includes(template, other) and other not in before):
            continue
        yield Fault(
            path,
            f"found {shown(template.text)}, which has no effect: {shown(other.text)} includes it",
        )
        return


def _includes(wide: Template, narrow: Template) -> bool:
    """Whether each path of one template matches the other, to the letter."""
    return wide.covers(narrow) and re.fullmatch(wide.exact(), narrow.example()) is not None


def _check_messages(path: str, template: Template, mcp: Mcp | None) -> Iterator[Fault]:
    """Return the fault of a public path at which an MCP server answers: its sessions are read there, too."""
    for endpoint in () if mcp is None else mcp.paths:
        if re.fullmatch(template.exact(), endpoint) is not None:
            yield Fault(
                path,
                f"found {shown(template.text)}, at which the MCP server takes messages and anybody could read a session: "
                "expected another path",
            )


def _check_denials(path: str, template: Template, rules: Sequence[Rule]) -> Iterator[Fault]:
    """Return the fault of a denial inside of what is public: public paths are looked at first."""
    for name, rule in zip(names_of(tuple(rules)), rules, strict=True):
        if not rule.deny or (rule.methods and READING.isdisjoint(rule.methods)):
            continue
        for text in rule.paths:
            denied = Template.parse(text)
            if denied.covers(template):
                continue
            met = denied.meeting(template)
            if met is not None:
                yield Fault(
                    path,
                    f"found {shown(template.text)}, of which rule {name} denies {met}: public paths are looked at before "
                    "rules, so expected paths that leave it out",
                )
                return
