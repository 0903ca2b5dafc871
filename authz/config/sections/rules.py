"""Rules of a route: which requests they are for, and what follows.

What they mean is `authz.core.rules`; what several of them must keep to is `authz.config.rules.rule_checks`.
"""

from typing import Annotated, Any, Final

from pydantic import Field

from authz.config.sections.demands import AuthContext, Roles, Scopes
from authz.config.sections.section import Section
from authz.config.sections.values import Expected, Name, Scalar, Scope, Switch, text
from authz.core.rules.template import NoTemplate, Template

MOST_RULES: Final = 256
"""Rules that one route takes."""
MOST_PATHS: Final = 64
"""Paths that one list takes."""
_UNRULED: Final = frozenset({"CONNECT", "TRACE", "TRACK"})


def _method(value: str) -> str:
    if value in _UNRULED:
        raise Expected(
            f"expected no {value}: no rule allows it, and it is refused where none is for it"
        )
    return value


def _template(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST_PATH:
        raise Expected("expected a path such as /v1.0/users/{id}/messages or /files/**")
    try:
        return Template.parse(value).text
    except NoTemplate as error:
        raise Expected(str(error)) from None


_LONGEST_PATH: Final = 512

Method = Annotated[
    str,
    text(
        "[A-Z][A-Z0-9_-]{0,31}",
        kind="method",
        expected="a method in capitals, such as GET",
        make=_method,
    ),
]
PathTemplate = Annotated[
    str,
    Scalar(
        _template,
        {"type": "string", "pattern": "^/", "maxLength": _LONGEST_PATH, "x-kind": "path template"},
    ),
]


class Rule(Section):
    """One rule of a route. The first that is for a request decides; what none is for is denied."""

    name: Name | None = Field(
        default=None,
        description="Name in records, metrics and metadata.",
        json_schema_extra={"x-default": "its place: `rule1`, `rule2`…"},
    )
    methods: tuple[Method, ...] = Field(
        default=(), description="Methods that the rule is for. Empty: every one."
    )
    paths: tuple[PathTemplate, ...] = Field(
        default=(),
        max_length=MOST_PATHS,
        description="Paths that the rule is for, without query: literal segments, `{name}` or `*` for one segment, "
        "`**` at the end for all that follows. Empty: every one.",
    )
    deny: Switch = Field(default=False, description="Whether such a request is denied.")
    auth_context: AuthContext | None = Field(
        default=None,
        description="Authentication context of Conditional Access that the user's token needs (claim `acrs`). "
        "A user without it is asked to sign in with it.",
    )


class InboundRule(Rule):
    """A rule of an inbound route: what a caller needs beside what the route demands."""

    scopes: Scopes = Field(
        default=(),
        description="Delegated permissions that a user's token needs, too; written as the route's `scopes`.",
    )
    roles: Roles = Field(
        default=(),
        description="App roles that the token needs, too, of whom the route's `roles` would count for.",
    )
    user_roles: Roles = Field(
        default=(),
        description="App roles that a user's token needs, too, as the route's `user_roles`.",
    )


class EgressRule(Rule):
    """A rule of an egress route: which token goes out."""

    scopes: tuple[Scope, ...] = Field(
        default=(),
        description="Scopes that are exchanged instead of the route's.",
        json_schema_extra={"x-default": "those of the route"},
    )


def names_of(rules: tuple[Rule, ...]) -> list[str]:
    """Return the name of each rule, given or by its place."""
    return [rule.name or f"rule{place}" for place, rule in enumerate(rules, 1)]
