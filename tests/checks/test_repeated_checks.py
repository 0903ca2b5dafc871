"""The hit path of `CheckService`: an answer is given again while all it rests on holds, and no longer."""

from dataclasses import replace
from typing import Any, Final

import pytest

from authz.core.decision import Allow, Deny
from authz.core.errors import ExchangeUnavailable, Reason
from authz.core.exchange import Flow
from authz.core.lifetime import LOOK_AGAIN
from authz.core.moment import Moment
from authz.core.outcome import Granted
from authz.core.policy import Policy
from authz.core.record import CacheName, CacheResult, CheckRecord
from authz.core.requirement import Requirement
from authz.core.route import Forward, PeerSource
from authz.core.secret import Secret
from support.fakes.clock import START, at
from support.fakes.scene import EGRESS_FLOWS, INBOUND, Scene

OBO: Final = Flow.ON_BEHALF_OF
EDGE: Final[dict[str, Any]] = {"at_edge": True}
MARGIN: Final = 60.0


def ends(record: CheckRecord) -> Moment:
    """When what was allowed becomes wrong."""
    assert isinstance(record.outcome, Granted)
    return record.outcome.lifetime.ends


def _token(record: CheckRecord) -> Secret | None:
    assert isinstance(record.decision, Allow), record
    return record.decision.authorization


@pytest.mark.parametrize("route", [INBOUND, *(flow.value for flow in EGRESS_FLOWS)])
async def test_an_allowance_is_repeated_as_it_was(route: str) -> None:
    """Decision, route and principal are those of the first time; and everybody is told of a hit."""
    scene = Scene()
    request = scene.request(
        "inbound" if route == INBOUND else "egress", route, scene.tenant.user_token()
    )
    first, second = await scene.check(request), await scene.check(request)

    assert (False, True) == (first.repeated, second.repeated)
    assert (first.decision, first.route, first.principal, ends(first)) == (
        second.decision, second.route, second.principal, ends(second),
    )  # fmt: skip
    assert [CacheResult.MISS, CacheResult.HIT] == scene.observer.results(CacheName.ANSWERS)
    assert [first, second] == scene.observer.records
    assert second.seconds >= 0


async def test_a_denial_is_decided_anew_each_time() -> None:
    """A user who gets a permission has it at once."""
    scene = Scene()
    token = scene.tenant.user_token()
    scene.configure(replace(scene.inbound_route, requirement=Requirement(scopes=(("another",),))))
    await scene.inbound(token)

    assert not (await scene.inbound(token)).repeated


@pytest.mark.parametrize("flow", [OBO, Flow.AUTONOMOUS])
async def test_a_successor_is_fetched_ahead_although_answers_are_repeated(flow: Flow) -> None:
    """From `refresh_at` on one Check goes the whole path, and starts the flight."""
    scene = Scene()
    token = scene.tenant.user_token(exp=START + 10_000)
    await scene.egress(flow, token)
    scene.clock.advance(scene.entra.refresh_after)
    old = await scene.egress(flow, token)
    await scene.tokens.drain()
    scene.clock.advance(LOOK_AGAIN)

    assert Secret("issued-1") == _token(old)
    assert Secret("issued-2") == _token(await scene.egress(flow, token))


async def test_while_entra_is_away_a_successor_is_looked_for_once_a_second() -> None:
    """The other Checks are still answered on the short path."""
    scene = Scene()
    await scene.egress(Flow.AUTONOMOUS)
    scene.clock.advance(scene.entra.refresh_after)
    scene.entra.fail(ExchangeUnavailable())
    records = [await scene.egress(Flow.AUTONOMOUS) for _ in range(3)]
    await scene.tokens.drain()
    scene.clock.advance(LOOK_AGAIN)
    records.append(await scene.egress(Flow.AUTONOMOUS))

    assert [False, True, True, False] == [record.repeated for record in records]
    assert {Secret("issued-1").digest()} == {_digest(record) for record in records}


def _digest(record: CheckRecord) -> bytes:
    token = _token(record)
    assert token is not None
    return token.digest()


async def test_an_answer_ends_with_the_users_token() -> None:
    """Inbound and on behalf: at `exp` the token is looked at again."""
    scene = Scene()
    token = scene.tenant.user_token(exp=START + 100)
    scene.entra.refresh_after = 3000.0
    inbound, egress = await scene.inbound(token), await scene.egress(OBO, token)

    assert {at(START + 100)} == {ends(inbound), ends(egress)}
    scene.clock.advance(100)
    assert not (await scene.inbound(token)).repeated
    assert not (await scene.egress(OBO, token)).repeated


async def test_an_answer_ends_before_the_token_that_it_gives() -> None:
    """By the same margin as the token's own cache."""
    scene = Scene()
    scene.entra.refresh_after = scene.entra.lifetime
    record = await scene.egress(Flow.AUTONOMOUS)

    assert scene.clock.moment().later(scene.entra.lifetime - MARGIN) == ends(record)
    scene.clock.advance(scene.entra.lifetime - MARGIN)
    assert Secret("issued-2") == _token(await scene.egress(Flow.AUTONOMOUS))


async def test_an_answer_ends_with_the_trust_in_the_key() -> None:
    """Once, and for good: a key that comes back proves anew."""
    scene = Scene()
    token = scene.tenant.user_token()
    await scene.inbound(token)
    key = scene.keys.current(scene.tenant.issuer, "key-1")
    assert key is not None
    scene.keys.withdraw("key-1")

    assert Reason.INVALID_TOKEN is _reason(await scene.inbound(token))
    scene.keys.publish(key)
    again = await scene.inbound(token)
    assert isinstance(again.decision, Allow)
    assert CacheResult.MISS is again.principal_cache
    assert [CacheResult.MISS] * 3 == scene.observer.results(CacheName.ANSWERS)


def _reason(record: CheckRecord) -> Reason:
    assert isinstance(record.decision, Deny)
    return record.decision.reason


async def test_a_new_configuration_begins_without_answers() -> None:
    """What was allowed under the old one is decided anew."""
    scene = Scene()
    token = scene.tenant.user_token()
    await scene.inbound(token)
    scene.configure(replace(scene.inbound_route, requirement=Requirement(scopes=(("another",),))))

    assert Reason.INSUFFICIENT_SCOPE is _reason(await scene.inbound(token))


async def test_a_check_of_the_old_configuration_leaves_no_answer_for_the_new() -> None:
    """It ends under the one it began with, and is forgotten with it."""
    scene = Scene()
    scene.entra.hang()
    request = scene.request("egress", Flow.AUTONOMOUS, None)
    path = scene.check(request)
    path.send(None)
    scene.service.swap(scene.snapshot(Policy(version="empty")))
    scene.entra.release()
    await scene.tokens.drain()
    with pytest.raises(StopIteration) as ended:
        path.send(None)

    assert isinstance(ended.value.value.decision, Allow)
    assert Reason.UNKNOWN_ROUTE is _reason(await scene.check(request))


async def test_a_defect_of_the_short_path_denies() -> None:
    """Fail closed, there as everywhere."""
    scene = Scene(has_defects=True)
    token = scene.tenant.user_token()
    await scene.inbound(token)
    scene.keys.current = _defect  # type: ignore[method-assign]
    record = await scene.inbound(token)

    assert (Reason.INTERNAL, ZeroDivisionError) == (_reason(record), type(record.fault))


def _defect(issuer: str, key_id: str) -> Any:
    raise ZeroDivisionError


# --- What Envoy itself may repeat -------------------------------------------------------------------------


@pytest.mark.parametrize("route", [INBOUND, OBO, Flow.AUTONOMOUS, Flow.NONE])
async def test_envoy_may_repeat_an_allowance_for_the_configured_time(route: str) -> None:
    """The first time and each further time, if its cache stands before us."""
    scene = Scene()
    scene.configure(edge_ttl=30.0)
    direction = "inbound" if route == INBOUND else "egress"
    request = scene.request(direction, route, scene.tenant.user_token())
    first, second = [await scene.check(request._replace(at_edge=True)) for _ in range(2)]
    plain = [await scene.check(request) for _ in range(2)]

    assert (30.0, 30.0) == (first.edge_ttl, second.edge_ttl)
    assert [0.0, 0.0] == [record.edge_ttl for record in plain]
    assert [False, True] == [record.repeated for record in plain]


async def test_envoy_may_not_repeat_longer_than_a_token_lives() -> None:
    """Neither the user's nor the one that was issued, also when the answer is old already."""
    scene = Scene()
    scene.configure(edge_ttl=1000.0)
    token = scene.tenant.user_token(exp=START + 600)
    on_behalf = await scene.egress(OBO, token, **EDGE)
    scene.clock.advance(400)
    repeated = await scene.egress(OBO, token, **EDGE)
    scene.entra.lifetime = 300.0
    own = await scene.egress(Flow.AUTONOMOUS, **EDGE)

    assert (600.0, 200.0, 240.0) == (on_behalf.edge_ttl, repeated.edge_ttl, own.edge_ttl)
    assert repeated.repeated


async def test_envoy_hears_what_must_be_there_to_repeat_a_reference() -> None:
    """This process and this configuration: another of either may refuse it. Other answers need nothing."""
    scene, another = Scene(), Scene()
    token, epochs = scene.tenant.user_token(), []
    for made, changes in ((scene, {}), (scene, {}), (scene, {"version": "v2"}), (another, {})):
        referring = replace(made.inbound_route, forward=frozenset({Forward.PLACEHOLDER}))
        made.configure(referring, edge_ttl=30.0, **changes)
        epochs += [(await made.inbound(token, **EDGE)).edge_epoch for _ in range(2)]
    scene.configure(edge_ttl=30.0)
    plain = [await scene.inbound(token, **EDGE), await scene.egress(OBO, token, **EDGE)]

    assert [scene.subjects.epoch] * 6 + [another.subjects.epoch] * 2 == [
        epoch.partition(".")[0] for epoch in epochs
    ]
    assert scene.subjects.epoch != another.subjects.epoch
    assert epochs[0] == epochs[1] == epochs[2] == epochs[3] != epochs[4] == epochs[5]
    assert ["", ""] == [record.edge_epoch for record in plain]


async def test_an_answer_that_has_just_ended_is_not_repeated() -> None:
    """A token that only leeway keeps alive is good for one request."""
    scene = Scene()
    scene.configure(edge_ttl=30.0)
    token = scene.tenant.user_token(exp=START + 100)
    scene.clock.advance(110)
    record = await scene.inbound(token, **EDGE)

    assert isinstance(record.decision, Allow)
    assert 0.0 == record.edge_ttl


async def test_envoy_does_not_repeat_denials() -> None:
    """Whoever gets the permission has it at once."""
    scene = Scene()
    scene.configure(edge_ttl=30.0)

    assert 0.0 == (await scene.inbound(None, **EDGE)).edge_ttl


@pytest.mark.parametrize("changes", [{"own_headers": ("x-authz-foo",)}, {"route": None}], ids=str)
async def test_envoy_does_not_repeat_what_depends_on_more_than_it_knows(
    changes: dict[str, Any],
) -> None:
    """Headers that we remove because they were sent; a route that we found by host."""
    scene = Scene()
    scene.configure(
        replace(scene.egress_routes["autonomous"], hosts=("api.example",)), edge_ttl=30.0
    )
    record = await scene.egress(Flow.AUTONOMOUS, **EDGE, **changes)

    assert isinstance(record.decision, Allow)
    assert 0.0 == record.edge_ttl


async def test_envoy_does_not_repeat_what_its_own_client_decides() -> None:
    """Where Envoy vouches for its clients, each of them is another."""
    scene = Scene()
    bound = replace(
        scene.egress_routes["autonomous"],
        workloads=frozenset({"spiffe://a/b"}),
        peer_source=PeerSource.SOURCE_PRINCIPAL,
    )
    scene.configure(bound, edge_ttl=30.0)
    record = await scene.egress(Flow.AUTONOMOUS, source_principal="spiffe://a/b", **EDGE)

    assert isinstance(record.decision, Allow)
    assert 0.0 == record.edge_ttl


async def test_a_stripped_token_stays_stripped_when_repeated() -> None:
    """The repetition removes what the first answer removed."""
    scene = Scene()
    scene.configure(replace(scene.inbound_route, forward=frozenset({Forward.STRIP})))
    token = scene.tenant.user_token()
    await scene.inbound(token)
    record = await scene.inbound(token)

    assert record.repeated
    assert isinstance(record.decision, Allow)
    assert "authorization" in record.decision.remove
