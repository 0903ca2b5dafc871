"""Notices about rules: denials of which a part passes before them, and clients that cannot begin."""

from typing import Any

import pytest

from authz.config.consistency.advice import advice
from config.samples import changed, load_data

READ = {"name": "read", "methods": ["GET", "HEAD"], "paths": ["/**"]}
MCP: dict[str, Any] = {"egress.graph.mcp": {}}


def _notices(changes: dict[str, Any]) -> list[tuple[str, str]]:
    notices = advice(load_data(changed(changes)))
    return [(each.path, each.message) for each in notices if ".rules" in each.path]


@pytest.mark.parametrize("route", ["inbound.chat", "egress.graph"])
@pytest.mark.parametrize(
    ("denial", "path", "allowed"),
    [
        ({"paths": ["/admin/**"]}, "/admin/**", "GET, HEAD"),
        ({"paths": ["/x", "/y"]}, "/x", "GET, HEAD"),
        ({"paths": ["/admin"], "methods": ["HEAD", "POST"]}, "/admin", "HEAD"),
    ],
)
def test_a_denial_behind_a_wider_allowance_is_told_of(
    route: str, denial: dict[str, Any], path: str, allowed: str
) -> None:
    """With the methods that pass: the first rule that is for a request decides."""
    found = _notices({f"{route}.rules": [READ, {"deny": True, **denial}]})

    assert [
        (
            f"{route}.rules.1.paths.0",
            (
                f"the rule does not deny every request at '{path}': read before it ('/**') allows {allowed}. If the denial "
                "is meant for each method, put it first"
            ),
        )
    ] == found


@pytest.mark.parametrize(
    "rules",
    [
        [{"deny": True, "paths": ["/admin/**"]}, READ],
        [{"methods": ["GET"], "paths": ["/admin/**"]}, {"deny": True, "paths": ["/admin/**"]}],
        [{"methods": ["GET"], "paths": ["/admin/a"]}, {"deny": True, "paths": ["/admin/**"]}],
        [READ, {"deny": True, "methods": ["POST"], "paths": ["/admin/**"]}],
        [{"deny": True, "methods": ["GET"], "paths": ["/**"]}, {"deny": True, "paths": ["/a"]}],
        [
            {"deny": True, "methods": ["GET", "HEAD"], "paths": ["/a"]},
            READ,
            {"deny": True, "paths": ["/a"]},
        ],
    ],
)
def test_an_order_that_can_only_be_meant_is_not(rules: list[dict[str, Any]]) -> None:
    """A part is allowed by its own path, or the denial comes first, or it is for other methods."""
    assert [] == _notices({"egress.graph.rules": rules})


def test_allowed_tools_are_no_allowance_of_paths() -> None:
    """Rules about messages let nothing through at other paths."""
    tools = {"tools": ["*"], "methods": ["POST"]}
    denial = {"deny": True, "paths": ["/admin"]}
    assert [] == _notices({**MCP, "egress.graph.rules": [tools, denial]})


@pytest.mark.parametrize(
    ("rules", "is_told"),
    [
        ([{"operations": ["initialize", "tools/list"]}], True),
        ([{"operations": ["initialize"]}, {"methods": ["GET"]}], True),
        ([{"operations": ["initialize"]}, {"methods": ["POST"], "paths": ["/other"]}], True),
        ([{"operations": ["initialize"]}, {"methods": ["POST"], "paths": ["/mcp"]}], False),
        ([{"operations": ["initialize"]}, {"operations": ["server/*"], "deny": True}], False),
        ([{"operations": ["initialize", "server/discover"]}], False),
        ([{"operations": ["initialize", "server/*"]}], False),
        ([{"operations": ["*"]}], False),
        ([{"operations": ["initialize"]}, {"methods": ["POST"]}], False),
        ([{"operations": ["tools/list"]}], False),
    ],
)
def test_clients_that_cannot_begin_are_told_of(rules: list[dict[str, Any]], is_told: bool) -> None:
    """Where sessions may be opened, and `server/discover` is allowed by no rule."""
    found = _notices({**MCP, "egress.graph.rules": rules})

    text = (
        "allow initialize and not server/discover, with which clients of MCP 2026-07-28 begin: some of them do not "
        "try another way"
    )
    assert ([("egress.graph.rules", text)] if is_told else []) == found
