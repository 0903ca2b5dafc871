"""Rules in the configuration: what they become, and which are faults."""

from typing import Any

import pytest

from authz.config.compile import compile_policy
from authz.config.rendered import mark_of
from authz.core.errors import RuleDenied
from authz.core.grant import Delegated, Own
from authz.core.request import CheckRequest
from authz.core.route import EgressRoute, ruled
from config.samples import changed, faults_of, load_data

ME = {"methods": ["GET"], "paths": ["/v1.0/me"]}
MAIL = {"name": "mail", "paths": ["/v1.0/users/{id}/messages"]}
NO_MAIL = {"name": "no-mail", "paths": ["/users/{id}/messages"], "deny": True}


def _faults(changes: dict[str, Any]) -> list[tuple[str, str]]:
    return [(fault.path, fault.message) for fault in faults_of(lambda: load_data(changed(changes)))]


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "denied tool behind an allowance of all messages": (
        {
            "egress.graph.mcp": {},
            "egress.graph.rules": [
                {"methods": ["POST"], "paths": ["/mcp"]},
                {"deny": True, "tools": ["delete"]},
            ],
        },
        "egress.graph.rules.1",
        (
            "is never reached: rule1 before it takes all such requests, in whatever case and with or without a slash at "
            "the end"
        ),
    ),
    "denied tool behind an allowance of all tools": (
        {
            "egress.graph.mcp": {},
            "egress.graph.rules": [
                {"tools": ["*"], "methods": ["POST"]},
                {"deny": True, "tools": ["delete"]},
            ],
        },
        "egress.graph.rules.1",
        (
            "is never reached: rule1 before it takes all such requests, in whatever case and with or without a slash at "
            "the end"
        ),
    ),
    "method in small letters": (
        {"egress.graph.rules": [{"methods": ["get"]}]},
        "egress.graph.rules.0.methods.0",
        "found 'get': expected a method in capitals, such as GET",
    ),
    "method that shows the token": (
        {"inbound.chat.rules": [{"methods": ["TRACE"]}]},
        "inbound.chat.rules.0.methods.0",
        "found 'TRACE': expected no TRACE: no rule allows it, and it is refused where none is for it",
    ),
    "relative path": (
        {"egress.graph.rules": [{"paths": ["v1.0/me"]}]},
        "egress.graph.rules.0.paths.0",
        "found 'v1.0/me': expected a path that begins with /",
    ),
    "path that is no text": (
        {"egress.graph.rules": [{"paths": [1]}]},
        "egress.graph.rules.0.paths.0",
        "found 1: expected a path such as /v1.0/users/{id}/messages or /files/**",
    ),
    "rest in the middle": (
        {"egress.graph.rules": [{"paths": ["/a/**/b"]}]},
        "egress.graph.rules.0.paths.0",
        "found '/a/**/b': expected ** at the end only",
    ),
    "part of a segment": (
        {"egress.graph.rules": [{"paths": ["/users('{id}')"]}]},
        "egress.graph.rules.0.paths.0",
        "found \"/users('{id}')\": expected {name}, * and ** as whole segments",
    ),
    "dot segment": (
        {"egress.graph.rules": [{"paths": ["/a/../b"]}]},
        "egress.graph.rules.0.paths.0",
        "found '/a/../b': expected no segment of dots only: no such path is let through",
    ),
    "encoded path": (
        {"egress.graph.rules": [{"paths": ["/a%20b"]}]},
        "egress.graph.rules.0.paths.0",
        (
            "found '/a%20b': expected segments of letters, digits and -._~!$&'()+,=:@ with one / between them: a path "
            "with another character matches {name}, * and ** only"
        ),
    ),
    "name twice": (
        {"egress.graph.rules": [MAIL, {"name": "mail", "paths": ["/other"]}]},
        "egress.graph.rules.1.name",
        "found 'mail' twice: expected a name for each",
    ),
    "name of another's place": (
        {"egress.graph.rules": [{"name": "rule2", "paths": ["/a"]}, {"paths": ["/b"]}]},
        "egress.graph.rules.1.name",
        "found 'rule2' twice: expected a name for each",
    ),
    "scopes of a denial": (
        {
            "egress.graph.rules": [
                {"deny": True, "scopes": ["https://graph.microsoft.com/Mail.Read"]}
            ]
        },
        "egress.graph.rules.0.scopes",
        "has no effect: the rule denies",
    ),
    "never reached": (
        {"egress.graph.rules": [{"name": "all"}, ME]},
        "egress.graph.rules.1.paths.0",
        (
            "found '/v1.0/me', which is never reached: all before it takes all such requests, in whatever case and with "
            "or without a slash at the end"
        ),
    ),
    "never reached in another case": (
        {"egress.graph.rules": [ME, {"methods": ["GET"], "paths": ["/v1.0/Me/"]}]},
        "egress.graph.rules.1.paths.0",
        (
            "found '/v1.0/Me/', which is never reached: rule1 before it takes all such requests, in whatever case and "
            "with or without a slash at the end"
        ),
    ),
    "never reached by several": (
        {
            "egress.graph.rules": [
                {"methods": ["GET"], "paths": ["/a/**"]},
                {"methods": ["POST"]},
                {"methods": ["GET", "POST"], "paths": ["/a/b"]},
            ]
        },
        "egress.graph.rules.2.paths.0",
        (
            "found '/a/b', which is never reached: rule2 before it takes all such requests, in whatever case and with "
            "or without a slash at the end"
        ),
    ),
    "denial that comes too late": (
        {"egress.graph.rules": [{"name": "mine", "paths": ["/users/me/**"]}, NO_MAIL]},
        "egress.graph.rules.1.paths.0",
        (
            "found '/users/{id}/messages', which the rule denies, and '/users/me/**', which mine before it allows: both "
            "are for /users/me/messages, expected paths of which one includes the other"
        ),
    ),
    "allowance that comes too late": (
        {
            "egress.graph.rules": [
                {"paths": ["/users/me/**"], "deny": True},
                {"paths": ["/users/{id}/messages"]},
            ]
        },
        "egress.graph.rules.1.paths.0",
        (
            "found '/users/{id}/messages', which the rule allows, and '/users/me/**', which rule1 before it denies: "
            "both are for /users/me/messages, expected paths of which one includes the other"
        ),
    ),
    "pushed": (
        {
            "egress.graph.flow": "autonomous",
            "egress.graph.push": True,
            "egress.graph.rules": [ME],
        },
        "egress.graph.push",
        "found true beside rules: a token that Envoy has ahead is used for every request, expected one of the two",
    ),
    "called by the service": (
        {
            "egress.graph.downstream": {"base_url": "https://graph.microsoft.com"},
            "egress.graph.rules": [ME],
        },
        "egress.graph.downstream",
        "found it beside rules, which are for requests through Envoy: expected a route of its own, without rules",
    ),
    "sign-in of nobody": (
        {"egress.graph.flow": "autonomous", "egress.graph.rules": [{"auth_context": "c1"}]},
        "egress.graph.rules.0.auth_context",
        "does not go with flow autonomous, in which no user has a part",
    ),
    "no authentication context": (
        {"inbound.chat.rules": [{"auth_context": "c0"}]},
        "inbound.chat.rules.0.auth_context",
        "found 'c0': expected the id of an authentication context, from c1 to c99",
    ),
    "scopes of two resources": (
        {"egress.graph.rules": [{"scopes": ["api://a/x", "api://b/x"]}]},
        "egress.graph.rules.0.scopes",
        "found scopes of api://a and api://b: expected one resource",
    ),
    "permission for an application": (
        {
            "egress.graph.flow": "autonomous",
            "egress.graph.rules": [{"scopes": ["https://graph.microsoft.com/Mail.Read"]}],
        },
        "egress.graph.rules.0.scopes",
        (
            "found 1 (https://graph.microsoft.com/Mail.Read): flow autonomous takes exactly one scope, which ends in "
            "/.default"
        ),
    ),
    "prefetched": (
        {"egress.graph.rules": [ME], "inbound.chat.prefetch": ["graph"]},
        "inbound.chat.prefetch.0",
        "found 'graph', which has rules: what the agent will ask for decides on its token",
    ),
    "tools without a server": (
        {"egress.graph.rules": [{"tools": ["search"]}]},
        "egress.graph.rules.0.tools",
        "expected egress.graph.mcp as well, with the paths of the MCP server",
    ),
    "operations without a server": (
        {"inbound.chat.rules": [{"operations": ["ping"]}]},
        "inbound.chat.rules.0.operations",
        "expected inbound.chat.mcp as well, with the paths of the MCP server",
    ),
    "server without rules": (
        {"inbound.chat.mcp": {}},
        "inbound.chat.mcp",
        "has no effect: expected rules, for tools and operations",
    ),
    "endpoint with a wildcard": (
        {"egress.graph.mcp": {"paths": ["/mcp/*"]}, "egress.graph.rules": [ME]},
        "egress.graph.mcp.paths.0",
        "found '/mcp/*': expected one path such as /mcp, without wildcards",
    ),
    "tool of several words": (
        {"egress.graph.mcp": {}, "egress.graph.rules": [{"tools": ["two words"]}]},
        "egress.graph.rules.0.tools.0",
        "found 'two words': expected the name of a tool, or * for every tool",
    ),
    "calls as an operation": (
        {"egress.graph.mcp": {}, "egress.graph.rules": [{"operations": ["tools/call"]}]},
        "egress.graph.rules.0.operations.0",
        "found 'tools/call': expected tools, by their names, in place of tools/call",
    ),
    "calls in a family of operations": (
        {"egress.graph.mcp": {}, "egress.graph.rules": [{"operations": ["tools/*"]}]},
        "egress.graph.rules.0.operations.0",
        "found 'tools/*': expected tools, by their names, in place of tools/*",
    ),
    "tool by another method": (
        {"egress.graph.mcp": {}, "egress.graph.rules": [{"tools": ["a"], "methods": ["GET"]}]},
        "egress.graph.rules.0.methods",
        "name no POST, by which messages come: expected it, or no methods",
    ),
    "tool at another path": (
        {"egress.graph.mcp": {}, "egress.graph.rules": [{"tools": ["a"], "paths": ["/rpc"]}]},
        "egress.graph.rules.0.paths",
        "match no path of egress.graph.mcp, where messages are read: expected one of /mcp, or no paths",
    ),
    "sign-in that can be left out": (
        {
            "egress.graph.requires": {"auth_context": "c1"},
            "egress.graph.subject": ["bearer", "none"],
        },
        "egress.graph.subject",
        (
            "found none beside requires.auth_context: without a user there is no sign-in to demand, expected one of "
            "the two"
        ),
    ),
    "no operation": (
        {"egress.graph.mcp": {}, "egress.graph.rules": [{"operations": ["a b"]}]},
        "egress.graph.rules.0.operations.0",
        "found 'a b': expected an operation of MCP such as initialize, resources/read or notifications/*",
    ),
    "message that is too long": (
        {"egress.graph.mcp": {"max_body": "1MiB"}, "egress.graph.rules": [ME]},
        "egress.graph.mcp.max_body",
        "found '1MiB': expected a size such as 16KiB, 64MiB or 1GiB, or a number of bytes, from 1024 to 524288",
    ),
    "tool that is never reached": (
        {
            "egress.graph.mcp": {},
            "egress.graph.rules": [{"tools": ["a", "B"]}, {"tools": ["b"]}],
        },
        "egress.graph.rules.1",
        "is never reached: rule1 before it takes all such requests, in whatever case and with or without a slash at the end",
    ),
    "operation that is never reached": (
        {
            "egress.graph.mcp": {},
            "egress.graph.rules": [
                {"operations": ["resources/*"]},
                {"operations": ["resources/read"], "deny": True},
            ],
        },
        "egress.graph.rules.1",
        "is never reached: rule1 before it takes all such requests, in whatever case and with or without a slash at the end",
    ),
    "demand on nobody": (
        {
            "inbound.chat": {
                "agent": "assistant",
                "subjects": ["application"],
                "roles": ["Run"],
                "rules": [{"auth_context": "c1"}],
            }
        },
        "inbound.chat.rules.0.auth_context",
        "has no effect: subjects names no user",
    ),
    "key of the other direction": (
        {"egress.graph.rules": [{"roles": ["a"]}]},
        "egress.graph.rules.0.roles",
        "unknown key; expected one of name, methods, paths, tools, operations, deny, auth_context, scopes",
    ),
}


@pytest.mark.parametrize(("changes", "path", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_faulty_rule_says_what_was_expected(
    changes: dict[str, Any], path: str, message: str
) -> None:
    """At the key that should change."""
    assert [(path, message)] == _faults(changes)


def test_flow_none_and_tunnels_are_faults_of_their_own() -> None:
    """No token has scopes, and nobody sees the requests in a tunnel."""
    egress = {
        "hosts": ["api.example"],
        "flow": "none",
        "tunnel": True,
        "rules": [{"scopes": ["api://a/x"]}],
    }

    assert {
        (
            "egress.graph.tunnel",
            "found true beside rules: nobody sees the requests in a tunnel, expected one of the two",
        ),
        ("egress.graph.rules.0.scopes", "does not go with flow none, which gives no token"),
    } == set(_faults({"egress.graph": egress, "inbound.chat.forward": "strip"}))


@pytest.mark.parametrize(
    "rules",
    [
        [MAIL | {"deny": True}, {"paths": ["/v1.0/users/**"]}],
        [{"paths": ["/v1.0/users/me/messages"]}, MAIL | {"deny": True}],
        [
            {"methods": ["GET"], "paths": ["/a/**"]},
            {"methods": ["POST"], "paths": ["/a/b"], "deny": True},
        ],
        [{"methods": ["GET"], "paths": ["/a/**"]}, {"methods": ["GET", "POST"], "paths": ["/a/b"]}],
        [ME, {"deny": True}],
        [{"tools": ["*"], "paths": ["/mcp"]}, {"paths": ["/mcp"]}],
        [{"tools": ["a"]}, {"tools": ["a", "b"]}, {"operations": ["*"]}, {"name": "all"}],
    ],
)
def test_exceptions_before_what_they_are_taken_from_are_fine(rules: list[dict[str, Any]]) -> None:
    """In both directions, and where methods differ."""
    changes = {"egress.graph.rules": rules, **_server(rules)}
    assert len(rules) == len(load_data(changed(changes)).egress["graph"].rules)


def _server(rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"egress.graph.mcp": {}} if any("tools" in rule for rule in rules) else {}


def _egress(changes: dict[str, Any]) -> EgressRoute:
    return compile_policy(load_data(changed(changes))).egress["graph"]


def _under(route: EgressRoute, path: str) -> EgressRoute:
    found = ruled(route, CheckRequest("GET", "graph.microsoft.com", path))
    assert isinstance(found, EgressRoute)
    return found


def test_a_rule_decides_on_the_scopes() -> None:
    """For the user, and for the agent itself where there is no user."""
    route = _egress(
        {
            "egress.graph.subject": ["bearer", "none"],
            "egress.graph.rules": [ME, MAIL | {"scopes": ["api://mail/Read", "api://mail/Send"]}],
        }
    )
    me, mail = _under(route, "/v1.0/me").grant, _under(route, "/v1.0/users/1/messages").grant

    assert isinstance(me, Delegated)
    assert isinstance(mail, Delegated)
    assert ("https://graph.microsoft.com/.default",) == me.target.scopes
    assert ("api://mail/Read", "api://mail/Send") == mail.target.scopes
    assert mail.without_user is not None
    assert ("api://mail/.default",) == mail.without_user.target.scopes
    assert "mail" == _under(route, "/v1.0/users/1/messages").rule
    with pytest.raises(RuleDenied):
        _under(route, "/v1.0/groups")


def test_a_route_with_rules_is_asked_about() -> None:
    """Its token is not given ahead: Envoy would use it for whatever is asked."""
    route = _egress({"egress.graph.flow": "autonomous", "egress.graph.rules": [ME]})

    assert isinstance(route.grant, Own)
    assert route.grant.push is False
    assert route.pushed is None


def test_a_route_of_flow_none_has_rules_too() -> None:
    """They say what the agent may call without a token. By default there are no tunnels then."""
    egress = {"hosts": ["api.example"], "flow": "none", "rules": [ME]}
    route = _egress({"egress.graph": egress, "inbound.chat.forward": "strip"})

    assert not route.allows_tunnels
    assert "rule1" == _under(route, "/v1.0/me").rule


def test_a_rule_demands_beside_its_route() -> None:
    """Scopes and roles of both, each for whom the route's own count."""
    inbound = {
        "agent": "assistant",
        "scopes": ["access_agent"],
        "auth_context": "c1",
        "rules": [
            {
                "scopes": {"all": ["book"]},
                "roles": ["Booker"],
                "user_roles": ["Guest"],
                "auth_context": "c2",
            }
        ],
    }
    route = compile_policy(load_data(changed({"inbound.chat": inbound}))).inbound["chat"]
    found = ruled(route, CheckRequest("POST", "agent.example", "/"))

    assert (("access_agent",), ("book",)) == found.requirement.scopes
    # No application is served, so a user needs both roles.
    assert (("Guest",), ("Booker",)) == found.requirement.user_roles
    assert () == found.requirement.roles
    assert ("c1", "c2") == found.requirement.auth_contexts
    assert (("access_agent",),) == route.requirement.scopes


def test_a_rule_demands_roles_of_applications() -> None:
    """Where the route serves some."""
    inbound = {
        "agent": "assistant",
        "roles": ["Run"],
        "rules": [{"methods": ["GET"]}, {"roles": ["Write"]}],
    }
    route = compile_policy(load_data(changed({"inbound.chat": inbound}))).inbound["chat"]

    read = ruled(route, CheckRequest("GET", "agent.example", "/"))
    write = ruled(route, CheckRequest("POST", "agent.example", "/"))
    assert (("Run",),) == read.requirement.roles
    assert (("Run",), ("Write",)) == write.requirement.roles


def test_an_authentication_context_is_not_passed_by_without_a_user() -> None:
    """On egress, where the agent's own token would stand in."""
    route = _egress(
        {
            "egress.graph.subject": ["bearer", "none"],
            "egress.graph.rules": [{"auth_context": "c3"}],
        }
    )
    grant = _under(route, "/").grant

    assert isinstance(grant, Delegated)
    assert ("c3",) == grant.requirement.auth_contexts
    assert grant.without_user is None


def test_a_route_with_a_server_reads_messages() -> None:
    """So Envoy repeats none of its answers."""
    rules = [{"tools": ["search"]}]
    changes = {
        "egress.graph.mcp": {"paths": ["/a", "/b"]},
        "egress.graph.rules": rules,
        "inbound.chat.mcp": {},
        "inbound.chat.rules": rules,
    }
    policy = compile_policy(load_data(changed(changes)))
    inbound, egress = policy.inbound["chat"], policy.egress["graph"]

    assert egress.rules is not None
    assert inbound.rules is not None
    assert (("/a", "/b"), ("/mcp",)) == (egress.rules.endpoints, inbound.rules.endpoints)
    for route in (egress, inbound):
        assert route.rules is not None
        # An allowance is given on what the route is under a rule.
        assert [False] * 2 == [
            each.may_repeat_at_edge
            for each in (route, *(rule.outcome for rule in route.rules))
            if each is not None
        ]


def test_a_rule_about_messages_is_reached_at_any_path_of_the_server() -> None:
    """One that is taken at one of two paths still counts at the other."""
    server = {"egress.graph.mcp": {"paths": ["/a", "/b"]}}
    first = {"methods": ["POST"], "paths": ["/a"]}
    denial = {"deny": True, "tools": ["x"]}
    policy = compile_policy(load_data(changed({**server, "egress.graph.rules": [first, denial]})))
    rules = policy.egress["graph"].rules
    assert rules is not None
    assert 2 == len([*rules])


def test_binding_of_sessions_changes_nothing_that_is_rendered() -> None:
    """So Envoy's configuration stays that of this version."""
    rules = {"inbound.chat.rules": [{"tools": ["*"]}]}
    marks = {
        mark_of(load_data(changed({"inbound.chat.mcp": {"bind_sessions": bound}, **rules})))
        for bound in (False, True)
    }
    assert 1 == len(marks)
