"""The edge cache with the service itself, real tokens and load: few Checks, right tokens, an end in time."""

import asyncio
import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.programs.stack import World, until
from support.proxy.pod import GRAPH, USERS, Pod, calling, pod_of

MAX_TTL: Final = 2.0


@pytest.fixture
def pod(world: World, tmp_path: Path) -> Iterator[Pod]:
    """A pod whose Envoy repeats answers for a short while."""
    with pod_of(world, tmp_path, cache={"edge": {"max_ttl": MAX_TTL}}) as running:
        yield running


@pytest.fixture
def long_pod(world: World, tmp_path: Path) -> Iterator[Pod]:
    """A pod whose Envoy repeats answers for longer than any test takes."""
    with pod_of(world, tmp_path, cache={"edge": {"max_ttl": "1h"}}) as running:
        yield running


def checks(pod: Pod) -> int:
    """How many Checks the service has answered."""
    lines = pod.authz.admin("/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("authz_checks_total{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in counts)


def bearer(pod: Pod, user: str) -> dict[str, str]:
    """Return the header of a user."""
    return {"authorization": f"Bearer {pod.world.token(user)}"}


async def test_many_requests_of_few_users_are_few_checks(long_pod: Pod) -> None:
    """One for each user, and every request gets the right token."""
    async with calling(long_pod) as callers:
        await callers.reach(200)

    assert {"right"} == set(callers.outcomes)
    assert len(USERS) == checks(long_pod)
    assert [] == long_pod.leaked


async def test_the_agent_hears_who_is_calling_also_without_a_check(long_pod: Pod) -> None:
    """Inbound: the identity that the service verified, once."""
    caller = long_pod.sidecar.caller
    for user in USERS[:2]:
        headers = bearer(long_pod, user)
        for _ in range(3):
            assert 200 == caller.get("/chat", headers=headers).status_code

    subjects = [seen.values("x-authz-subject") for seen in long_pod.sidecar.app.received]
    wanted = [[long_pod.world.users[user]["object_id"]] for user in USERS[:2] for _ in range(3)]
    assert wanted == subjects
    first, *repeated = long_pod.sidecar.app.received[:3]
    unlike = {"x-request-id"}
    for seen in repeated:
        assert [pair for pair in first.headers if pair[0] not in unlike] == [
            pair for pair in seen.headers if pair[0] not in unlike
        ]
    assert 2 == checks(long_pod)


async def test_without_the_service_known_users_go_on_and_new_ones_are_refused(
    long_pod: Pod,
) -> None:
    """Nothing of what was allowed is lost, nothing else passes, and a restart heals."""
    async with calling(long_pod, USERS[:2]) as callers:
        long_pod.authz.signal(signal.SIGKILL)
        await asyncio.to_thread(long_pod.authz.wait)
        await callers.reach(50)
        stranger = bearer(long_pod, USERS[2])
        get = long_pod.sidecar.agent.get
        refused = await asyncio.to_thread(get, GRAPH, headers=stranger)
        old = long_pod.authz
        await asyncio.to_thread(long_pod.start)
        old.close()
        # Envoy, which nobody has touched, connects again by itself, but not at once.
        healed = 503
        while healed == 503:
            healed = (await asyncio.to_thread(get, GRAPH, headers=stranger)).status_code

    assert (503, 200) == (refused.status_code, healed)
    assert {"right"} == set(callers.outcomes)
    assert [] == long_pod.leaked


async def test_without_the_service_answers_end_in_time(pod: Pod) -> None:
    """Then known users are refused as well, until the service is back."""
    async with calling(pod) as callers:
        pod.authz.signal(signal.SIGKILL)
        await asyncio.to_thread(pod.authz.wait)
        refused = "status 503"
        await callers.reach(30, refused)
        old = pod.authz
        await asyncio.to_thread(pod.start)
        old.close()
        await callers.reach(50)

    assert {"right", refused} == set(callers.outcomes)
    assert [] == pod.leaked


async def test_a_changed_configuration_counts_when_the_time_to_live_is_over(pod: Pod) -> None:
    """No request that was sent later than that gets what the new configuration denies."""
    agent, headers = pod.sidecar.agent, bearer(pod, "alice")
    assert 200 == agent.get(GRAPH, headers=headers).status_code
    document = json.loads(pod.config_file.read_text())
    document["egress"]["graph"]["requires"] = {"scopes": ["not_held"]}
    pod.config_file.write_text(json.dumps(document))
    pod.authz.signal(signal.SIGHUP)
    await asyncio.to_thread(pod.authz.event, "configuration applied")
    applied = time.time()

    allowed, statuses = [], set()
    while 403 not in statuses:
        sent = time.time()
        statuses.add(agent.get(GRAPH, headers=headers).status_code)
        if 403 not in statuses:
            allowed.append(sent)

    assert {403} <= statuses <= {200, 403}
    assert all(sent < applied + MAX_TTL for sent in allowed)


async def test_no_token_is_in_envoys_log(long_pod: Pod) -> None:
    """Neither the users' nor the agent's, whether there was a Check or not."""
    headers = bearer(long_pod, "alice")
    for _ in range(3):
        long_pod.sidecar.agent.get(GRAPH, headers=headers)
        long_pod.sidecar.caller.get("/chat", headers=headers)

    entries: list[str] = []

    def logged() -> bool:
        entries[:] = [line for line in long_pod.sidecar.envoy.log.splitlines() if "{" in line]
        return len(entries) >= 6

    await until(logged)
    hits = [entry for entry in map(json.loads, entries) if entry.get("edge") == "allow"]
    assert 4 == len(hits)
    assert {("allow", "graph", "on_behalf_of"), ("allow", "agent", None)} == {
        (hit["decision"], hit["route"], hit.get("flow")) for hit in hits
    }
    assert re.search(r"eyJ[\w-]{10}", long_pod.sidecar.envoy.log) is None
    assert re.search(r"eyJ[\w-]{10}", headers["authorization"]) is not None
