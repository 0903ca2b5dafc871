"""`PushedTokens`: fresh ahead of time, kept through an outage, empty at the end, never another's."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Final

import pytest
from structlog.testing import capture_logs

from authz.core.errors import ExchangeMisconfigured, ExchangeThrottled, ExchangeUnavailable
from authz.core.exchange import AgentIdentity, Autonomous, Flow, Target
from authz.core.moment import Moment
from authz.core.route import EgressRoute, PeerSource
from authz.core.secret import Secret
from authz.ports import Peer
from authz.tokens.keeper import (
    ATTEMPT,
    REFUSED,
    PushedValue,
    RefusalValue,
    Subscription,
    waiting,
)
from authz.tokens.pushing import PushedTokens
from support.fakes.clock import START
from support.fakes.exchanges import AGENT_IDENTITY, BLUEPRINT_CLIENT, GRAPH
from support.fakes.pushed import LIFETIME, MARGIN, REFRESH, PushedScene, policy, route
from support.programs.stack import until

DESK: Final = "spiffe://cluster.example/ns/agents/sa/desk"
OTHER: Final = "spiffe://cluster.example/ns/agents/sa/other"
DOWN: Final = ExchangeUnavailable("Entra is down")
SOCKET: Final = Peer()


class Envoy:
    """Somebody who holds a secret."""

    def __init__(self, pushed: PushedTokens, name: str, peer: Peer) -> None:
        self.changes = 0
        self.subscription = pushed.subscribe(name, peer, self._count)

    def _count(self) -> None:
        self.changes += 1

    @property
    def holds(self) -> str | None:
        """The token's text; empty text for the empty value, None where there is no value yet."""
        value = self.subscription.value
        if value is None:
            return None
        assert isinstance(value, PushedValue)
        return "" if value.token is None else value.token.reveal()

    @property
    def version(self) -> int:
        """The version of what it holds."""
        assert self.subscription.value is not None
        return self.subscription.value.version


class World(PushedScene):
    """A scene with Envoys."""

    async def envoy(self, name: str = "api", peer: Peer = SOCKET) -> Envoy:
        """Let an Envoy ask for a secret."""
        envoy = Envoy(self.pushed, name, peer)
        await self.alarm.forward()
        return envoy


async def test_token_is_there_before_any_request() -> None:
    """One exchange at the first interest, and the Envoy is told when it has landed."""
    world = World()
    world.entra.hang()
    envoy = await world.envoy()
    assert (None, 0) == (envoy.holds, envoy.changes)

    world.entra.release()
    await world.alarm.forward()

    assert ("issued-1", 1) == (envoy.holds, envoy.changes)
    assert [Autonomous(AGENT_IDENTITY, GRAPH)] == world.entra.calls
    assert ["api"] == world.observer.begun_for


async def test_fifty_envoys_and_a_check_cost_one_exchange() -> None:
    """All of them, and a second route for the same thing, share cache and flight."""
    world = World(route("api"), route("same"))
    world.entra.hang()
    envoys = [Envoy(world.pushed, name, SOCKET) for name in ("api", "same") for _ in range(25)]
    exchange = Autonomous(AGENT_IDENTITY, GRAPH)
    check = asyncio.create_task(world.tokens.obtain(exchange, deadline=time.monotonic() + ATTEMPT))
    await world.alarm.forward()
    world.entra.release()
    token = await check
    await world.alarm.forward()

    assert {"issued-1"} == {envoy.holds for envoy in envoys}
    assert "issued-1" == token.secret.reveal()
    assert 1 == len(world.entra.calls)


async def test_successor_is_fetched_ahead() -> None:
    """At the time Entra recommends, with the old token in use until the new one is there."""
    world = World()
    envoy = await world.envoy()
    first = envoy.version
    await world.alarm.forward(REFRESH - 1)
    assert ("issued-1", 1) == (envoy.holds, len(world.entra.calls))

    world.entra.hang()
    await world.alarm.forward(1)
    assert ("issued-1", 2) == (envoy.holds, len(world.entra.calls))
    world.entra.release()
    await world.alarm.forward()

    assert ("issued-2", 2) == (envoy.holds, envoy.changes)
    assert first != envoy.version


async def test_end_of_a_replaced_token_is_nobodys_business() -> None:
    """Only the token that is held can run out."""
    world = World()
    envoy = await world.envoy()
    await world.alarm.forward(REFRESH)
    await world.alarm.forward(LIFETIME - MARGIN - REFRESH)

    assert "issued-2" == envoy.holds
    assert 2 == len(world.alarm.alarms)


async def test_successor_that_a_check_fetched_is_taken_over() -> None:
    """Whoever asks first pays; nobody pays twice."""
    world = World()
    envoy = await world.envoy()
    world.alarm.advance(REFRESH)
    exchange = Autonomous(AGENT_IDENTITY, GRAPH)
    await world.tokens.obtain(exchange, deadline=time.monotonic() + ATTEMPT)
    await world.tokens.drain()
    await world.alarm.forward()

    assert ("issued-2", 2) == (envoy.holds, len(world.entra.calls))


async def test_token_outlives_an_outage_and_is_empty_at_its_hard_expiry() -> None:
    """Kept to the last usable second, and not a second longer; back as soon as Entra is."""
    world = World()
    envoy = await world.envoy()
    world.entra.fail(DOWN)
    await world.alarm.forward(REFRESH)
    assert "issued-1" == envoy.holds

    await world.alarm.forward(LIFETIME - REFRESH - MARGIN - 1)
    assert "issued-1" == envoy.holds
    assert pytest.approx(MARGIN + 1) == world.pushed.expiries()["api"]
    await world.alarm.forward(1)
    assert "" == envoy.holds
    assert 0 == world.pushed.expiries()["api"]

    world.entra.recover()
    await world.alarm.forward(max(world.alarm.alarms))

    assert f"issued-{len(world.entra.calls)}" == envoy.holds


async def test_token_that_no_envoy_holds_yet_is_not_told_of() -> None:
    """Envoy asks first why there is none: the token is fetched then, and held a moment later."""
    world = World()
    world.pushed.subscribe("refusal/api", SOCKET, lambda: None)
    await world.alarm.forward()
    assert 1 == len(world.entra.calls)
    assert {"api": 0.0} == world.pushed.expiries()

    await world.envoy()
    assert {"api": pytest.approx(LIFETIME)} == world.pushed.expiries()


async def test_token_is_renewed_before_a_margin_that_comes_earlier_than_the_refresh() -> None:
    """Entra's recommendation is no help where the token is not handed out that long."""
    world = World()
    world.entra.lifetime, world.entra.refresh_after = 2 * MARGIN, 2 * MARGIN - 1
    envoy = await world.envoy()
    world.entra.hang()

    await world.alarm.forward(MARGIN - 1)
    world.entra.release()
    await world.alarm.forward()

    assert ("issued-2", 2) == (envoy.holds, envoy.changes)


async def test_first_answer_is_empty_when_entra_fails_and_follows_its_recovery() -> None:
    """Envoy is not kept waiting, and what depends on the token is closed."""
    world = World()
    world.entra.fail(DOWN)
    envoy = await world.envoy()
    assert ("", 1) == (envoy.holds, envoy.changes)

    world.entra.recover()
    await world.alarm.forward(1)

    assert "issued-2" == envoy.holds


async def test_first_answer_does_not_wait_for_an_entra_that_hangs() -> None:
    """The attempt counts as failed, its flight goes on, and the next attempt joins it."""
    world = World(behind=ATTEMPT)
    world.entra.hang()
    envoy = await world.envoy()
    await until(lambda: envoy.holds is not None)
    assert "" == envoy.holds

    world.entra.release()
    await world.alarm.forward(1)

    assert ("issued-1", 1) == (envoy.holds, len(world.entra.calls))


async def test_pauses_between_attempts_double_up_to_a_bound() -> None:
    """An outage is not made worse by us, and its end is noticed within the bound."""
    world = World()
    world.entra.fail(DOWN)
    await world.envoy()

    pauses = []
    for _ in range(6):
        (pause,) = world.alarm.alarms
        pauses.append(pause)
        await world.alarm.forward(pause)

    assert [1, 2, 4, 8, 15, 15] == pauses


async def test_entras_own_pause_is_kept() -> None:
    """Throttled, we ask when we may, and not before."""
    world = World()
    world.entra.fail(ExchangeThrottled("slow down", retry_after=40.0))
    envoy = await world.envoy()
    assert [40] == world.alarm.alarms

    world.entra.recover()
    await world.alarm.forward(39)
    assert ("", 1) == (envoy.holds, len(world.entra.calls))
    await world.alarm.forward(1)

    assert "issued-2" == envoy.holds


async def test_token_that_is_over_within_the_margin_is_not_given_out() -> None:
    """What a Check would not hand out, nobody holds."""
    world = World()
    world.entra.lifetime = MARGIN
    envoy = await world.envoy()

    assert "" == envoy.holds


async def test_a_defect_is_empty_and_tried_again_and_told_without_its_text() -> None:
    """Law 3: fail closed. The text of an unexpected exception may hold anything."""
    world = World()
    world.entra.fail(RuntimeError("eyJ.some.token"))
    with capture_logs() as logs:
        envoy = await world.envoy()
        assert "" == envoy.holds
        world.entra.recover()
        await world.alarm.forward(1)

    assert "issued-2" == envoy.holds
    assert ["secret empty", "secret pushed"] == [record["event"] for record in logs]
    assert ("internal", "RuntimeError") == (logs[0]["reason"], logs[0]["detail"])
    assert "eyJ" not in str(logs)


async def test_keeping_ends_with_the_last_subscriber() -> None:
    """No timer and no task is left, and a later subscriber finds the token in the cache."""
    world = World()
    first, second = await world.envoy(), await world.envoy()
    tasks = len(asyncio.all_tasks())
    world.pushed.cancel(first.subscription)
    await world.alarm.forward()
    assert (["api"], 1) == (list(world.pushed.status()), world.pushed.subscribers())

    world.pushed.cancel(second.subscription)
    await world.alarm.forward()
    assert ({}, [], 0) == (world.pushed.status(), world.alarm.alarms, world.pushed.subscribers())
    assert tasks - 2 == len(asyncio.all_tasks())

    third = await world.envoy()
    assert ("issued-1", 1) == (third.holds, len(world.entra.calls))


@pytest.mark.parametrize("down", [False, True])
async def test_closing_ends_every_keeper(down: bool) -> None:
    """When the service stops, nobody goes on asking Entra, whether there is a token or none."""
    world = World()
    if down:
        world.entra.fail(DOWN)
    await world.envoy()

    await world.pushed.close()

    assert [] == world.alarm.alarms
    assert {asyncio.current_task()} == asyncio.all_tasks()


async def test_status_tells_of_each_secret_and_no_token() -> None:
    """How long it lives, and how many hold it."""
    world = World()
    await world.envoy()
    await world.envoy()

    assert {"api": {"seconds": LIFETIME, "subscribers": 2}} == world.pushed.status()


@pytest.mark.parametrize(
    ("found", "peer", "cause"),
    [
        (route("another"), SOCKET, "no egress route has this name"),
        (route(push=False), SOCKET, "not pushed"),
        (route(flow=Flow.ON_BEHALF_OF, push=False), SOCKET, "not pushed"),
        (route(workloads=frozenset({DESK})), SOCKET, "certain workloads"),
        (route(workloads=frozenset({DESK})), Peer(OTHER), "certain workloads"),
        (
            route(workloads=frozenset({DESK}), peer_source=PeerSource.SOURCE_PRINCIPAL),
            Peer(DESK),
            "certain workloads",
        ),
    ],
)
async def test_who_may_not_have_a_token_has_the_empty_value_at_once(
    found: EgressRoute, peer: Peer, cause: str
) -> None:
    """Law 2, and nothing is asked of Entra. With `source_principal` a connection proves the gateway only."""
    world = World(found)

    envoy = await world.envoy(peer=peer)

    assert "" == envoy.holds
    assert cause in (envoy.subscription.refusal or "")
    assert [] == world.entra.calls


@pytest.mark.parametrize(
    ("found", "peer"),
    [
        (route(workloads=frozenset({DESK})), Peer(DESK)),
        (route(), Peer(OTHER)),
        (route(peer_source=PeerSource.SOURCE_PRINCIPAL), Peer(OTHER)),
        (route(flow=Flow.AGENT_USER), SOCKET),
        (route(flow=Flow.BLUEPRINT, asker=BLUEPRINT_CLIENT), SOCKET),
        (route(flow=Flow.APP, asker=BLUEPRINT_CLIENT), SOCKET),
    ],
)
async def test_who_may_have_a_token_has_it(found: EgressRoute, peer: Peer) -> None:
    """The rule is that of Checks: without workloads, whoever may connect."""
    world = World(found)

    assert "issued-1" == (await world.envoy(peer=peer)).holds


Change = Callable[[], tuple[EgressRoute, ...]]


@pytest.mark.parametrize(
    "change",
    [
        tuple,
        lambda: (route(push=False),),
        lambda: (route(workloads=frozenset({OTHER})),),
    ],
    ids=["gone", "not pushed", "peer not allowed"],
)
async def test_what_a_new_configuration_does_not_grant_is_empty_at_once(change: Change) -> None:
    """And comes back with a configuration that grants it again."""
    world = World()
    envoy = await world.envoy(peer=Peer(DESK))
    subscription: Subscription = envoy.subscription

    world.pushed.swap(policy(*change(), version="v2"), world.tokens)

    assert ("", 2) == (envoy.holds, envoy.changes)
    assert subscription.refusal is not None
    await world.swap(route(), version="v3")
    assert f"issued-{len(world.entra.calls)}" == envoy.holds


async def test_token_of_an_unchanged_route_is_kept_and_renewed_behind() -> None:
    """Only the version changed: no gap, and no outage of Entra can make one."""
    world = World()
    envoy = await world.envoy()
    world.entra.hang()
    await world.swap(route())
    assert ("issued-1", 2) == (envoy.holds, len(world.entra.calls))

    world.entra.fail(DOWN)
    world.entra.release()
    await world.alarm.forward()
    assert ("issued-1", 1) == (envoy.holds, envoy.changes)
    world.entra.recover()
    await world.alarm.forward(1)

    assert "issued-3" == envoy.holds
    assert 2 == len(world.alarm.alarms)
    assert "v2" == world.entra.calls[-1].target.policy_version


OTHER_AGENT: Final = AgentIdentity("other", "a9", BLUEPRINT_CLIENT)


@pytest.mark.parametrize(
    "changed",
    [
        route(asker=OTHER_AGENT),
        route(target=Target(("api://other/.default",))),
        route(target=replace(GRAPH, claims="{}")),
        route(flow=Flow.AGENT_USER),
    ],
    ids=["agent", "scopes", "claims", "flow"],
)
@pytest.mark.parametrize("fails", [False, True])
async def test_old_identity_ends_with_the_first_attempt_for_the_new_one(
    changed: EgressRoute, fails: bool
) -> None:
    """The old token serves while the new one is fetched, and never after a failure."""
    world = World()
    envoy = await world.envoy()
    world.entra.hang()
    await world.swap(changed)
    assert "issued-1" == envoy.holds

    if fails:
        world.entra.fail(DOWN)
    world.entra.release()
    await world.alarm.forward()

    assert ("" if fails else "issued-2") == envoy.holds


async def test_other_routes_do_not_notice_a_new_configuration() -> None:
    """Not even a log line at `info`: only what changed is sent."""
    world = World(route("api"), route("other", target=Target(("api://b/.default",))))
    envoy = await world.envoy("other")
    world.pushed.swap(world.pushed._policy, world.tokens)
    await world.alarm.forward()

    assert ("issued-1", 1) == (envoy.holds, envoy.changes)
    assert 1 == len(world.entra.calls)


async def test_an_envoy_that_asks_why_is_given_the_reason_that_waiting_does_not_mend() -> None:
    """A misconfiguration, for as long as it is one and there is no token; else nothing."""
    world = World()
    world.entra.fail(ExchangeMisconfigured("wrong secret"))
    before = world.pushed.subscribe("refusal/api", SOCKET, lambda: None)
    at_first = before.value
    envoy = await world.envoy()
    refused = _why(before)
    empty = envoy.holds
    world.entra.fail(DOWN)
    await world.alarm.forward(60)
    away, version = _why(before), envoy.version
    world.entra.fail(ExchangeMisconfigured("wrong secret"))
    await world.alarm.forward(60)
    again, same = _why(before), envoy.version == version
    status = world.pushed.status()["api"]
    world.entra.recover()
    await world.alarm.forward(60)

    assert (None, "", True) == (at_first, empty, same)
    assert ("exchange_misconfigured", None, "exchange_misconfigured") == (refused, away, again)
    assert {"reason": "exchange_misconfigured", "detail": "wrong secret"} == {
        key: status[key] for key in ("reason", "detail")
    }
    assert 1 == status["subscribers"]
    assert (None, True) == (_why(before), envoy.holds not in (None, ""))
    assert {"seconds", "subscribers"} == world.pushed.status()["api"].keys()


async def test_a_token_that_is_held_needs_no_reason() -> None:
    """Its renewal is refused: the status says why, and Envoy has nothing to explain until it ends."""
    world = World()
    envoy = await world.envoy()
    why = world.pushed.subscribe("refusal/api", SOCKET, lambda: None)
    world.entra.fail(ExchangeMisconfigured("wrong secret"))
    await world.alarm.forward(REFRESH)
    held, explained = envoy.holds, _why(why)
    status = world.pushed.status()["api"]
    await world.alarm.forward(LIFETIME)

    assert (True, None) == (held not in (None, ""), explained)
    assert "exchange_misconfigured" == status["reason"]
    assert ("", "exchange_misconfigured") == (envoy.holds, _why(why))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (route("another"), "unknown_route"),
        (route(push=False), "unknown_route"),
        (route(workloads=frozenset({DESK})), "workload_not_allowed"),
    ],
    ids=["gone", "not pushed", "peer not allowed"],
)
async def test_who_may_not_have_the_token_is_given_the_reason(
    found: EgressRoute, reason: str
) -> None:
    """Waiting does not help, so the reply is not that of a token which may come; the log says more."""
    world = World()
    why = world.pushed.subscribe("refusal/api", SOCKET, lambda: None)
    await world.envoy()
    granted = _why(why)
    world.pushed.swap(policy(found, version="v2"), world.tokens)
    refused, told = _why(why), why.refusal
    await world.swap(route(), version="v3")

    assert (None, reason, None) == (granted, refused, _why(why))
    assert (True, None) == (told is not None, why.refusal)
    world.pushed.cancel(why)
    assert 1 == world.pushed.subscribers()


def _why(subscription: Subscription) -> str | None:
    assert isinstance(subscription.value, RefusalValue)
    assert subscription.value.is_empty is (subscription.value.reason is None)
    assert () == subscription.value.secrets
    return subscription.value.reason


async def test_log_tells_of_each_push_and_of_each_empty_value() -> None:
    """Route, flow, seconds and subscribers; never the token."""
    world = World()
    with capture_logs() as logs:
        await world.envoy()
        world.entra.fail(DOWN)
        await world.alarm.forward(REFRESH)
        await world.alarm.forward(LIFETIME)

    assert {
        "event": "secret pushed",
        "log_level": "info",
        "route": "api",
        "flow": "autonomous",
        "subscribers": 1,
        "seconds": 3600,
    } == logs[0]
    assert ("secret not renewed", "warning") == (logs[1]["event"], logs[1]["log_level"])
    assert ("secret empty", "warning") == (logs[-1]["event"], logs[-1]["log_level"])
    assert 1 == len([record for record in logs if record["event"] == "secret empty"])
    assert "issued" not in str(logs)


async def test_log_counts_no_subscribers_before_there_is_one() -> None:
    """Envoy asks first why a token would be missing: "0" would read like a fault."""
    world = World()
    with capture_logs() as logs:
        why = world.pushed.subscribe("refusal/api", SOCKET, lambda: None)
        await world.alarm.forward()
    world.pushed.cancel(why)

    assert ["secret pushed"] == [record["event"] for record in logs]
    assert "subscribers" not in logs[0]


async def test_waiting_goes_by_the_clock_it_is_given() -> None:
    """It looks again until the moment has come, by either clock."""
    looks = iter([0.0, 0.01, 0.005, 0.02])

    await waiting(lambda: next(looks), lambda: 0.0)(Moment(0.02, 9.0))

    assert [] == list(looks)


@pytest.mark.parametrize("set_by", [-3600.0, 3600.0])
async def test_waiting_ends_when_somebody_sets_the_wall_clock(set_by: float) -> None:
    """What is waited for may have come, or what is wrong may be over."""
    looks = iter([START, START + set_by])

    await waiting(lambda: next(looks), lambda: 0.0)(Moment(inf, 0.01))

    assert [] == list(looks)


def test_a_value_tells_what_it_holds() -> None:
    """The empty one nothing; another one the token that no log may hold."""
    token = Secret("token")
    assert (True, ()) == (REFUSED.is_empty, REFUSED.secrets)
    assert (False, (token,)) == (PushedValue(1, token).is_empty, PushedValue(1, token).secrets)


@pytest.mark.parametrize("set_by", [-86_400.0, -3600.0])
async def test_token_ends_in_time_after_the_clock_was_set_back(set_by: float) -> None:
    """It is renewed when it would have been, and given up when it would have been."""
    world = World()
    envoy = await world.envoy()
    world.entra.fail(DOWN)
    await world.alarm.forward(set_by=set_by)
    await world.alarm.forward(REFRESH - 1)
    early = len(world.entra.calls)
    await world.alarm.forward(1)
    late = len(world.entra.calls)
    await world.alarm.forward(LIFETIME - MARGIN - REFRESH)

    assert (1, 2, "") == (early, late, envoy.holds)


async def test_token_that_was_fetched_while_the_clock_was_ahead_ends_in_time() -> None:
    """Its life was counted, not read off a wrong clock."""
    world = World()
    await world.alarm.forward(set_by=86_400.0)
    envoy = await world.envoy()
    world.entra.fail(DOWN)
    await world.alarm.forward(set_by=-86_400.0)
    await world.alarm.forward(LIFETIME - MARGIN)

    assert "" == envoy.holds


async def test_token_that_has_ended_by_the_wall_clock_is_withdrawn_and_fetched_again() -> None:
    """A clock that is set ahead past the token's end, or a machine that slept for so long."""
    world = World()
    envoy = await world.envoy()
    await world.alarm.forward(set_by=LIFETIME)

    assert "issued-2" == envoy.holds


async def test_clock_that_is_right_again_ends_the_pause_after_a_failure() -> None:
    """What failed for it is tried at once, and not after fifteen seconds."""
    world = World()
    envoy = await world.envoy()
    world.entra.fail(DOWN)
    await world.alarm.forward(set_by=LIFETIME)
    for _ in range(6):
        await world.alarm.forward(max(world.alarm.alarms))
    assert "" == envoy.holds
    await world.alarm.forward(3)

    world.entra.recover()
    await world.alarm.forward(set_by=-LIFETIME)

    assert envoy.holds
