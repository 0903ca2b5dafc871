"""A token endpoint that fails: a second try, and when it keeps failing, nobody waits for it in vain."""

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from authz.core.circuit import FAILURES, FIRST_PAUSE, SPAN
from authz.core.decision import Deny
from authz.core.errors import Reason
from authz.core.record import CheckRecord
from authz_dev.emulator import Fault, Match
from support.fakes.people import crowd, people
from support.programs.stack import Clock, Stack, World, denied, issued, reload, stack
from support.proxy.neighbours import neighbours_token, two_tenants

UNAVAILABLE = Reason.EXCHANGE_UNAVAILABLE
NEGATIVE_CACHE = 6.0
"""Seconds, and more, for which a failure is repeated to the same question."""


def events(logs: list[Any]) -> list[str]:
    """Return what the log says of circuits."""
    return [line["event"] for line in logs if line["event"].startswith("circuit ")]


def calls(service: Stack) -> dict[str, int]:
    """Return the token calls so far, by leg."""
    return {leg: count for leg, count in service.calls.items() if leg != "rejected"}


async def keep_asking(
    service: Stack, clock: Clock, ask: Callable[[], Any], number: int = 4
) -> list[CheckRecord]:
    """Ask again and again, each time when the failure before is no longer repeated."""
    records = []
    for _ in range(number):
        records.append(await ask())
        clock.ahead += NEGATIVE_CACHE
    return records


@pytest.mark.parametrize(
    "fault", [Fault("down"), Fault("status", status=500), Fault("status", status=503)]
)
async def test_an_endpoint_that_keeps_failing_is_left_alone_until_it_is_well(
    world: World, clock: Clock, fault: Fault
) -> None:
    """New exchanges fail at once, cached tokens and other tenants are served; one call then tries again."""
    fault = Fault(fault.kind, status=fault.status, match=Match(tenant=world.tenant_id))
    document, users = two_tenants(world), crowd(world)
    with capture_logs() as logs:
        async with stack(world, clock=clock, document=document) as service:
            issued(await service.egress("app"))
            world.emulator.faults.add(fault)
            for _ in range(FAILURES):
                denied(await service.egress("app-obo", next(users)))
                clock.ahead += SPAN / 2
            clock.ahead -= SPAN / 2
            world.emulator.calls.reset()
            refused = await service.egress("app-obo", next(users))
            cached = await service.egress("app")
            other = await service.egress("neighbour", neighbours_token(world))
            while_open = calls(service)
            world.emulator.faults.clear()
            clock.ahead += FIRST_PAUSE
            after = await service.egress("app-obo", next(users))

    assert UNAVAILABLE == denied(refused)
    assert isinstance(refused.decision, Deny)
    assert refused.decision.retry_after is not None
    assert 0 < refused.decision.retry_after <= FIRST_PAUSE
    assert world.reports["client_id"] == issued(cached)["appid"]
    assert world.other_tenant["users"][0]["object_id"] == issued(other)["oid"]
    assert {"t1": 1, "agent_obo": 1} == while_open
    assert world.reports["client_id"] == issued(after)["appid"]
    assert ["circuit open", "circuit half_open", "circuit closed"] == events(logs)
    (opened,) = [line for line in logs if line["event"] == "circuit open"]
    assert (world.tenant_id, world.reports["client_id"], "warning") == (
        opened["tenant"],
        opened["client_id"],
        opened["log_level"],
    )
    assert (False, 1) == service.engine.circuits()[world.tenant_id]


async def test_a_probe_that_fails_keeps_the_circuit_open(world: World, clock: Clock) -> None:
    """One call is made in each pause, and no second try of it."""
    users = crowd(world)
    async with stack(world, clock=clock) as service:
        world.emulator.faults.add(Fault("status", status=503))
        await keep_asking(service, clock, lambda: service.egress("app-obo", next(users)))
        world.emulator.calls.reset()
        await service.egress("app-obo", next(users))

    assert {"app_obo": 1} == calls(service)
    assert (True, 3) == service.engine.circuits()[world.tenant_id]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("status", status=429), id="429"),
        pytest.param(Fault("error", code=65001), id="refused"),
        pytest.param(Fault("malformed"), id="not JSON"),
        pytest.param(Fault("redirect"), id="redirect"),
    ],
)
async def test_an_endpoint_that_answers_is_not_failing(
    world: World, clock: Clock, fault: Fault
) -> None:
    """Whatever it answers, it is asked the next time, and not twice."""
    async with stack(world, clock=clock) as service:
        world.emulator.faults.add(fault)
        await keep_asking(service, clock, lambda: service.egress("app"), number=6)

    assert {"app": 6} == calls(service)
    assert (False, 0) == service.engine.circuits()[world.tenant_id]


async def test_a_credential_that_is_not_there_is_no_failure_of_the_endpoint(
    world: World, clock: Clock
) -> None:
    """It was not asked."""
    world.app_secret_file.unlink()
    async with stack(world, clock=clock) as service:
        records = await keep_asking(service, clock, lambda: service.egress("app"))

    assert {Reason.EXCHANGE_MISCONFIGURED} == {denied(record) for record in records}
    assert {world.tenant_id: (False, 0)} == service.engine.circuits()


async def test_a_user_with_whom_the_endpoint_fails_shuts_nobody_out(
    world: World, clock: Clock
) -> None:
    """Law 8: however often the user asks, and with whatever token, others are served."""
    alice = world.users["alice"]["username"]
    async with stack(world, clock=clock) as service:
        issued(await service.egress("graph", world.token("alice2")))
        world.emulator.faults.add(Fault("status", status=500, match=Match(user=alice)))
        hers = await keep_asking(
            service, clock, lambda: service.egress("graph", world.token("alice")), number=6
        )
        world.emulator.calls.reset()
        others = await service.egress("graph", world.token("alice3"))

    assert {UNAVAILABLE} == {denied(record) for record in hers}
    assert "alice3" == issued(others)["upn"].split("@")[0]


async def test_a_new_configuration_opens_no_circuit_that_was_open(
    world: World, clock: Clock
) -> None:
    """What is known of an endpoint outlives a reload."""
    users = crowd(world)
    async with stack(world, clock=clock) as service:
        world.emulator.faults.add(Fault("status", status=503))
        await keep_asking(service, clock, lambda: service.egress("app-obo", next(users)))
        await reload(service.engine, world.config(limits={"exchanges": 8}))
        world.emulator.calls.reset()
        for _ in range(3):
            denied(await service.egress("app-obo", next(users)))

    assert {"app_obo": 1} == calls(service)


async def test_an_agent_with_whom_the_endpoint_fails_shuts_no_other_out(
    world: World, clock: Clock
) -> None:
    """Law 8: nor the blueprint's other agent, nor another application of the tenant."""
    persons = people(world, 6, world.agent["client_id"])
    people(world, 6, world.sibling["client_id"])

    def token(person: str) -> str:
        return world.emulator.mint_user_token(user=person, audience=world.blueprint["client_id"])

    async with stack(world, clock=clock) as service:
        desk = Match(leg="agent_obo", client_id=world.agent["client_id"])
        world.emulator.faults.add(Fault("status", status=500, match=desk))
        failed = []
        for person in persons[:5]:
            failed.append(denied(await service.egress("graph", token(person))))
            clock.ahead += SPAN / 2
        state = service.engine.circuits()[world.tenant_id]
        clerk = await service.egress("graph-clerk", token(persons[5]))
        own = await service.egress("app")

    assert {UNAVAILABLE} == set(failed)
    assert state[1] >= 1
    assert world.sibling["client_id"] == issued(clerk)["appid"]
    assert world.reports["client_id"] == issued(own)["appid"]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("status", status=503, count=1), id="503"),
        pytest.param(Fault("status", status=500, count=1), id="500"),
        pytest.param(Fault("status", status=503, retry_after=1, count=1), id="503, one second"),
        pytest.param(Fault("truncated", count=1), id="cut in the body"),
        # The first one meets a kept connection, and is repeated at once.
        pytest.param(Fault("down", count=2), id="reset"),
    ],
)
async def test_one_failure_of_the_endpoint_costs_a_second_try(world: World, fault: Fault) -> None:
    """Within the usual time of a Check nobody is denied for it."""
    async with stack(world) as service:
        issued(await service.egress("autonomous"))
        world.emulator.faults.add(fault)
        record = await service.egress("graph", world.token(), seconds=5.0)

    assert world.agent["client_id"] == issued(record)["appid"]
    assert [] == list(world.emulator.faults.active())


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        pytest.param(Fault("status", status=503), 0.5, id="no time"),
        pytest.param(Fault("status", status=503, retry_after=4), 4.0, id="Retry-After too late"),
    ],
)
async def test_without_time_for_it_there_is_no_second_try(
    world: World, fault: Fault, seconds: float
) -> None:
    """The answer is the endpoint's failure, in time."""
    async with stack(world) as service:
        issued(await service.egress("blueprint"))
        world.emulator.calls.reset()
        world.emulator.faults.add(fault)
        record = await service.egress("app", seconds=seconds)

    assert UNAVAILABLE == denied(record)
    assert {"app": 1} == calls(service)


async def test_a_second_try_is_the_last(world: World) -> None:
    """An endpoint that fails is asked twice for one exchange."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("status", status=503))
        record = await service.egress("app")

    assert UNAVAILABLE == denied(record)
    assert {"app": 2} == calls(service)
