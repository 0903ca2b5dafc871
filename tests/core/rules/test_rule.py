"""The rule of a request: the first that is for it, however the destination reads it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.errors import AmbiguousRequest, AuthzError, RuleDenied
from authz.core.operation import Body
from authz.core.request import CheckRequest
from authz.core.rules.rule import Rule, Rules
from authz.core.rules.template import Template


def rule(name: str, *paths: str, methods: tuple[str, ...] = (), deny: bool = False) -> Rule[str]:
    """Return a rule whose outcome is its name."""
    templates = tuple(map(Template.parse, paths))
    return Rule(name, None if deny else name, frozenset(methods), templates)


def asked(method: str, path: str) -> CheckRequest:
    """Return a request."""
    return CheckRequest(method, "api.example", path)


RULES = Rules(
    (
        rule("read", "/me", "/me/{part}", methods=("GET", "HEAD")),
        rule("no-mail", "/users/{id}/mail/**", deny=True),
        rule("users", "/users/**"),
        rule("post", methods=("POST",)),
    )
)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/me", "read"),
        ("HEAD", "/me/photo", "read"),
        ("GET", "/me?$select=id", "read"),
        ("DELETE", "/users/1", "users"),
        ("POST", "/me", "post"),
        ("POST", "/anything/at/all/", "post"),
        ("POST", "/users", "users"),
    ],
)
def test_the_first_rule_that_is_for_a_request_decides(method: str, path: str, name: str) -> None:
    """By method and path, without query. Twice, since it is remembered."""
    assert [name, name] == [RULES.allow(asked(method, path)) for _ in range(2)]


@pytest.mark.parametrize(
    ("method", "path", "by"),
    [
        ("PUT", "/me", None),
        ("GET", "/other", None),
        ("POST", "/$batch", None),
        ("GET", "/users/1/mail", "no-mail"),
        ("GET", "/users/1/mail/2", "no-mail"),
        ("TRACE", "/users/1", None),
        ("trace", "/users/1", None),
        ("CONNECT", "/users/1", None),
    ],
)
def test_what_no_rule_allows_is_denied(method: str, path: str, by: str | None) -> None:
    """The denial names the rule that denies, if there is one."""
    for _ in range(2):
        with pytest.raises(RuleDenied) as denied:
            RULES.allow(asked(method, path))
        assert by == denied.value.rule


@pytest.mark.parametrize(
    ("method", "path"),
    [
        # A server that ignores case serves mail, which is denied; to others it is under /users.
        ("GET", "/users/1/Mail"),
        ("GET", "/Users/1"),
        ("GET", "/users/1/mail."),
        ("GET", "/users/1/%EF%BD%8Dail"),
        ("GET", "/me/"),
        ("get", "/me"),
        ("Delete", "/users/1"),
        ("", "/users/1"),
        ("GET", "/users/../me"),
        ("GET", ""),
    ],
)
def test_a_request_of_two_readings_is_refused(method: str, path: str) -> None:
    """One of them would meet another rule, or none."""
    with pytest.raises(AmbiguousRequest):
        RULES.allow(asked(method, path))


def test_a_header_that_names_another_request_is_refused() -> None:
    """Also after the same method and path were allowed."""
    fine = asked("GET", "/me")
    assert "read" == RULES.allow(fine)

    with pytest.raises(AmbiguousRequest, match="x-original-url"):
        RULES.allow(fine._replace(reads_otherwise="x-original-url"))


def test_many_paths_take_no_memory_without_end() -> None:
    """What is remembered is bounded in number and length, and found again all the same."""
    rules = Rules((rule("all", "/**"),))
    for number in range(3000):
        assert "all" == rules.allow(asked("GET", f"/{number}"))
    assert "all" == rules.allow(asked("GET", f"/{'x' * 3000}"))

    known = rules._known
    assert len(known) <= 1024
    assert max(len(each.target) for each in known) <= 256


def test_rules_are_compared_by_what_they_say() -> None:
    """Not by what was asked of them."""
    one, other = Rules((rule("a", "/a"),)), Rules((rule("a", "/a"),))
    one.allow(asked("GET", "/a"))

    assert one == other
    assert one != Rules((rule("b", "/b"),))
    assert one != "a"
    assert ["a"] == [each.name for each in one]


SEGMENT = st.sampled_from(
    ["a", "A", "b", "me", "ME", "mail", "Mail", "$batch", "a.", "%61", "..", ""]
)
TARGETS = st.lists(SEGMENT, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
METHODS = st.sampled_from(["GET", "POST", "get", "TRACE"])
PLACES = st.sampled_from(["a", "b", "me", "mail", "{id}", "*"])


@st.composite
def some_rules(draw: st.DrawFn) -> Rules[str]:
    """Return some rules, denials among them."""
    made = []
    for place in range(draw(st.integers(1, 4))):
        parts = draw(st.lists(PLACES, max_size=3))
        text = "/" + "/".join(parts) + draw(st.sampled_from(["", "/**"]) if parts else st.just(""))
        methods = draw(st.sampled_from([(), ("GET",), ("GET", "POST")]))
        made.append(rule(f"r{place}", text, methods=methods, deny=draw(st.booleans())))
    return Rules(tuple(made))


def _as_served(method: str, target: str) -> tuple[str, str]:
    """Return the request that a server sees which decodes, resolves dots and ignores what some ignore."""
    parts: list[str] = []
    for part in target.replace("%61", "a").split("/")[1:]:
        if part == "..":
            parts[-1:] = []
        elif part.rstrip("."):
            parts.append(part.rstrip(".").lower())
    return method.upper(), "/" + "/".join(parts)


@given(some_rules(), METHODS, TARGETS)
def test_a_forgiving_server_is_asked_for_nothing_that_is_not_allowed(
    rules: Rules[str], method: str, target: str
) -> None:
    """Whatever is let through meets the same rule as what such a server makes of it."""
    try:
        name = rules.allow(asked(method, target))
    except AuthzError:
        return

    assert name == rules.allow(asked(*_as_served(method, target)))


def posted(content: object, path: str = "/mcp") -> CheckRequest:
    """Return a message to an MCP server."""
    body = Body(json.dumps(content).encode(), is_whole=True, media_type="application/json")
    return asked("POST", path)._replace(body=body)


def call(tool: str) -> dict[str, object]:
    """Return a call of a tool."""
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}}


def sent(method: str) -> dict[str, object]:
    """Return another request."""
    return {"jsonrpc": "2.0", "id": 1, "method": method}


def _named(name: str, *, tools: str = "", operations: str = "", deny: bool = False) -> Rule[str]:
    return Rule(
        name,
        None if deny else name,
        tools=frozenset(tools.split()),
        operations=frozenset(operations.split()),
    )


MCP = Rules(
    (
        _named("basics", operations="initialize tools/list notifications/* response"),
        _named("search", tools="search fetch"),
        _named("no-delete", tools="delete", deny=True),
        rule("stream", "/mcp", methods=("GET", "DELETE")),
        rule("other", "/other/**"),
    ),
    endpoints=("/mcp",),
)


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (posted(call("search")), "search"),
        (posted(call("fetch"), "/mcp?x=1"), "search"),
        (posted(sent("initialize")), "basics"),
        (posted(sent("notifications/progress")), "basics"),
        (posted({"jsonrpc": "2.0", "id": 1, "result": {}}), "basics"),
        (asked("GET", "/mcp"), "stream"),
        (asked("DELETE", "/mcp"), "stream"),
        (asked("POST", "/other/a"), "other"),
        (posted(call("delete"), "/other/a"), "other"),
    ],
)
def test_rules_name_tools_and_operations(request_: CheckRequest, name: str) -> None:
    """At the endpoint alone: elsewhere a message is a body like any other."""
    assert [name, name] == [MCP.allow(request_) for _ in range(2)]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (posted(call("delete")), RuleDenied),
        (posted(call("other")), RuleDenied),
        (posted(sent("resources/list")), RuleDenied),
        (posted(call("search"), "/elsewhere"), RuleDenied),
        # Servers that ignore case would call a tool that is denied, or one that is allowed.
        (posted(call("Delete")), AmbiguousRequest),
        (posted(call("SEARCH")), AmbiguousRequest),
        (posted(call("search") | {"method": "TOOLS/CALL"}), AmbiguousRequest),
        (posted([call("search")]), AmbiguousRequest),
        (asked("POST", "/mcp"), AmbiguousRequest),
        (asked("POST", "/MCP"), AmbiguousRequest),
        (posted(call("search"), "/mcp/"), AmbiguousRequest),
        (posted(call("search"), "/%6Dcp"), AmbiguousRequest),
        (posted(call("search"))._replace(method="GET"), AmbiguousRequest),
    ],
)
def test_what_rules_of_tools_do_not_allow(request_: CheckRequest, error: type[AuthzError]) -> None:
    """Also right after the server was sent something that they do."""
    assert "search" == MCP.allow(posted(call("search")))
    for _ in range(2):
        with pytest.raises(error):
            MCP.allow(request_)


def test_every_tool_or_operation_can_be_named_at_once() -> None:
    """Neither star stands for the other's."""
    tools = Rules((_named("tools", tools="*"),), endpoints=("/mcp",))
    operations = Rules((_named("operations", operations="*"),), endpoints=("/mcp",))

    assert "tools" == tools.allow(posted(call("any")))
    assert "operations" == operations.allow(posted(sent("ping")))
    with pytest.raises(RuleDenied):
        tools.allow(posted(sent("ping")))
    with pytest.raises(RuleDenied):
        operations.allow(posted(call("any")))
    assert tools != Rules(tuple(tools))
