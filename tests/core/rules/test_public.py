"""`PublicPaths`: which requests need no token, and which only look like them."""

import pytest

from authz.core.rules.public import PublicPaths
from authz.core.rules.template import Template


def paths(*texts: str) -> PublicPaths:
    """Return public paths as they are written."""
    return PublicPaths(tuple(Template.parse(text) for text in texts))


PUBLIC = paths("/.well-known/agent-card.json", "/healthz", "/static/**", "/users/{id}/picture")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(
    "target",
    [
        "/.well-known/agent-card.json",
        "/healthz",
        "/healthz?verbose=1",
        "/static",
        "/static/",
        "/static/App.js?v=1",
        "/static/img/a%20b.png",
        "/users/7/picture",
    ],
)
def test_what_is_configured_is_public_to_those_who_read(method: str, target: str) -> None:
    """With any query."""
    assert PUBLIC.include(method, target)
    # From memory, too.
    assert PUBLIC.include(method, target)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        *(
            (method, "/healthz")
            for method in ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE")
        ),
        *((method, "/healthz") for method in ("get", "Get", "PROPFIND", "", "GET ")),
        *(
            ("GET", target)
            for target in (
                "",
                "/",
                "*",
                "healthz",
                "/healthz/",
                "/Healthz",
                "/healthz.",
                "/healthz/x",
                "/healthz;v=1",
                "/healthz%2f..",
                "/health%7a",
                "/healthz%00",
                "//healthz",
                "/./healthz",
                "/a/../healthz",
                "/healthz#",
                "/healthz\\",
                "/healthz?_method=DELETE",
                "/healthz?a=b&x-http-method-override=DELETE",
                "/static/../tasks",
                "/static/..%2ftasks",
                "/static/..;/tasks",
                "/static/%2e%2e/tasks",
                "/static//tasks",
                "/static/$batch",
                "/STATIC/app.js",
                "/staticx",
                "/users/7/8/picture",
                "/users//picture",
                "/users/$batch/picture",
                "http://agent.example/healthz",
            )
        ),
    ],
)
def test_anything_else_is_not(method: str, target: str) -> None:
    """To the letter: what a server may read as another path, or another method, needs a token."""
    assert not PUBLIC.include(method, target)


def test_a_method_is_not_remembered_with_its_path() -> None:
    """A path that was just public is none for a method that changes something."""
    assert PUBLIC.include("GET", "/static/1")
    assert not PUBLIC.include("DELETE", "/static/1")


def test_memory_of_paths_has_a_bound() -> None:
    """What is met after many others, and what is too long to be remembered, is answered as before."""
    found = paths("/static/**")

    assert all(found.include("GET", f"/static/{number}") for number in range(3000))
    assert found.include("GET", "/static/0")
    assert not found.include("GET", "/tasks/0")
    assert found.include("GET", "/static/" + "a" * 1000)
    assert 0 < len(found._known) <= 1024
    assert all(len(target) <= 256 for target in found._known)


def test_those_of_the_same_templates_are_equal() -> None:
    """So that two versions of a route can be compared."""
    assert paths("/a", "/b/**") == paths("/a", "/b/**")
    assert paths("/a") != paths("/b")
    assert paths("/a") != "/a"
