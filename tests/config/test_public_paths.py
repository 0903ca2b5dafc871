"""`inbound.<route>.public_paths`: what becomes of them, and which are faults."""

from typing import Any

import pytest

from authz.config.compile import compile_policy
from authz.core.request import CheckRequest
from authz.core.route import InboundRoute
from config.samples import changed, faults_of, load_data

PATHS = "inbound.chat.public_paths"
RULES = "inbound.chat.rules"
CARD = "/.well-known/agent-card.json"


def _faults(changes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(fault.path, fault.message) for fault in faults_of(lambda: load_data(changed(changes)))]


def test_a_route_has_the_public_paths_that_are_written() -> None:
    """To the letter, and under each of its rules as well."""
    rules = [{"name": "read", "methods": ["GET"], "paths": ["/tasks/**"]}]
    config = load_data(changed({PATHS: [CARD, "/static/**"], RULES: rules}))
    policy = compile_policy(config)

    def found(path: str) -> InboundRoute | None:
        return policy.public_route(
            CheckRequest("GET", "agent", path, direction="inbound", route="chat")
        )

    names = {path: (each := found(path)) and each.rule for path in (CARD, "/static/a", "/tasks/1")}
    assert {CARD: "public", "/static/a": "public", "/tasks/1": None} == names


def test_without_the_key_no_path_is_public() -> None:
    """As before."""
    assert not compile_policy(load_data(changed({}))).has_public_paths


EVERYTHING = "with which nearly every path would need no token: expected a literal segment in it, such as /static/**"
FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "everything": ({PATHS: ["/**"]}, f"{PATHS}.0", f"found '/**', {EVERYTHING}"),
    "every path of one segment": (
        {PATHS: [CARD, "/{page}"]},
        f"{PATHS}.1",
        f"found '/{{page}}', {EVERYTHING}",
    ),
    "nearly everything": ({PATHS: ["/*/**"]}, f"{PATHS}.0", f"found '/*/**', {EVERYTHING}"),
    "the same twice": (
        {PATHS: [CARD, "/a", CARD]},
        f"{PATHS}.2",
        f"found '{CARD}', which has no effect: '{CARD}' includes it",
    ),
    "the same under another name": (
        {PATHS: ["/a/{b}", "/a/*"]},
        f"{PATHS}.1",
        "found '/a/*', which has no effect: '/a/{b}' includes it",
    ),
    "included by one behind it": (
        {PATHS: ["/static/app.js", "/static/**"]},
        f"{PATHS}.0",
        "found '/static/app.js', which has no effect: '/static/**' includes it",
    ),
    "included with a slash at the end": (
        {PATHS: ["/static/**", "/static/"]},
        f"{PATHS}.1",
        "found '/static/', which has no effect: '/static/**' includes it",
    ),
    "relative path": (
        {PATHS: ["healthz"]},
        f"{PATHS}.0",
        "found 'healthz': expected a path that begins with /",
    ),
    "wildcard inside of a segment": (
        {PATHS: ["/static/*.js"]},
        f"{PATHS}.0",
        "found '/static/*.js': expected {name}, * and ** as whole segments",
    ),
    "denial inside of it": (
        {PATHS: ["/static/**"], RULES: [{"name": "no", "paths": ["/static/x/**"], "deny": True}]},
        f"{PATHS}.0",
        (
            "found '/static/**', of which rule no denies /static/x: public paths are looked at before rules, so expected "
            "paths that leave it out"
        ),
    ),
    "rule of the same name": (
        {PATHS: [CARD], RULES: [{"paths": ["/a"]}, {"name": "public", "paths": ["/b"]}]},
        f"{RULES}.1.name",
        "found 'public', which records say of public_paths: expected another name",
    ),
}


@pytest.mark.parametrize(("changes", "path", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_faulty_public_path_says_what_was_expected(
    changes: dict[str, Any], path: str, message: str
) -> None:
    """At the key that should change, and once."""
    assert [(path, message)] == _faults(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {PATHS: ["/"]},
        {PATHS: ["/{tenant}/card.json"]},
        # Servers may tell these apart, and each is public to the letter only.
        {PATHS: ["/docs", "/docs/", "/Docs"]},
        {PATHS: ["/static/**", "/static/$batch"]},
        {PATHS: [CARD], RULES: [{"name": "no", "deny": True}]},
        {PATHS: ["/admin/healthz"], RULES: [{"paths": ["/admin/**"], "deny": True}]},
        {
            PATHS: ["/static/**"],
            RULES: [{"methods": ["POST"], "paths": ["/static/x"], "deny": True}],
        },
        {PATHS: ["/static/**"], RULES: [{"paths": ["/tasks/**"], "deny": True}]},
        {PATHS: ["/static/**"], RULES: [{"paths": ["/static/tasks"], "scopes": ["a"]}]},
    ],
)
def test_other_public_paths_are_taken(changes: dict[str, Any]) -> None:
    """No denial around them, of other methods or elsewhere contradicts them, and no allowance."""
    load_data(changed(changes))


def test_a_session_of_an_mcp_server_is_not_public() -> None:
    """Anybody could read its stream. Other paths are no concern of the server's."""
    mcp = {"inbound.chat.mcp": {"paths": ["/mcp"]}, "inbound.chat.rules": [{"tools": ["*"]}]}
    found = [
        (fault.path, fault.message)
        for fault in faults_of(lambda: load_data(changed({PATHS: ["/card", "/mcp/**"], **mcp})))
    ]

    text = (
        "found '/mcp/**', at which the MCP server takes messages and anybody could read a session: expected another "
        "path"
    )
    assert [(f"{PATHS}.1", text)] == found
