"""Rules on the path of a Check: who is asked for what, what is exchanged, and what is answered again."""

import json
from dataclasses import replace
from typing import Final, TypeVar

import pytest

from authz._pb.external_auth_pb2 import CheckRequest as WireRequest
from authz._pb.external_auth_pb2 import CheckResponse as WireResponse
from authz.core.decision import Allow
from authz.core.errors import Reason
from authz.core.exchange import Flow
from authz.core.grant import Delegated, Own
from authz.core.operation import Body
from authz.core.outcome import Denied
from authz.core.record import CheckRecord
from authz.core.requirement import Requirement
from authz.core.route import EgressRoute, InboundRoute
from authz.core.rules.rule import Rule, Rules
from authz.core.rules.template import Template
from authz.core.secret import Secret
from authz.doors.envoy.ext_authz import decode, encode, facts
from authz.observe.decision_log import fields_of
from support.fakes.questions import wire
from support.fakes.scene import INBOUND, Scene

READ: Final = "https://graph.example/Read"
WRITE: Final = "https://graph.example/Write"
Route = TypeVar("Route", InboundRoute, EgressRoute)
OBO: Final = Flow.ON_BEHALF_OF.value


def _rule(name: str, route: Route | None, path: str, *methods: str) -> Rule[Route]:
    return Rule(name, route, frozenset(methods), (Template.parse(path),))


def _granting(route: EgressRoute, name: str, scope: str) -> EgressRoute:
    assert isinstance(route.grant, Delegated | Own)
    return replace(route, rule=name, grant=route.grant.with_scopes((scope,)))


def ruled_scene(flow: str = OBO) -> Scene:
    """Return a scene with rules in both directions."""
    scene = Scene()
    inbound, egress = scene.inbound_route, scene.egress_routes[flow]
    more = Requirement(scopes=(("access_agent",), ("book",)))
    entrance: Rules[InboundRoute] = Rules(
        (
            _rule("read", replace(inbound, rule="read"), "/tasks/**", "GET"),
            _rule("book", replace(inbound, rule="book", requirement=more), "/tasks", "POST"),
        )
    )
    scene.inbound_route = replace(inbound, rules=entrance)
    rules: Rules[EgressRoute] = Rules(
        (
            _rule("secret", None, "/secret/**"),
            _rule("read", _granting(egress, "read", READ), "/**", "GET"),
            _rule("write", _granting(egress, "write", WRITE), "/items/{id}", "PUT"),
        )
    )
    scene.egress_routes[flow] = replace(egress, rules=rules)
    scene.configure()
    return scene


def _asked(scene: Scene) -> list[tuple[str, ...]]:
    return [call.target.scopes for call in scene.entra.calls]


async def test_each_rule_has_its_own_answer() -> None:
    """Also when the answer is given again: a rule is part of what it was given for."""
    scene = ruled_scene()
    assert scene.service.has_rules
    token = scene.tenant.user_token()
    records = [
        await scene.egress(OBO, token, method=method, path=path)
        for _ in range(2)
        for method, path in (("GET", "/items/1"), ("PUT", "/items/1"), ("GET", "/other"))
    ]

    assert ["read", "write", "read"] * 2 == [record.rule for record in records]
    assert [False, False, True, True, True, True] == [record.repeated for record in records]
    assert [(READ,), (WRITE,)] == _asked(scene)
    tokens = [record.decision for record in records]
    assert tokens[0] == tokens[2] != tokens[1]


@pytest.mark.parametrize(
    ("method", "path", "rule", "reason"),
    [
        ("GET", "/secret/1", "secret", Reason.RULE_DENIED),
        ("DELETE", "/items/1", "", Reason.RULE_DENIED),
        ("GET", "/Secret", "", Reason.AMBIGUOUS_REQUEST),
    ],
)
async def test_what_no_rule_allows_is_not_exchanged(
    method: str, path: str, rule: str, reason: Reason
) -> None:
    """Though the same user has an answer on the route. The record has the rule that denies."""
    scene = ruled_scene()
    token = scene.tenant.user_token()
    assert "read" == (await scene.egress(OBO, token)).rule
    for _ in range(2):
        record = await scene.egress(OBO, token, method=method, path=path)
        assert isinstance(record.outcome, Denied)
        assert reason is record.outcome.decision.reason
        assert rule == record.rule
        assert rule == fields_of(record).get("rule", "")
        assert OBO == dict(facts(record))["route"]
    assert 1 == len(scene.entra.calls)


@pytest.mark.parametrize("flow", [OBO, Flow.AUTONOMOUS.value])
async def test_records_name_rule_scopes_and_resource(flow: str) -> None:
    """In the log and in the metadata that Envoy gets."""
    scene = ruled_scene(flow)
    token = scene.tenant.user_token()
    record = await scene.egress(flow, token, method="PUT", path="/items/1")

    told = {"rule": "write", "scopes": WRITE, "resource": "https://graph.example"}
    assert told.items() <= fields_of(record).items()
    assert told.items() <= dict(facts(record)).items()
    assert "write" == encode(record).dynamic_metadata["rule"]


async def test_what_is_known_of_an_unruled_route_does_not_name_a_rule() -> None:
    """Its metadata is as short as it was."""
    scene = ruled_scene()
    record = await scene.egress(Flow.AUTONOMOUS.value)

    assert not {"rule", "scopes", "resource"} & dict(facts(record)).keys()
    assert "rule" not in fields_of(record)


async def test_a_rule_demands_more_of_a_caller() -> None:
    """And the challenge names all that is needed."""
    scene = ruled_scene()
    plain = scene.tenant.user_token(scp="access_agent")
    read = await scene.inbound(plain, path="/tasks/1")
    refused = await scene.inbound(plain, method="POST", path="/tasks")
    both = scene.tenant.user_token(scp="access_agent book")
    booked = await scene.inbound(both, method="POST", path="/tasks")

    assert ["read", "book", "book"] == [record.rule for record in (read, refused, booked)]
    assert isinstance(refused.outcome, Denied)
    assert Reason.INSUFFICIENT_SCOPE is refused.outcome.decision.reason
    assert ("book",) == refused.outcome.decision.accepted
    assert ("access_agent", "book") == refused.outcome.decision.ask_for
    assert [None, None] == [record.error for record in (read, booked)]


async def test_a_caller_is_known_before_rules_count() -> None:
    """A stranger learns nothing of them."""
    scene = ruled_scene()
    record = await scene.inbound(None, path="/admin")
    known = await scene.inbound(scene.tenant.user_token(), path="/admin")

    assert Reason.MISSING_TOKEN is _reason(record)
    assert Reason.RULE_DENIED is _reason(known)
    assert INBOUND == dict(facts(known))["route"]


def _reason(record: CheckRecord) -> Reason:
    assert isinstance(record.outcome, Denied)
    return record.outcome.decision.reason


async def test_envoy_repeats_what_it_can_tell_apart() -> None:
    """An Envoy whose cache knows no rules is told to repeat nothing on a route with some."""
    scene = ruled_scene()
    scene.configure(edge_ttl=30.0)
    token = scene.tenant.user_token()
    known = await scene.egress(OBO, token, at_edge=True, edge_knows_rules=True)
    unknown = await scene.egress(OBO, token, at_edge=True, edge_knows_rules=False)

    assert 30.0 == known.edge_ttl
    assert 0.0 == unknown.edge_ttl


async def test_a_message_is_not_read_for_whoever_is_not_known() -> None:
    """Nor to find an answer of before: each one is decided on."""
    scene = Scene()
    inbound = scene.inbound_route
    rules = Rules(
        (Rule("call", replace(inbound, rule="call"), tools=frozenset({"search"})),),
        endpoints=("/mcp",),
    )
    scene.inbound_route = replace(inbound, rules=rules)
    scene.configure()
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search"}}
    strangers = Body(json.dumps(message).encode(), is_whole=True, media_type="application/json")
    stranger = await scene.inbound(None, method="POST", path="/mcp", body=strangers)
    assert Reason.MISSING_TOKEN is _reason(stranger)
    assert strangers.operation is None

    for _ in range(2):
        own = replace(strangers)
        token = scene.tenant.user_token()
        record = await scene.inbound(token, method="POST", path="/mcp", body=own)
        assert not record.repeated
        assert ("call", "search") == (record.rule, record.tool)
        assert "search" == fields_of(record)["tool"]


async def test_a_session_belongs_to_who_used_it_first() -> None:
    """Where the route binds sessions: for each request, though an answer of before stands."""
    scene = Scene()
    inbound = replace(scene.inbound_route, bound_at=("/mcp",))
    rules = Rules((_rule("stream", replace(inbound, rule="stream"), "/mcp", "GET"),))
    scene.inbound_route = replace(inbound, rules=rules)
    scene.configure()
    alice, bob = scene.tenant.user_token(), scene.tenant.user_token(oid="bob")

    async def asks(token: str, session: str | None, *, outdated: bool = False) -> Reason | None:
        held = None if session is None else Secret(session)
        record = await scene.inbound(
            token, method="GET", path="/mcp", session=held, outdated=outdated
        )
        return None if isinstance(record.decision, Allow) else _reason(record)

    for _ in range(2):
        assert None is await asks(alice, "s1")
        assert None is await asks(bob, None)
        assert Reason.FOREIGN_SESSION is await asks(bob, "s1")
        assert None is await asks(bob, "s2")
        # Though the answer to a request without a session stands.
        assert Reason.AMBIGUOUS_REQUEST is await asks(bob, None, outdated=True)
    scene.inbound_route = replace(scene.inbound_route, bound_at=(), rules=None)
    scene.configure()
    assert None is await asks(bob, "s1")


def wire_of(content: str, *, size: int, **headers: str) -> WireRequest:
    """Return a question with a body."""
    question = WireRequest.FromString(wire("inbound", INBOUND, None, **headers))
    question.attributes.request.http.raw_body = content.encode()
    question.attributes.request.http.size = size
    return question


async def test_a_client_of_mcp_gets_an_error_that_it_can_show() -> None:
    """One of JSON-RPC, by the id of its request, with the problem inside; a notification has no id."""
    scene = Scene()
    route = scene.egress_routes[OBO]
    rules: Rules[EgressRoute] = Rules(
        (Rule("none", None, tools=frozenset({"*"})),), endpoints=("/mcp",)
    )
    scene.configure(replace(route, rules=rules))

    async def denied(**changes: object) -> WireResponse:
        message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "t"}}
        content = json.dumps({**message, **changes}).encode()
        body = Body(content, is_whole=True, media_type="application/json")
        record = await scene.egress(OBO, None, method="POST", path="/mcp", body=body)
        return encode(record)

    for message_id in (7, "seven"):
        answer = (await denied(id=message_id)).denied_response
        told = json.loads(answer.body)
        assert ("2.0", message_id, -32003) == (told["jsonrpc"], told["id"], told["error"]["code"])
        assert "rule_denied" == told["error"]["data"]["reason"]
        assert "rule_denied" in told["error"]["message"]
        types = [each.header.value for each in answer.headers if each.header.key == "content-type"]
        assert ["application/json"] == types
    for without in (None, True, 1.5, 2**60, "a\nb", [1]):
        told = json.loads((await denied(id=without)).denied_response.body)
        assert "rule_denied" == told["reason"]
    unread = (await denied(jsonrpc="1.0")).denied_response
    assert "ambiguous_request" == json.loads(unread.body)["reason"]


def test_a_door_reads_what_rules_ask_for() -> None:
    """Headers that name another request, the body, and whether Envoy has sent all of it."""
    headers = {
        "x-original-url": "/other",
        "mcp-method": "ping",
        "mcp-name": "n",
        "content-type": "application/json",
        "content-encoding": "br",
        "x-envoy-auth-partial-body": "false",
    }
    question = wire_of("body", size=4, **headers)
    request = decode(question)

    assert "x-original-url" == request.reads_otherwise
    assert request.body is not None
    assert (b"body", True, "application/json", "br", "ping", "n") == (
        request.body.content,
        request.body.is_whole,
        request.body.media_type,
        request.body.coding,
        request.body.method,
        request.body.name,
    )
    unread = decode(question, has_rules=False)
    assert ("", None) == (unread.reads_otherwise, unread.body)


@pytest.mark.parametrize(
    ("partial", "size", "whole"),
    [
        ("false", 4, True),
        ("false", -1, True),
        ("true", 4, False),
        ("false", 5, False),
        ("", 4, False),
    ],
)
def test_a_body_is_whole_if_envoy_says_so(partial: str, size: int, *, whole: bool) -> None:
    """And its length is that of what was sent, where that is known."""
    headers = {"x-envoy-auth-partial-body": partial} if partial else {}
    body = decode(wire_of("body", size=size, **headers)).body

    assert body is not None
    assert whole is body.is_whole
