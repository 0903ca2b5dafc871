"""`CheckService` and public paths: who passes without a token, and what is remembered of it."""

from dataclasses import replace
from typing import Any, Final

import pytest

from authz._pb.external_auth_pb2 import CheckResponse as WireResponse
from authz.checks.identity_headers import IDENTITY_HEADERS
from authz.core.decision import Allow, Deny, Reply
from authz.core.errors import Reason
from authz.core.exchange import Flow
from authz.core.record import CheckRecord
from authz.core.resource import METADATA, ProtectedResource
from authz.core.route import Forward, InboundRoute
from authz.core.rules.overriding import OVERRIDING, SESSION
from authz.core.rules.public import PublicPaths
from authz.core.rules.rule import Rule, Rules
from authz.core.rules.template import Template
from authz.core.secret import Secret
from authz.doors.envoy.ext_authz import Replies, facts
from authz.observe.decision_log import fields_of
from support.fakes.scene import INBOUND, Scene

CARD: Final = "/.well-known/agent-card.json"
PUBLIC: Final = PublicPaths((Template.parse("/static/**"), Template.parse(CARD)))


def opened(**changes: Any) -> Scene:
    """Return a scene whose agent has public paths."""
    scene = Scene()
    scene.inbound_route = replace(scene.inbound_route, public=PUBLIC, **changes)
    scene.configure(edge_ttl=60.0)
    return scene


def told(record: CheckRecord) -> str:
    """Return the reason of a denial, else what was decided and by which rule."""
    if isinstance(record.decision, Deny):
        return record.decision.reason.value
    return f"{record.decision.label} {record.rule}".strip()


@pytest.mark.parametrize("token", [None, "wrong", "x" * 100_000])
async def test_a_public_path_needs_no_token_and_looks_at_none(token: str | None) -> None:
    """On record as the rule `public`, with its route and without a caller."""
    scene = opened()

    record = await scene.inbound(token, path=CARD)

    assert [record] == scene.observer.records
    assert (None, None, None, False) == (
        record.principal,
        record.error,
        record.principal_cache,
        record.repeated,
    )
    fields = fields_of(record)
    assert ("allow", INBOUND, "public") == tuple(
        fields[name] for name in ("decision", "route", "rule")
    )
    assert {"decision": "allow", "route": INBOUND, "rule": "public"} == dict(facts(record))


async def test_the_agent_learns_nothing_of_who_asks() -> None:
    """Neither what names a caller nor what names another request arrives, whether or not Envoy shows it."""
    own = ("x-authz-anything", "x_authz_subject")

    record = await opened().inbound(
        "wrong", path=CARD, baggage=Secret("a=b"), own_headers=own, reads_otherwise="x-http-method"
    )

    assert isinstance(record.decision, Allow)
    assert (None, None, ()) == (
        record.decision.authorization,
        record.decision.baggage,
        record.decision.headers,
    )
    removed = {"authorization", "baggage", *IDENTITY_HEADERS, *own, *OVERRIDING, SESSION}
    assert removed == {*record.decision.remove}


@pytest.mark.parametrize(
    "changes",
    [
        {"path": CARD, "method": "POST"},
        {"path": CARD, "method": "CONNECT"},
        {"path": f"{CARD}/"},
        {"path": CARD.upper()},
        {"path": f"{CARD}?_method=DELETE"},
        {"path": "/static/..;/tasks"},
        {"path": "/static/%2e%2e/tasks"},
        {"path": "/tasks"},
        {"path": CARD, "host": ""},
        {"path": CARD, "route": "nobody"},
        {"path": CARD, "direction": "sideways"},
    ],
)
async def test_anything_else_is_denied_without_a_token(changes: dict[str, Any]) -> None:
    """What has another reading, a method that changes something, and what no route is for."""
    assert isinstance((await opened().inbound(None, **changes)).decision, Deny)


async def test_other_routes_have_no_public_paths() -> None:
    """Neither another inbound route nor an egress route."""
    scene = opened()
    other = InboundRoute("other", scene.tenant.expectation())
    scene.configure(other)

    records = [
        await scene.inbound(None, path=CARD, route="other"),
        await scene.egress(Flow.ON_BEHALF_OF, None, path=CARD),
        await scene.inbound(None, path=CARD),
    ]

    assert ["missing_token", "missing_token", "allow public"] == [told(each) for each in records]


@pytest.mark.parametrize("forward", Forward)
async def test_no_answer_is_repeated_across_the_border(forward: Forward) -> None:
    """Neither a user's on a public path, nor a public one on another path; each way round."""
    scene = opened(forward=frozenset({forward}))
    token = scene.tenant.user_token()

    asked = [
        (token, CARD),
        (token, "/tasks"),
        (token, "/tasks"),
        (token, CARD),
        (None, CARD),
        (None, "/tasks"),
        (token, "/tasks"),
    ]
    records = [await scene.inbound(each, path=path, at_edge=True) for each, path in asked]

    public, user = ("allow public", False), ("allow", False)
    again, none = ("allow", True), ("missing_token", False)
    assert [public, user, again, public, public, none, again] == [
        (told(record), record.repeated) for record in records
    ]
    assert [record.principal is not None for record in records] == [
        told(record) == "allow" for record in records
    ]


async def test_envoy_is_told_to_repeat_nothing_of_it() -> None:
    """Though it repeats the same user's answers on the route."""
    scene = opened()
    token = scene.tenant.user_token()

    records = [await scene.inbound(token, path=path, at_edge=True) for path in ("/tasks", CARD)]

    answers = [WireResponse.FromString(Replies().of(record)) for record in records]
    assert [True, False] == ["edge" in answer.dynamic_metadata.fields for answer in answers]
    assert [0, 0] == [answer.status.code for answer in answers]
    assert [False, True] == [
        "authorization" in answer.ok_response.headers_to_remove for answer in answers
    ]


async def test_public_paths_come_before_rules() -> None:
    """A route that denies everything else still has them, and only them."""
    scene = opened(rules=Rules((Rule("none", None),)))
    token = scene.tenant.user_token()

    asked = [(None, CARD), (token, CARD), (None, "/tasks"), (token, "/tasks"), (None, f"{CARD}/")]
    records = [await scene.inbound(each, path=path) for each, path in asked]

    unknown, denied = Reason.MISSING_TOKEN.value, Reason.RULE_DENIED.value
    assert ["allow public", "allow public", unknown, denied, unknown] == [
        told(record) for record in records
    ]


async def test_metadata_is_answered_even_where_its_path_is_public() -> None:
    """It is answered in the agent's place."""
    public = PublicPaths((Template.parse("/.well-known/**"),))
    scene = opened(resource=ProtectedResource("https://agent.example", ("https://issuer.example",)))
    scene.configure(replace(scene.inbound_route, public=public))

    kinds = [type((await scene.inbound(None, path=path)).decision) for path in (METADATA, CARD)]

    assert [Reply, Allow] == kinds
