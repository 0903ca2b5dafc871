"""`CheckService` and clients that ask where to get a token: who is answered, and what refusals name."""

from dataclasses import replace
from typing import Any, Final

import pytest

from authz._pb.external_auth_pb2 import CheckResponse as WireResponse
from authz.core.decision import Allow, Deny, Reply
from authz.core.errors import Reason
from authz.core.exchange import Flow
from authz.core.outcome import Replied
from authz.core.principal import SubjectType
from authz.core.request import Direction
from authz.core.requirement import Requirement
from authz.core.resource import METADATA, ProtectedResource
from authz.doors.envoy.ext_authz import Replies, encode, facts
from authz.observe.decision_log import fields_of
from support.fakes.scene import INBOUND, Scene

URL: Final = "https://agent.example.com/mcp"
RESOURCE: Final = ProtectedResource(URL, ("https://issuer.example/v2.0",), (f"{URL}/access",))
OWN: Final = f"{METADATA}/mcp"
REQUIREMENT: Final = Requirement(
    subjects=frozenset(SubjectType),
    scopes=(("access",),),
    roles=(("Access.All",),),
    resource=URL,
)


def described() -> Scene:
    """Return a scene whose agent is described."""
    scene = Scene()
    scene.inbound_route = replace(scene.inbound_route, resource=RESOURCE, requirement=REQUIREMENT)
    scene.configure()
    return scene


@pytest.mark.parametrize("path", [OWN, METADATA])
@pytest.mark.parametrize("token", [None, "wrong"])
async def test_a_client_without_a_token_is_answered(path: str, token: str | None) -> None:
    """On record, with its route and without a caller."""
    scene = described()

    record = await scene.inbound(token, path=path)

    assert [record] == scene.observer.records
    assert isinstance(record.outcome, Replied)
    assert record.decision == RESOURCE.reply_to(scene.request("inbound", INBOUND, None, path=path))
    assert (INBOUND, Direction.INBOUND, None, None, None) == (
        record.route and record.route.name,
        record.direction,
        record.principal,
        record.error,
        record.token_cache,
    )
    told = fields_of(record)
    assert ("reply", "inbound", INBOUND) == (told["decision"], told["direction"], told["route"])
    assert "reason" not in told


async def test_a_client_whose_requests_are_allowed_is_answered_as_well() -> None:
    """What was allowed a moment ago for another path is not repeated for this one."""
    scene = described()
    token = scene.tenant.user_token(scp="access")

    records = [
        await scene.inbound(token, path=path) for path in ("/mcp", OWN, "/mcp", OWN, f"{OWN}/x")
    ]

    kinds = [type(record.decision) for record in records]
    assert [Allow, Reply, Allow, Reply, Allow] == kinds
    assert [False, False, True, False, False] == [record.repeated for record in records]


@pytest.mark.parametrize(
    "changes",
    [
        {"path": f"{OWN}/"},
        {"path": f"{METADATA}%2fmcp"},
        {"path": OWN.upper()},
        {"path": OWN, "method": "POST"},
        {"path": OWN, "method": "CONNECT"},
    ],
)
async def test_anything_else_is_denied_without_a_token(changes: dict[str, Any]) -> None:
    """The path to the last byte, and methods that only read."""
    record = await described().inbound(None, **changes)

    assert isinstance(record.decision, Deny)


async def test_a_route_that_is_not_described_answers_nothing() -> None:
    """Nor does an egress route, nor one that nobody has."""
    scene = described()
    scene.configure(replace(scene.inbound_route, resource=None))

    records = [
        await scene.inbound(None, path=OWN),
        await scene.egress(Flow.ON_BEHALF_OF, None, path=OWN),
        await scene.check(scene.request("inbound", "nobody", None, path=OWN)),
    ]

    reasons = [record.decision.reason for record in records if isinstance(record.decision, Deny)]
    assert [Reason.MISSING_TOKEN, Reason.MISSING_TOKEN, Reason.UNKNOWN_ROUTE] == reasons


async def test_refusals_say_where_to_get_a_token_that_is_enough() -> None:
    """An application is told to ask for what it was granted, never for a user's scopes."""
    scene = described()
    user, application = (
        scene.tenant.user_token(scp="other"),
        scene.tenant.app_token(roles=["other"]),
    )

    told = [
        (record.decision.reason, record.decision.metadata_url, record.decision.ask_for)
        for token in (None, "wrong", user, application)
        if isinstance((record := await scene.inbound(token, path="/mcp")).decision, Deny)
    ]

    where = RESOURCE.metadata_url
    assert [
        (Reason.MISSING_TOKEN, where, (f"{URL}/access",)),
        (Reason.INVALID_TOKEN, where, (f"{URL}/access",)),
        (Reason.INSUFFICIENT_SCOPE, where, (f"{URL}/access",)),
        (Reason.INSUFFICIENT_SCOPE, where, (f"{URL}/.default",)),
    ] == told


async def test_no_refusal_on_egress_says_so() -> None:
    """The agent's calls are no calls of the agent."""
    record = await described().egress(Flow.ON_BEHALF_OF, None)

    assert isinstance(record.decision, Deny)
    assert (None, ()) == (record.decision.metadata_url, record.decision.ask_for)


async def test_envoy_is_given_an_answer_for_its_client_and_nothing_to_repeat() -> None:
    """A denial to ext_authz, so that the request goes nowhere; with the status of the answer."""
    record = await described().inbound(None, path=OWN, at_edge=True)
    wire = WireResponse.FromString(Replies().of(record))

    assert encode(record) == wire
    assert isinstance(record.decision, Reply)
    assert ("denied_response", 200, record.decision.body) == (
        wire.WhichOneof("http_response"),
        wire.denied_response.status.code,
        wire.denied_response.body,
    )
    assert wire.status.code != 0
    assert list(record.decision.headers) == [
        (each.header.key, each.header.value) for each in wire.denied_response.headers
    ]
    metadata = {key: value.string_value for key, value in wire.dynamic_metadata.fields.items()}
    assert {"decision": "reply", "route": INBOUND} == metadata == dict(facts(record))
