"""The rule of a request: the first that is for it, however the destination reads it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.errors import AmbiguousRequest, AuthzError, RuleDenied
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
    assert "all" == rules.allow(asked("GET", f"/{'x' * 5000}"))

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
