"""`Rules`: the ordered rules of one route, and the search for the rule of a request.

The first rule that matches decides, and what no rule matches is denied. A request that a destination may
read as one that meets another rule is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from authz.core.errors import AmbiguousRequest, RuleDenied
from authz.core.operation import CALL, Operation, loosened, read_operation
from authz.core.request import CheckRequest
from authz.core.rules.path import read_path
from authz.core.rules.template import Template

Outcome = TypeVar("Outcome")

ANY: Final = "*"
"""Stands for every tool, for every operation, or for each that begins alike."""
SENDS: Final = "POST"
"""Method by which an MCP server takes messages (MCP, "Streamable HTTP")."""
UNRULED: Final = frozenset({"CONNECT", "TRACE", "TRACK"})
"""What a rule cannot allow: connections, and answers that repeat the request with its token."""
METHOD: Final = "[A-Z][A-Z0-9_-]{0,31}"
"""Pattern of a method in capitals."""
_METHOD: Final = re.compile(METHOD)

_MOST_KNOWN: Final = 1024
"""Requests whose rule is remembered for each route, so that most are found by one look-up."""
_LONGEST_KNOWN: Final = 256
"""Characters of the target of such a request, and of what it names."""


class _Asked(NamedTuple):
    method: str
    target: str
    operation: Operation | None

    @property
    def is_short(self) -> bool:
        name = "" if self.operation is None else self.operation.name
        return len(self.target) + len(name) <= _LONGEST_KNOWN


@dataclass(frozen=True, slots=True)
class Rule(Generic[Outcome]):
    """One rule.

    Attributes:
        name: Its name, among those of the route.
        outcome: What holds for a request that it allows; None where it denies.
        methods: Methods that it is for; empty for all.
        templates: Paths that it is for; empty for all.
        tools: Tools whose call it is for; `*` for all.
        operations: Other operations of MCP that it is for; `*` for all, and `x/*` for those that begin so.
            With neither, it is for every request.
    """

    name: str
    outcome: Outcome | None
    methods: frozenset[str] = frozenset()
    templates: tuple[Template, ...] = ()
    tools: frozenset[str] = frozenset()
    operations: frozenset[str] = frozenset()
    _exact: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _loose: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_exact", _any_of(each.exact() for each in self.all_templates))
        object.__setattr__(self, "_loose", _any_of(each.loose() for each in self.all_templates))

    @property
    def all_templates(self) -> tuple[Template, ...]:
        """Its templates, or the one that matches every path but those that only their own name matches."""
        return self.templates or (EVERY_PATH,)

    def takes(self, method: str, path: str, operation: Operation | None, *, loosely: bool) -> bool:
        """Whether it is for such a request."""
        if self.methods and method not in self.methods:
            return False
        if (self.tools or self.operations) and not self._names(operation, loosely=loosely):
            return False
        return (self._loose if loosely else self._exact).fullmatch(path) is not None

    def _names(self, operation: Operation | None, *, loosely: bool) -> bool:
        """Whether it names an operation."""
        if operation is None:
            return False
        tools, operations = self.tools, self.operations
        if loosely:
            operation = operation.loosened()
            tools, operations = _loosened(tools), _loosened(operations)
        if operation.method == CALL:
            return operation.name in tools or ANY in tools
        return not operations.isdisjoint(names_including(operation.method))


class Rules(Generic[Outcome]):
    """The rules of one route, in their order.

    Args:
        rules: The rules.
        endpoints: Paths at which the route's MCP server takes messages. Each is read there, and refused where
            it cannot be.
    """

    def __init__(
        self, rules: tuple[Rule[Outcome], ...], *, endpoints: tuple[str, ...] = ()
    ) -> None:
        self._rules = rules
        self.endpoints = endpoints
        self._loose_endpoints = frozenset(read_path(each).loose for each in endpoints)
        self._known: dict[_Asked, Rule[Outcome]] = {}

    def __iter__(self) -> Iterator[Rule[Outcome]]:
        return iter(self._rules)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rules):
            return NotImplemented
        return (self._rules, self.endpoints) == (other._rules, other.endpoints)

    __hash__ = None  # type: ignore[assignment]

    def allow(self, request: CheckRequest) -> Outcome:
        """Return what holds for a request.

        Raises:
            AmbiguousRequest: Destinations may read it in different ways.
            RuleDenied: Its rule denies it, or it has none.
        """
        rule = self._find(request)
        if rule.outcome is None:
            raise RuleDenied(f"rule {rule.name!r} denies it", rule=rule.name)
        return rule.outcome

    def _find(self, request: CheckRequest) -> Rule[Outcome]:
        if request.reads_otherwise:
            raise AmbiguousRequest(
                f"the header {request.reads_otherwise} names another method or path"
            )
        asked = _Asked(request.method, request.path, self._operation(request))
        rule = self._known.get(asked)
        if rule is None:
            rule = self._search(asked)
            if asked.is_short:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[asked] = rule
        return rule

    def _operation(self, request: CheckRequest) -> Operation | None:
        """Return what is asked of the MCP server; None where no message is sent to it."""
        if not self.endpoints or request.path.partition("?")[0] not in self.endpoints:
            return None
        if request.method == SENDS:
            return read_operation(request.body)
        if request.body is not None and request.body.content:
            raise AmbiguousRequest("a message to the MCP server comes by another method than POST")
        return None

    def _search(self, asked: _Asked) -> Rule[Outcome]:
        method = asked.method
        if method.upper() in UNRULED:
            raise RuleDenied(f"no rule allows the method {method}")
        if _METHOD.fullmatch(method) is None:
            raise AmbiguousRequest("the method is not in capitals, or no method")
        path, operation = read_path(asked.target), asked.operation
        is_endpoint = asked.target.partition("?")[0] in self.endpoints
        if path.loose in self._loose_endpoints and not is_endpoint:
            raise AmbiguousRequest("some servers take the path for that of the MCP server")
        found = self._first(method, path.loose, operation, loosely=True)
        if found is None:
            what = "" if operation is None else f" and {operation.tool or operation.method!r}"
            raise RuleDenied(f"no rule is for this method and path{what}")
        if found is not self._first(method, path.exact, operation, loosely=False):
            raise AmbiguousRequest(
                f"some servers take the request for one of rule {found.name!r}, others do not"
            )
        return found

    def _first(
        self, method: str, path: str, operation: Operation | None, *, loosely: bool
    ) -> Rule[Outcome] | None:
        return next(
            (rule for rule in self._rules if rule.takes(method, path, operation, loosely=loosely)),
            None,
        )


EVERY_PATH: Final = Template.parse("/**")
"""What a rule without paths is for."""


def names_including(operation: str) -> frozenset[str]:
    """Return the names by which a rule is for an operation: its own, its family's, that of all."""
    return frozenset({operation, f"{operation.partition('/')[0]}/{ANY}", ANY})


def _loosened(names: frozenset[str]) -> frozenset[str]:
    return frozenset(map(loosened, names))


def _any_of(expressions: Iterator[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{each})" for each in expressions))
