"""Prefetches: what the agent will ask for is fetched while the caller's request is still on its way to it."""

from collections import Counter
from dataclasses import replace
from typing import Final

import pytest

from authz.core.decision import Allow
from authz.core.errors import ConsentRequired
from authz.core.exchange import Client, Flow
from authz.core.record import CacheName, CacheResult
from authz.core.requirement import Requirement
from authz.core.shares import Shares
from support.fakes.routes import regranted
from support.fakes.scene import DELEGATED_FLOWS, INBOUND, Scene

OBO: Final = Flow.ON_BEHALF_OF


def _scene(*routes: str) -> Scene:
    scene = Scene()
    scene.inbound_route = replace(scene.inbound_route, prefetch=routes)
    scene.configure()
    return scene


@pytest.mark.parametrize("flow", [*DELEGATED_FLOWS, Flow.AUTONOMOUS, Flow.AGENT_USER])
async def test_the_agents_first_call_is_a_hit(flow: Flow) -> None:
    """Its exchange was begun when the caller's token had been verified."""
    scene = _scene(flow.value)
    token = scene.tenant.user_token()
    await scene.inbound(token)
    await scene.prefetches.drain()
    record = await scene.egress(flow, token)

    assert [(flow.value, "issued")] == scene.observer.prefetches
    assert (True, 1) == (record.repeated, len(scene.entra.calls))
    assert isinstance(record.decision, Allow)


async def test_the_caller_does_not_wait_for_it() -> None:
    """The request goes on to the agent at once, however long Entra takes."""
    scene = _scene(OBO.value)
    scene.entra.hang()
    path = scene.check(scene.request("inbound", INBOUND, scene.tenant.user_token()))
    with pytest.raises(StopIteration) as ended:
        path.send(None)

    assert isinstance(ended.value.value.decision, Allow)
    scene.entra.release()
    await scene.prefetches.drain()
    assert [(OBO.value, "issued")] == scene.observer.prefetches


async def test_an_agent_that_is_quicker_joins_the_flight() -> None:
    """One exchange, whoever comes first."""
    scene = _scene(OBO.value)
    token = scene.tenant.user_token()
    scene.entra.hang()
    await scene.inbound(token)
    await scene.entra.asked.wait()
    path = scene.egress(OBO, token)
    scene.entra.release()
    record = await path

    assert isinstance(record.decision, Allow)
    assert CacheResult.JOINED is record.token_cache
    assert 1 == len(scene.entra.calls)


async def test_only_the_first_request_of_a_token_begins_one() -> None:
    """Later ones find everything there."""
    scene = _scene(OBO.value)
    token = scene.tenant.user_token()
    for _ in range(3):
        await scene.inbound(token)
        await scene.prefetches.drain()

    assert [(OBO.value, "issued")] == scene.observer.prefetches


async def test_what_is_there_already_is_known() -> None:
    """The agent had called before, for another request of the same user."""
    scene = _scene(OBO.value)
    token = scene.tenant.user_token()
    await scene.egress(OBO, token)
    await scene.inbound(token)
    await scene.prefetches.drain()

    assert [(OBO.value, "known")] == scene.observer.prefetches
    assert 1 == len(scene.entra.calls)


async def test_nothing_is_fetched_for_a_caller_who_is_refused() -> None:
    """Neither for one without a valid token, nor for one without the permission."""
    scene = _scene(OBO.value)
    await scene.inbound("no.real.token")
    scene.configure(replace(scene.inbound_route, requirement=Requirement(scopes=(("another",),))))
    await scene.inbound(scene.tenant.user_token())
    await scene.prefetches.drain()

    assert ([], []) == (scene.observer.prefetches, scene.entra.calls)


async def test_the_egress_routes_own_rules_hold() -> None:
    """A user who may call the agent, but for whom nothing may be exchanged."""
    scene = _scene(OBO.value, Flow.AUTONOMOUS.value)
    scene.configure(
        regranted(scene.egress_routes[OBO], requirement=Requirement(scopes=(("another",),))),
        replace(scene.egress_routes["autonomous"], workloads=frozenset({"spiffe://a/agent"})),
    )
    await scene.inbound(scene.tenant.user_token(), source_principal="spiffe://a/agent")
    await scene.prefetches.drain()

    assert [(OBO.value, "insufficient_scope"), ("autonomous", "workload_not_allowed")] == (
        scene.observer.prefetches
    )
    assert [] == scene.entra.calls


async def test_the_peer_of_the_inbound_connection_is_that_of_the_call() -> None:
    """Agent and caller's request are behind one and the same Envoy."""
    scene = _scene("autonomous")
    bound = replace(scene.egress_routes["autonomous"], workloads=frozenset({"spiffe://a/agent"}))
    scene.configure(bound)
    await scene.inbound(scene.tenant.user_token(), peer="spiffe://a/agent")
    await scene.prefetches.drain()
    record = await scene.egress("autonomous", peer="spiffe://a/agent")

    assert [("autonomous", "issued")] == scene.observer.prefetches
    assert record.repeated


async def test_a_prefetch_that_fails_harms_nobody() -> None:
    """The caller's request has gone on; the agent's call is told why, as it would have been."""
    scene = _scene(OBO.value)
    scene.entra.fail(ConsentRequired())
    token = scene.tenant.user_token()
    inbound = await scene.inbound(token)
    await scene.prefetches.drain()

    assert isinstance(inbound.decision, Allow)
    assert [(OBO.value, "consent_required")] == scene.observer.prefetches
    assert CacheResult.FAILURE is (await scene.egress(OBO, token)).token_cache


async def test_prefetches_under_way_are_bounded() -> None:
    """Those beyond are skipped and counted; their requests fetch for themselves."""
    scene = _scene(OBO.value)
    scene.entra.hang()
    for number in range(5):
        await scene.inbound(scene.tenant.user_token(oid=f"user-{number}"))
    skipped = list(scene.observer.prefetches)
    scene.entra.release()
    await scene.prefetches.drain()
    await scene.inbound(scene.tenant.user_token(oid="one-more"))
    await scene.prefetches.drain()

    assert [(OBO.value, "skipped")] * 2 == skipped
    assert [(OBO.value, "issued")] * 4 == scene.observer.prefetches[2:]


async def test_the_prefetches_of_one_client_leave_another_its_places() -> None:
    """Where the one's exchanges hang, the other's are still begun."""
    scene = _scene(OBO.value, Flow.APP.value)
    other = Client("other", "other-tenant", "other-client")
    scene.configure(regranted(scene.egress_routes[Flow.APP], client=other))
    scene.prefetches.places = Shares(4, holders=2)
    scene.entra.hang()
    for number in range(4):
        await scene.inbound(scene.tenant.user_token(oid=f"user-{number}"))
    skipped = Counter(scene.observer.prefetches)
    scene.entra.release()
    await scene.prefetches.drain()

    assert {(OBO.value, "skipped"): 2, (Flow.APP.value, "skipped"): 2} == skipped
    assert 2 == scene.observer.prefetches.count((OBO.value, "issued"))


async def test_a_prefetch_of_a_route_that_is_not_there_is_denied() -> None:
    """It belongs to no client."""
    scene = _scene("gone")
    await scene.inbound(scene.tenant.user_token())
    await scene.prefetches.drain()

    assert [("gone", "unknown_route")] == scene.observer.prefetches


async def test_a_prefetch_is_no_check() -> None:
    """Nobody asked, so no decision is counted or logged; the look-ups were real."""
    scene = _scene(OBO.value)
    record = await scene.inbound(scene.tenant.user_token())
    await scene.prefetches.drain()

    assert [record] == scene.observer.records
    assert [CacheResult.MISS] == scene.observer.results(CacheName.TOKENS)
