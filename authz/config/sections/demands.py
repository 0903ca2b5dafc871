"""Demands on a caller's token: scopes, roles, authentication context, and section `requires`."""

from typing import Annotated, Any, Final

from pydantic import Field, PlainSerializer
from pydantic_core import SchemaValidator, core_schema

from authz.config.sections.section import Section
from authz.config.sections.values import Expected, Guid, Scalar, text
from authz.core import grammar
from authz.core.requirement import Clauses

ANY: Final = "any"
ALL: Final = "all"


def _apart(value: Any) -> Any:
    """Take apart what one variable gives: several scopes, separated by blanks (RFC 6749 section 3.3)."""
    if not isinstance(value, list | tuple):
        return value
    # A text without any scope stays, to be refused: an empty list would demand nothing.
    return [
        part
        for one in value
        for part in ((one.split() or [one]) if isinstance(one, str) else [one])
    ]


def _clauses(name: Scalar, *, blanks: bool) -> Scalar:
    """Return the type of a list, of which one name is enough, or of a mapping with `any` and `all`.

    Args:
        name: The type of one name.
        blanks: Whether one text may give several names, separated by blanks.
    """
    one = core_schema.no_info_plain_validator_function(name.read)
    some = core_schema.tuple_variable_schema(one, min_length=1)
    forms = core_schema.typed_dict_field(some, required=False)
    listed = SchemaValidator(core_schema.tuple_variable_schema(one))
    mapped = SchemaValidator(
        core_schema.typed_dict_schema({ANY: forms, ALL: forms}, extra_behavior="forbid")
    )
    apart = _apart if blanks else lambda value: value

    def read(value: Any) -> Clauses:
        if not isinstance(value, dict):
            names = listed.validate_python(apart(value))
            return (names,) if names else ()
        if not value:
            raise Expected(f"expected {ANY}, {ALL} or both")
        found = mapped.validate_python({key: apart(each) for key, each in value.items()})
        enough = [found[ANY]] if ANY in found else []
        return (*enough, *((each,) for each in found.get(ALL, ())))

    items = {"type": "array", "items": name.schema}
    entries = {**items, "minItems": 1}
    mapping = {
        "type": "object",
        "properties": {ANY: entries, ALL: entries},
        "additionalProperties": False,
        "minProperties": 1,
    }
    kind = f"list: {name.schema['x-kind']}; or mapping of `{ANY}` and `{ALL}`"
    return Scalar(read, {"anyOf": [items, mapping], "x-kind": kind})


def _written(clauses: Clauses) -> Any:
    """Return clauses in a form that is read as the same."""
    if len(clauses) <= 1:
        return [name for clause in clauses for name in clause]
    enough = [list(clause) for clause in clauses if len(clause) > 1]
    needed = [clause[0] for clause in clauses if len(clause) == 1]
    return {**({ANY: enough[0]} if enough else {}), **({ALL: needed} if needed else {})}


def _without_resource(value: str) -> str:
    if "://" in value:
        raise Expected(
            "expected the part after the last slash, because tokens have a scope without its resource"
        )
    return value


_SCOPE: Final = text(
    grammar.SCOPE,
    kind="scope",
    expected="one scope without blanks (RFC 6749 section 3.3)",
    make=_without_resource,
)
_ROLE: Final = text(r"\S+", kind="role", expected="the value of an app role, no blanks")

Scopes = Annotated[Clauses, _clauses(_SCOPE, blanks=True), PlainSerializer(_written)]
Roles = Annotated[Clauses, _clauses(_ROLE, blanks=False), PlainSerializer(_written)]
AuthContext = Annotated[
    str,
    text(
        "c[1-9][0-9]?",
        kind="authentication context",
        expected="the id of an authentication context, from c1 to c99",
    ),
]


class Requires(Section):
    """What the user must bring before a token is exchanged for the agent."""

    scopes: Scopes = Field(
        default=(),
        description="Delegated permissions that the user's token needs: one of a list; of a mapping one of "
        "`any` and each of `all`.",
    )
    user_roles: Roles = Field(
        default=(), description="App roles that the user's token needs, written as `scopes` are."
    )
    actors: tuple[Guid, ...] = Field(
        default=(),
        description="Client ids the user's token may have been issued to. Without `actors` and "
        "`actor_blueprints`: every one.",
    )
    actor_blueprints: tuple[Guid, ...] = Field(
        default=(),
        description="Blueprints to whose agents the user's token may have been issued, beside `actors`: "
        "all agents of the blueprint. Needs the optional claim `xms_par_app_azp` in that token.",
    )
    auth_context: AuthContext | None = Field(
        default=None,
        description="Authentication context that the user's sign-in must satisfy, else "
        "`step_up_required`.",
    )
