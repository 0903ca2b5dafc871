"""Rules of a route: which requests they are for, and what follows.

What they mean is `authz.core.rules`; what several must keep to: `authz.config.consistency.rule_checks`.
"""

from typing import Annotated, Any, Final

from pydantic import Field

from authz.config.sections.demands import AuthContext, Roles, Scopes
from authz.config.sections.section import Section
from authz.config.sections.values import Expected, Name, Scalar, Scope, Switch, size, text
from authz.core.operation import CALL
from authz.core.rules.rule import METHOD, UNRULED
from authz.core.rules.template import NoTemplate, Template

MOST_RULES: Final = 256
"""Rules that one route takes."""
MOST_PATHS: Final = 64
"""Paths that one list takes."""


def _method(value: str) -> str:
    if value in UNRULED:
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
        METHOD,
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


def _endpoint(value: Any) -> str:
    found = _template(value)
    if "*" in Template.parse(found).segments or Template.parse(found).rest or found == "/":
        raise Expected("expected one path such as /mcp, without wildcards")
    return found


Endpoint = Annotated[
    str,
    Scalar(
        _endpoint,
        {
            "type": "string",
            "pattern": "^/[^*{}]+$",
            "maxLength": _LONGEST_PATH,
            "x-kind": "path",
        },
    ),
]
Tool = Annotated[
    str,
    text(
        r"\*|[A-Za-z0-9_./-]{1,128}",
        kind="tool",
        expected="the name of a tool, or * for every tool",
    ),
]


def _operation(value: str) -> str:
    if value in (CALL, "tools/*"):
        raise Expected(f"expected tools, by their names, in place of {value}")
    return value


OperationName = Annotated[
    str,
    text(
        r"\*|[A-Za-z0-9_$-]{1,64}(?:/(?:\*|[A-Za-z0-9_$./-]{1,64}))?",
        kind="operation",
        expected="an operation of MCP such as initialize, resources/read or notifications/*",
        make=_operation,
    ),
]


class Mcp(Section):
    """Where a route's MCP server takes messages, so that rules can be about tools and operations."""

    paths: tuple[Endpoint, ...] = Field(
        default=("/mcp",),
        min_length=1,
        max_length=16,
        description="Paths of its endpoint, exactly. What is sent there by POST has to be one message of JSON-RPC "
        "that can be read in one way only: batches are refused.",
    )
    max_body: Annotated[int, size(least=1024, most=512 * 1024)] = Field(
        default=64 * 1024,
        description="Longest message. Envoy holds it back for the service to read, and refuses longer ones (413).",
    )


class InboundMcp(Mcp):
    """The same of an inbound route, whose callers open sessions there."""

    bind_sessions: Switch = Field(
        default=False,
        description="Whether a session belongs to the caller who used it first: a request with its `Mcp-Session-Id` and "
        "another caller's token is refused.",
    )


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
    tools: tuple[Tool, ...] = Field(
        default=(),
        description="Tools of the route's MCP server whose call the rule is for; `*` for every one. Needs `mcp`.",
    )
    operations: tuple[OperationName, ...] = Field(
        default=(),
        description="Other operations of MCP that the rule is for: `initialize`, `tools/list`, `notifications/*`, `*` "
        "for every one but calls of tools. `response` is a client's answer to its server. Needs `mcp`.",
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
