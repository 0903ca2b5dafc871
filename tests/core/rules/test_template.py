"""Templates of paths: what they match, what includes what, and what is none."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.errors import AmbiguousRequest
from authz.core.rules.path import read_path
from authz.core.rules.template import NoTemplate, Template

SEGMENTS = st.sampled_from(["a", "B", "b", "me", "$batch", "{id}", "*", "a.b"])


@st.composite
def templates(draw: st.DrawFn) -> Template:
    """Return some template."""
    parts = draw(st.lists(SEGMENTS, max_size=3))
    end = draw(st.sampled_from(["", "/", "/**"]))
    text = "".join(f"/{part}" for part in parts) + (end if parts or end == "/**" else "/")
    return Template.parse(text)


PATHS = st.lists(
    st.sampled_from(["a", "A", "b", "me", "$batch", "$BATCH", "x", "a.b"]), max_size=4
).flatmap(
    lambda parts: st.sampled_from(
        ["".join(f"/{part}" for part in parts) + end for end in (["", "/"] if parts else ["/"])]
    )
)


def _matches(template: Template, path: str) -> bool:
    return re.fullmatch(template.exact(), read_path(path).exact) is not None


def _matches_loosely(template: Template, path: str) -> bool:
    return re.fullmatch(template.loose(), read_path(path).loose) is not None


@pytest.mark.parametrize(
    ("template", "matching", "others"),
    [
        ("/", ["/"], ["/a"]),
        ("/me", ["/me"], ["/", "/me/", "/Me", "/me/a", "/mex"]),
        ("/me/", ["/me/"], ["/me"]),
        (
            "/v1.0/users/{id}/messages",
            ["/v1.0/users/1/messages", "/v1.0/users/a%40b.example/messages"],
            ["/v1x0/users/1/messages", "/v1.0/users/messages", "/v1.0/users/1/2/messages"],
        ),
        ("/files/*", ["/files/a"], ["/files", "/files/", "/files/a/b"]),
        ("/files/**", ["/files", "/files/", "/files/a", "/files/a/b/"], ["/file", "/filesa"]),
        (
            "/**",
            ["/", "/a", "/a/b/"],
            ["/$batch", "/v1.0/$batch", "/v1.0/$BATCH", "/$batch/a", "/$batch()"],
        ),
        ("/v1.0/$batch", ["/v1.0/$batch", "/v1.0/%24batch"], ["/v1.0/$value"]),
        ("/v1.0/{any}", ["/v1.0/$value", "/v1.0/batch"], ["/v1.0/$batch", "/v1.0/$batch."]),
    ],
)
def test_a_template_matches_whole_segments(
    template: str, matching: list[str], others: list[str]
) -> None:
    """Exactly; what carries further requests is matched by its own name alone."""
    parsed = Template.parse(template)

    assert matching == [path for path in (*matching, *others) if _matches(parsed, path)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "me",
        "*",
        "**",
        "//",
        "/a//b",
        "/./a",
        "/a/..",
        "/a/**/b",
        "/a/**/",
        "/a*",
        "/{id}s",
        "/users('{id}')",
        "/{}",
        "/{1}",
        "/a?b",
        "/a#b",
        "/a;b",
        "/a%20b",
        "/a b",
        "/é",
        "/a\\b",
    ],
)
def test_what_no_path_can_match_is_no_template(text: str) -> None:
    """A path like it would be refused, or read otherwise than it is written."""
    with pytest.raises(NoTemplate):
        Template.parse(text)


@given(templates(), PATHS)
def test_what_matches_exactly_matches_loosely(template: Template, path: str) -> None:
    """So a loose reading never finds less."""
    if _matches(template, path):
        assert _matches_loosely(template, path)


@given(templates(), templates(), PATHS)
def test_a_template_that_covers_another_matches_all_that_it_does(
    one: Template, other: Template, path: str
) -> None:
    """Otherwise a rule that is reached would be called unreachable."""
    if one.covers(other) and _matches_loosely(other, path):
        assert _matches_loosely(one, path)


@given(templates(), templates(), PATHS)
def test_templates_that_match_one_path_meet(one: Template, other: Template, path: str) -> None:
    """Otherwise a contradiction would go unseen."""
    if _matches_loosely(one, path) and _matches_loosely(other, path):
        assert one.meeting(other) is not None


@given(templates(), templates())
def test_where_templates_meet_both_match(one: Template, other: Template) -> None:
    """What is shown to the operator is such a path."""
    met = one.meeting(other)
    if met is not None:
        path = met.replace("…", "x")
        assert _matches_loosely(one, path)
        assert _matches_loosely(other, path)


def test_every_template_covers_itself() -> None:
    """Whatever names its places have."""
    assert Template.parse("/a/{id}/b").covers(Template.parse("/a/{other}/b"))
    assert Template.parse("/**").covers(Template.parse("/**"))


def test_an_ambiguous_path_matches_nothing() -> None:
    """It is refused before any template sees it."""
    with pytest.raises(AmbiguousRequest):
        _matches(Template.parse("/**"), "/a/../b")


@given(templates())
def test_an_example_matches(template: Template) -> None:
    """To the letter."""
    assert _matches(template, template.example())


@pytest.mark.parametrize(
    ("template", "literal"),
    [("/", False), ("/**", False), ("/{a}/*/**", False), ("/{a}/b", True), ("/a/**", True)],
)
def test_a_template_may_have_nothing_but_wildcards(template: str, *, literal: bool) -> None:
    """Or no segment at all."""
    assert literal is Template.parse(template).has_literal
