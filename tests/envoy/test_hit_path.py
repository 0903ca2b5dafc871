"""The door's hit path: bytes that were prepared, for exactly the requests that they were prepared for."""

from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import grpc
import pytest
import trustme
from hypothesis import strategies as st

from authz._pb.external_auth_pb2 import CheckRequest as WireRequest
from authz._pb.external_auth_pb2 import CheckResponse as WireResponse
from authz.core.exchange import Flow
from authz.core.policy import Policy
from authz.core.record import CacheName, CacheResult
from authz.doors.envoy.ext_authz import SERVICE, ExtAuthz
from authz.doors.envoy.grpc_server import GrpcServer, ServerSettings
from support.fakes.clock import START
from support.fakes.questions import wire
from support.fakes.scene import INBOUND, Scene
from support.fakes.workload import workload_certificate

OBO: Final = Flow.ON_BEHALF_OF
PEER: Final = "spiffe://cluster/ns/a/sa/agent"
SOURCE: Final = quote(workload_certificate(trustme.CA(), PEER)[0])
"""A certificate of that name, as Envoy hands it on."""
TEXT: Final = st.text(max_size=12)


class Context:
    """What the door asks of gRPC about one call."""

    def __init__(self, *names: str) -> None:
        self._names = [name.encode() for name in names]

    def time_remaining(self) -> float | None:
        """The call has no deadline."""
        return None

    def auth_context(self) -> dict[str, list[bytes]]:
        """The peer's certificate bears these URI names."""
        return {"peer_uri": self._names}


def door(checks: Any, *, named: bool = False, believes_source: bool = True) -> ExtAuthz:
    """A door that asks these checks. Its timer stands still: the wall clock ends what ends."""
    return ExtAuthz(
        checks,
        timer=lambda: 0.0,
        default_timeout=5.0,
        margin=0.05,
        peers_have_names=named,
        believes_source=believes_source,
    )


async def answer(asked: ExtAuthz, raw: bytes, *names: str) -> bytes:
    """What the door says."""
    context: Any = Context(*names)
    return await asked.serve(raw, context)


@pytest.mark.parametrize("edge", ["", "4"])
@pytest.mark.parametrize("route", [INBOUND, OBO, Flow.AUTONOMOUS, Flow.NONE])
async def test_the_second_answer_is_the_first_ones_bytes_at_once(route: str, edge: str) -> None:
    """Without giving up the thread once, and everybody hears of it."""
    scene = Scene()
    scene.configure(edge_ttl=30.0)
    asked = door(scene.service)
    raw = wire("inbound" if route == INBOUND else "egress", route, scene.tenant.user_token(),
               edge=edge)  # fmt: skip
    first = await answer(asked, raw)
    path = answer(asked, raw)
    with pytest.raises(StopIteration) as ended:
        path.send(None)

    assert first is ended.value.value
    assert asked.is_quiet(0.0)
    one, two = scene.observer.records
    assert (False, True) == (one.repeated, two.repeated)
    assert (one.decision, one.route, one.principal) == (two.decision, two.route, two.principal)
    assert [CacheResult.MISS, CacheResult.HIT] == scene.observer.results(CacheName.ANSWERS)


@pytest.mark.parametrize(
    "changes", [{"route": None}, {"x_authz_subject": "root"}, {"token": "another"}], ids=str
)
async def test_what_is_out_of_the_ordinary_goes_the_whole_path(changes: dict[str, Any]) -> None:
    """A route without a name, own headers in the request, a token that was not seen."""
    scene = Scene()
    asked = door(scene.service)
    usual = {"direction": "egress", "route": OBO.value, "token": scene.tenant.user_token()}
    await answer(asked, wire(**usual))
    await answer(asked, wire(**(usual | changes)))

    assert [False, False] == [record.repeated for record in scene.observer.records]


async def test_another_peer_goes_the_whole_path() -> None:
    """What one workload was allowed says nothing of another."""
    scene = Scene()
    asked = door(scene.service, named=True)
    raw = wire("egress", "autonomous", None)
    for peer in (PEER, PEER, "spiffe://cluster/ns/a/sa/other"):
        await answer(asked, raw, peer)

    assert [False, True, False] == [record.repeated for record in scene.observer.records]


@pytest.mark.parametrize("believes_source", [True, False])
async def test_envoys_word_for_its_client_is_read_where_it_counts(believes_source: bool) -> None:
    """Elsewhere it is not even looked at, and tells no two requests apart."""
    scene = Scene()
    asked = door(scene.service, believes_source=believes_source)
    question = WireRequest.FromString(wire("egress", "autonomous", None))
    for certificate in (SOURCE, ""):
        question.attributes.source.principal = PEER
        question.attributes.source.certificate = certificate
        await answer(asked, question.SerializeToString())

    assert [False, not believes_source] == [record.repeated for record in scene.observer.records]
    told = {record.request.source_principal for record in scene.observer.records[:1]}
    assert {PEER if believes_source else None} == told


async def test_bytes_that_are_no_question_are_refused_by_grpc(short_directory: Path) -> None:
    """Envoy never sends them, and an error of the RPC is a denial to it."""
    scene = Scene()
    address = f"unix:{short_directory / 'door.sock'}"
    server = GrpcServer(ServerSettings(address), [door(scene.service).handler()])
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/Check")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"\xff\xff", timeout=10)
            good = await call(wire("egress", "autonomous", None), timeout=10)
    finally:
        await server.stop()

    assert grpc.StatusCode.INVALID_ARGUMENT is refused.value.code()
    assert 0 == WireResponse.FromString(good).status.code
    assert 1 == len(scene.observer.records)


async def test_near_its_end_an_answer_is_made_anew_for_envoys_cache() -> None:
    """The prepared bytes would promise more time than there is."""
    scene = Scene()
    scene.configure(edge_ttl=30.0)
    asked = door(scene.service)
    raw = wire("inbound", INBOUND, scene.tenant.user_token(exp=START + 100), edge="4")
    told = []
    for seconds in (0, 70, 10):
        scene.clock.advance(seconds)
        metadata = WireResponse.FromString(await answer(asked, raw)).dynamic_metadata
        told.append(metadata.fields["edge"].struct_value.fields["ttl_ms"].number_value)

    assert [30_000, 30_000, 20_000] == told


async def test_a_defect_of_the_hit_path_denies() -> None:
    """It is met again on the whole path, and is a denial there."""
    scene = Scene()
    asked = door(scene.service)
    raw = wire("inbound", INBOUND, scene.tenant.user_token())
    await answer(asked, raw)
    scene.keys.current = _defect  # type: ignore[method-assign]

    assert WireResponse.FromString(await answer(asked, raw)).status.code != 0
    assert isinstance(scene.observer.records[-1].fault, ZeroDivisionError)


def _defect(issuer: str, key_id: str) -> Any:
    raise ZeroDivisionError


async def test_a_request_is_decided_by_the_configuration_that_it_was_read_by() -> None:
    """Where another one is in use before the Check door's task takes its first step."""
    scene = Scene()
    asked = door(scene.service)
    waiting = asked.answer(wire("egress", Flow.AUTONOMOUS, None), None)
    assert not isinstance(waiting, bytes)
    scene.service.swap(scene.snapshot(Policy(version="empty")))

    assert 0 == WireResponse.FromString(await waiting).status.code
    assert (
        0
        != WireResponse.FromString(
            await answer(asked, wire("egress", Flow.AUTONOMOUS, None))
        ).status.code
    )
