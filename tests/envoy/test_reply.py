"""What goes over the wire: made once for an answer that is given again, with what Envoy's own cache needs."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Value

from authz._pb.external_auth_pb2 import CheckRequest as WireRequest
from authz._pb.external_auth_pb2 import CheckResponse as WireResponse
from authz.core.decision import Allow
from authz.core.exchange import Flow
from authz.doors.envoy.ext_authz import Replies, decode, encode
from support.fakes.clock import START
from support.fakes.records import record_of
from support.fakes.scene import INBOUND, Scene

OBO: Final = Flow.ON_BEHALF_OF


def _edge(answer: bytes) -> Any:
    return MessageToDict(WireResponse.FromString(answer).dynamic_metadata).get("edge")


def _scene(edge_ttl: float = 30.0) -> Scene:
    scene = Scene()
    scene.configure(edge_ttl=edge_ttl)
    return scene


@pytest.mark.parametrize("at_edge", [False, True])
@pytest.mark.parametrize("route", [INBOUND, OBO, Flow.AUTONOMOUS, Flow.NONE])
async def test_a_repeated_answer_is_the_same_bytes(route: str, *, at_edge: bool) -> None:
    """And those are what encoding it again would give."""
    scene = _scene()
    direction = "inbound" if route == INBOUND else "egress"
    request = scene.request(direction, route, scene.tenant.user_token(), at_edge=at_edge)
    records = [await scene.check(request) for _ in range(2)]
    replies = Replies()
    first, second = [replies.of(record) for record in records]

    assert first is second
    assert WireResponse.FromString(first) == encode(records[1])


async def test_a_denial_is_encoded() -> None:
    """There is nothing to repeat."""
    record = await _scene().inbound(None, at_edge=True)

    assert WireResponse.FromString(Replies().of(record)) == encode(record)
    assert _edge(Replies().of(record)) is None


async def test_users_do_not_get_one_anothers_bytes() -> None:
    """Each answer has its own."""
    scene = _scene()
    tokens = [scene.tenant.user_token(oid=name) for name in ("alice", "bob")]
    replies = [Replies().of(await scene.egress(OBO, token)) for token in tokens + tokens]

    assert replies[:2] == replies[2:]
    assert [b"issued-1" in answer for answer in replies] == [True, False] * 2
    assert [b"issued-2" in answer for answer in replies] == [False, True] * 2


async def test_envoys_cache_learns_how_to_repeat_an_exchanged_token() -> None:
    """What to set and remove, for how long, and that the user's token is part of the question."""
    scene = _scene()
    record = await scene.egress(OBO, scene.tenant.user_token(), at_edge=True)

    assert {
        "ttl_ms": 30_000.0,
        "parts": "authorization",
        "set": ["authorization"],
        "remove": [],
    } == _edge(Replies().of(record))


async def test_envoys_cache_learns_how_to_repeat_an_identity() -> None:
    """Inbound, the identity headers are set, and those without a value removed."""
    scene = _scene()
    record = await scene.inbound(scene.tenant.user_token(), at_edge=True)
    edge = _edge(Replies().of(record))

    assert isinstance(record.decision, Allow)
    names = [name for name, _ in record.decision.headers]
    assert ("authorization", names, list(record.decision.remove)) == (
        edge["parts"], edge["set"], edge["remove"],
    )  # fmt: skip


async def test_what_the_app_sent_has_no_part_where_the_flow_needs_no_caller() -> None:
    """Nor where there is no token at all, but what the app sent is removed."""
    scene = _scene()
    own, none = [await scene.egress(flow, at_edge=True) for flow in (Flow.AUTONOMOUS, Flow.NONE)]

    assert ("", "") == (_edge(Replies().of(own))["parts"], _edge(Replies().of(none))["parts"])
    assert ([], ["authorization"]) == (
        _edge(Replies().of(none))["set"],
        _edge(Replies().of(none))["remove"],
    )


async def test_no_token_is_in_metadata() -> None:
    """An access log may print all of it: what is set is named, and nothing more."""
    scene = _scene()
    answer = Replies().of(await scene.egress(OBO, scene.tenant.user_token(), at_edge=True))

    assert "issued" not in str(WireResponse.FromString(answer).dynamic_metadata)
    assert b"issued" in answer


@pytest.mark.parametrize("route", [INBOUND, OBO, Flow.AUTONOMOUS, Flow.NONE])
async def test_every_value_in_metadata_has_a_kind(route: str) -> None:
    """Envoy 1.40 aborts when a Lua script reads a value without one."""
    scene = _scene()
    direction = "inbound" if route == INBOUND else "egress"
    request = scene.request(direction, route, scene.tenant.user_token(), at_edge=True)
    metadata = WireResponse.FromString(Replies().of(await scene.check(request))).dynamic_metadata

    def kinds(value: Value) -> Iterator[str | None]:
        yield value.WhichOneof("kind")
        for inner in (*value.struct_value.fields.values(), *value.list_value.values):
            yield from kinds(inner)

    found = [kind for value in metadata.fields.values() for kind in kinds(value)]
    assert None not in found
    assert {"string_value", "number_value", "struct_value", "list_value"} == set(found)


async def test_only_an_envoy_with_a_cache_is_told_what_it_needs() -> None:
    """Neither one without, nor any while the edge cache is switched off."""
    scene = _scene()
    plain = Replies().of(await scene.egress(OBO, scene.tenant.user_token()))
    off = Replies().of(await _scene(0.0).egress(OBO, scene.tenant.user_token(), at_edge=True))

    assert (None, None) == (_edge(plain), _edge(off))


async def test_near_a_tokens_end_the_bytes_tell_less_and_less_time() -> None:
    """Prepared bytes that promise too much are made anew."""
    scene = _scene()
    token = scene.tenant.user_token(exp=START + 100)
    told = []
    for seconds in (0, 60, 25, 14.5):
        scene.clock.advance(seconds)
        record = await scene.egress(OBO, token, at_edge=True)
        told.append(_edge(Replies().of(record))["ttl_ms"])

    assert [30_000, 30_000, 15_000, 500] == told
    assert record.repeated


def test_time_is_told_in_whole_milliseconds_and_never_more_than_there_is() -> None:
    """Rounded down."""
    scene = Scene()
    record = record_of(Allow(), route=scene.inbound_route, edge_ttl=1.9999)

    assert 1999 == _edge(Replies().of(record))["ttl_ms"]


@pytest.mark.parametrize("epoch", ["e1.v1", ""])
def test_epoch_is_in_the_answer_where_there_is_one(epoch: str) -> None:
    """An answer without it needs nothing to be there."""
    record = record_of(Allow(), route=Scene().inbound_route, edge_ttl=1.0, edge_epoch=epoch)

    assert (epoch or None) == _edge(Replies().of(record)).get("epoch")


@pytest.mark.parametrize(("value", "at_edge"), [("4", True), ("3", False), ("", False)])
def test_envoys_cache_announces_itself_by_its_version(value: str, *, at_edge: bool) -> None:
    """Another version of the script gets nothing that it would misread."""
    wire = WireRequest()
    wire.attributes.context_extensions["authz.edge"] = value

    assert at_edge is decode(wire).at_edge
