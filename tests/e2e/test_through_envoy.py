"""The service behind a real Envoy, with load: right tokens, nothing lost, nothing leaked.

Every request here is a Check; `test_edge_cache.py` is about those that are none.
"""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from authz_dev.emulator import Fault
from support.programs.stack import World
from support.proxy.pod import GRAPH, Pod, calling, pod_of


@pytest.fixture(params=["grpc", "checks"])
def pod(world: World, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pod]:
    """A pod whose Envoy repeats nothing, and asks at one of the two doors."""
    listen = dict(world.config()["listen"])
    if request.param == "checks":
        listen["checks"] = f"unix:{world.folder}/checks.sock"
    with pod_of(world, tmp_path, cache={"edge": {"max_ttl": 0}}, listen=listen) as running:
        yield running
        asked = running.sidecar.envoy.stats().get("cluster.authz-checks.upstream_rq_total", 0)
        assert bool(asked) == (request.param == "checks")


async def test_each_user_gets_his_own_token_and_no_users_token_leaves(pod: Pod) -> None:
    """Concurrent users through one Envoy: right subject every time, only agent tokens at the API."""
    async with calling(pod) as callers:
        await callers.reach(200)

    assert {"right"} == set(callers.outcomes)
    assert [] == pod.leaked


async def test_sigterm_under_load_loses_nothing_until_the_load_ends(pod: Pod) -> None:
    """The service goes on answering while Envoy asks, and ends when nobody asks any more."""
    async with calling(pod) as callers:
        pod.authz.signal(signal.SIGTERM)
        await asyncio.to_thread(pod.authz.event, "draining")
        await callers.reach(100)

    assert {"right"} == set(callers.outcomes)
    assert 0 == await asyncio.to_thread(pod.authz.wait)


async def test_a_killed_service_fails_closed_and_heals_without_touching_envoy(pod: Pod) -> None:
    """While it is gone every call is refused and nothing reaches the API; then it goes on."""
    async with calling(pod) as callers:
        pod.authz.signal(signal.SIGKILL)
        await asyncio.to_thread(pod.authz.wait)
        before = len(pod.sidecar.destinations["graph.microsoft.com"].received)
        refused = "status 503"
        await callers.reach(30, refused)
        during = len(pod.sidecar.destinations["graph.microsoft.com"].received)
        old = pod.authz
        await asyncio.to_thread(pod.start)
        old.close()
        await callers.reach(50)

    assert before == during
    assert {"right", refused} == set(callers.outcomes)
    assert [] == pod.leaked


async def test_entra_down_is_503_with_retry_after_and_nothing_leaves(pod: Pod) -> None:
    """A cold user while Entra is down: our own status and body, and the API is not called."""
    pod.world.emulator.faults.add(Fault("down"))
    async with httpx.AsyncClient(
        proxy=f"http://127.0.0.1:{pod.sidecar.egress_port}", trust_env=False
    ) as client:
        answer = await client.get(GRAPH, headers={"authorization": f"Bearer {pod.world.token()}"})

    assert (503, "exchange_unavailable") == (answer.status_code, answer.json()["reason"])
    assert int(answer.headers["retry-after"]) >= 1
    assert [] == pod.sidecar.destinations["graph.microsoft.com"].received


async def test_an_agent_can_tell_the_service_that_is_away_from_an_api_that_is(pod: Pod) -> None:
    """A new user each time: the reason says who is away, and both say when to try again."""

    async def told(user: str) -> tuple[int, str, str]:
        headers = {"authorization": f"Bearer {pod.world.token(user)}"}
        answer = await client.get(GRAPH, headers=headers)
        assert "application/problem+json" == answer.headers["content-type"]
        return answer.status_code, answer.json()["reason"], answer.headers["retry-after"]

    proxy = f"http://127.0.0.1:{pod.sidecar.egress_port}"
    async with httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=10) as client:
        pod.authz.signal(signal.SIGKILL)
        await asyncio.to_thread(pod.authz.wait)
        assert (503, "authz_unavailable", "1") == await told("alice")
        pod.authz.close()
        await asyncio.to_thread(pod.start)
        pod.sidecar.destinations["graph.microsoft.com"].__exit__(None, None, None)
        assert (503, "downstream_unavailable", "1") == await told("alice2")


def test_a_token_outside_the_header_is_none(pod: Pod) -> None:
    """RFC 6750 sections 2.2 and 2.3 name a form and the query: what logs keep lets nobody in."""
    token = pod.world.token()
    caller = pod.sidecar.caller

    statuses = [
        caller.get("/chat", params={"access_token": token}).status_code,
        caller.post("/chat", data={"access_token": token}).status_code,
        caller.get("/chat", headers={"authorization": f"Bearer {token}"}).status_code,
    ]

    assert [401, 401, 200] == statuses
    assert 1 == len(pod.sidecar.app.received)
