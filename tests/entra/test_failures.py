"""What happens when Entra is slow, down, throttling, or answers nonsense: the right Reason, in time."""

import asyncio
import time
from email.utils import formatdate
from math import ceil

import pytest
from structlog.testing import capture_logs

from authz.core.budget import Budget
from authz.core.circuit import FIRST_PAUSE, SPAN
from authz.core.decision import Deny
from authz.core.errors import EntraError, ExchangeUnavailable, Reason
from authz.core.exchange import AppToken, Client, Flow, Target
from authz.core.lifetime import LOOK_AGAIN
from authz.core.record import CheckRecord
from authz.core.throttle import PROBE_EVERY
from authz.entra.exchange import REPLICATION_DELAYS
from authz_dev.emulator import Fault, Match
from support.fakes.people import people
from support.programs.stack import GRAPH, Clock, World, denied, issued, stack

OBO = Match(leg="agent_obo")
UNAVAILABLE = Reason.EXCHANGE_UNAVAILABLE


def waiting(record: CheckRecord) -> float:
    """Return after how many seconds the caller shall ask again."""
    assert isinstance(record.decision, Deny)
    assert record.decision.retry_after is not None
    return record.decision.retry_after


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param(
            Fault("status", status=429, retry_after=7), Reason.EXCHANGE_THROTTLED, id="429"
        ),
        pytest.param(Fault("status", status=500), UNAVAILABLE, id="500"),
        pytest.param(Fault("status", status=503, retry_after=7), UNAVAILABLE, id="503"),
        pytest.param(Fault("malformed"), UNAVAILABLE, id="not JSON"),
        pytest.param(Fault("huge", megabytes=8), UNAVAILABLE, id="huge"),
        pytest.param(Fault("redirect"), UNAVAILABLE, id="redirect"),
        pytest.param(Fault("down"), UNAVAILABLE, id="connection cut"),
        pytest.param(Fault("truncated"), UNAVAILABLE, id="cut in the body"),
        pytest.param(Fault("error", code=90033, match=OBO), UNAVAILABLE, id="AADSTS90033"),
        pytest.param(
            Fault("error", code=50196, match=OBO), Reason.EXCHANGE_THROTTLED, id="AADSTS50196"
        ),
        pytest.param(
            Fault("error", code=82001, match=OBO), Reason.EXCHANGE_MISCONFIGURED, id="AADSTS82001"
        ),
        pytest.param(
            Fault("error", code=50173, match=OBO), Reason.INTERACTION_REQUIRED, id="AADSTS50173"
        ),
        pytest.param(
            Fault("error", code=50013, match=OBO), Reason.EXCHANGE_REJECTED, id="AADSTS50013"
        ),
        pytest.param(
            Fault("error", code=53003, match=OBO), Reason.INTERACTION_REQUIRED, id="AADSTS53003"
        ),
    ],
)
async def test_each_fault_of_entra_has_its_reason(
    world: World, fault: Fault, reason: Reason
) -> None:
    """A fault of Entra ends in the Reason that says who must act."""
    async with stack(world) as service:
        world.emulator.faults.add(fault)

        record = await service.egress("graph", world.token())

        assert reason == denied(record)


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_of_entra_reaches_the_caller(world: World, status: int) -> None:
    """The seconds that Entra asks for are passed on."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("status", status=status, retry_after=17))

        record = await service.egress("autonomous")

        assert isinstance(record.decision, Deny)
        assert record.decision.retry_after == 17


async def test_a_connection_that_closes_as_it_is_used_costs_nobody_a_request(world: World) -> None:
    """Servers close idle connections when they like: the request is sent again, a bounded number of times."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("down", count=1, match=Match(leg="t1")))
        mended = await service.egress("autonomous")
        world.emulator.faults.add(Fault("down", match=Match(leg="t1")))
        world.emulator.calls.reset()
        broken = await service.egress("autonomous-clerk")

        assert issued(mended)["appid"] == world.agent["client_id"]
        assert denied(broken) == UNAVAILABLE
        # At once, because the connection had been kept, and a moment later on a new one.
        assert 3 == service.calls["t1"]


async def test_a_hanging_entra_is_answered_before_the_deadline(world: World) -> None:
    """A Check whose own deadline comes first is denied in time, with a hint to try again."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("hang"))
        started = time.monotonic()

        record = await service.egress("autonomous", seconds=0.3)

        assert Reason.DEADLINE_EXCEEDED == denied(record)
        assert isinstance(record.decision, Deny)
        assert record.decision.retry_after is not None
        assert time.monotonic() - started < 3
        world.emulator.faults.clear()


@pytest.mark.parametrize("fault", [Fault("hang"), Fault("drip", part="head", seconds=0.02)])
async def test_no_answer_holds_a_thread_past_the_end_of_its_exchange(
    world: World, fault: Fault
) -> None:
    """What is left of an exchange's time is all that a call gets, however long a call may take."""
    document = world.config()
    document["entra"] |= {"timeout": "60s", "exchange_timeout": "60s"}
    client = Client("reports", world.tenant_id, world.reports["client_id"])
    async with stack(world, document=document) as service:
        world.emulator.faults.add(fault)
        now = service.clock.timer()
        budget = Budget(needed_by=now + 60, ends=now + 0.5)
        with pytest.raises(ExchangeUnavailable) as caught:
            await service.entra(AppToken(client, Target((GRAPH,))), budget)

    assert caught.value.detail.startswith("127.0.0.1: the answer took over 0.")


async def test_an_exchange_whose_time_is_over_asks_nothing(world: World) -> None:
    """Nobody would have the answer."""
    client = Client("reports", world.tenant_id, world.reports["client_id"])
    async with stack(world) as service:
        now = service.clock.timer()
        with pytest.raises(ExchangeUnavailable) as caught:
            await service.entra(AppToken(client, Target((GRAPH,))), Budget(now + 60, ends=now))

        assert "127.0.0.1: no time was left to ask" == caught.value.detail
        assert {} == service.calls


async def test_a_flight_outlives_the_check_that_started_it(world: World) -> None:
    """What comes after one caller's deadline is there for the next caller, without a second call."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("latency", seconds=0.5, match=Match(leg="autonomous")))

        late = await service.egress("autonomous", seconds=0.1)
        found = await service.egress("autonomous")

        assert Reason.DEADLINE_EXCEEDED == denied(late)
        assert issued(found)["appid"] == world.agent["client_id"]
        assert {"t1": 1, "autonomous": 1} == service.calls


async def test_unresolvable_entra_is_unavailable(world: World) -> None:
    """A DNS failure is Entra's unavailability, not our fault nor the caller's."""
    document = world.config()
    document["entra"]["authority"] = "https://entra.invalid"
    async with stack(world, document=document, keys=False) as service:
        records = [await service.egress("autonomous"), await service.inbound(world.token())]

        assert [UNAVAILABLE, Reason.INVALID_TOKEN] == [denied(record) for record in records]
        assert ["signing_keys"] == list(service.engine.missing())


async def test_valid_token_is_served_while_entra_is_down_for_half_its_life(
    world: World, clock: Clock
) -> None:
    """Past its refresh time a token goes on until its margin, whatever Entra does meanwhile."""
    async with stack(world, clock=clock) as service:
        token = world.token(lifetime=7200)
        first = issued(await service.egress("graph", token))
        world.emulator.faults.add(Fault("down"))
        lifetime = first["exp"] - clock()

        served = []
        for part in (0.5, 0.76, 0.8, 0.9, 0.95):
            clock.ahead = lifetime * part
            served.append(issued(await service.egress("graph", token))["uti"])
        clock.ahead = lifetime - 30
        after = await service.egress("graph", token)

        assert [first["uti"]] * 5 == served
        assert Reason.EXCHANGE_UNAVAILABLE == denied(after)


async def test_a_token_is_refreshed_ahead_of_its_end(world: World, clock: Clock) -> None:
    """Past its refresh time the old token is served once more and a successor is fetched, once."""
    async with stack(world, clock=clock) as service:
        first = issued(await service.egress("autonomous"))
        clock.ahead = (first["exp"] - clock()) * 0.8
        world.emulator.calls.reset()

        during = [
            issued(r)["uti"]
            for r in await asyncio.gather(*(service.egress("autonomous") for _ in range(50)))
        ]
        await service.engine.service._snapshot.tokens.drain()
        clock.ahead += LOOK_AGAIN
        after = issued(await service.egress("autonomous"))["uti"]

        assert {first["uti"]} == set(during)
        assert first["uti"] != after
        assert 1 == service.calls["autonomous"]


async def test_entra_comes_back_and_so_do_tokens(world: World, clock: Clock) -> None:
    """A failure is repeated for a short while only."""
    async with stack(world, clock=clock) as service:
        world.emulator.faults.add(Fault("down"))
        failed = await service.egress("autonomous")
        world.emulator.faults.clear()
        clock.ahead += 10

        record = await service.egress("autonomous")

        assert UNAVAILABLE == denied(failed)
        assert issued(record)["appid"] == world.agent["client_id"]


@pytest.mark.parametrize("code", [70021, 7000215, 700016])
async def test_replication_delay_is_waited_out(world: World, code: int) -> None:
    """What the directory does not know right after creation is asked again, a bounded time."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("error", code=code, count=1, match=Match(leg="t1")))

        record = await service.egress("autonomous")

        assert issued(record)["appid"] == world.agent["client_id"]
        assert 2 == service.calls["t1"]


async def test_a_permanently_unknown_client_is_our_configuration(world: World) -> None:
    """After the bounded tries it is a misconfiguration, with the number for the log and metrics."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("error", code=700016, match=Match(leg="t1")))

        record = await service.egress("autonomous")

        assert Reason.EXCHANGE_MISCONFIGURED == denied(record)
        assert record.error is not None
        assert 700016 == getattr(record.error, "code", None)
        assert 3 == service.calls["t1"]


async def test_consent_and_conditional_access_are_told_apart_and_carry_the_challenge(
    world: World,
) -> None:
    """Both reach the caller with Entra's claims; the reason tells consent from a sign-in demand."""
    async with stack(world) as service:
        consent = await service.egress("graph", world.token("bob"))
        access = await service.egress("graph", world.token("carol"))

        assert [Reason.CONSENT_REQUIRED, Reason.INTERACTION_REQUIRED] == [
            denied(consent),
            denied(access),
        ]
        for record in (consent, access):
            assert isinstance(record.decision, Deny)
            assert "capolids" in (record.decision.claims or "")


@pytest.mark.parametrize(
    "fault", [Fault("status", status=429, retry_after=60), Fault("error", code=65001)]
)
async def test_one_users_failure_is_his_own(world: World, fault: Fault) -> None:
    """Law 8: throttled or refused for one user, Entra is still asked for every other one."""
    async with stack(world) as service:
        alice = world.users["alice"]["username"]
        world.emulator.faults.add(
            Fault(
                fault.kind,
                status=fault.status,
                retry_after=fault.retry_after,
                code=fault.code,
                match=Match(user=alice),
            )
        )

        hers = await asyncio.gather(
            *(service.egress("graph", world.token("alice")) for _ in range(5))
        )
        others = [await service.egress("graph", world.token(user)) for user in ("alice2", "alice3")]

        assert {True} == {isinstance(record.decision, Deny) for record in hers}
        assert ["alice2", "alice3"] == [issued(record)["upn"].split("@")[0] for record in others]


async def test_a_throttled_application_is_left_alone_until_entra_wants(
    world: World, clock: Clock
) -> None:
    """The third user's 429 shows whom Entra means: the others cost no call, and are told what is left."""
    fault = Fault("status", status=429, retry_after=50)
    crowd = [
        world.emulator.mint_user_token(user=person, audience=world.reports["client_id"])
        for person in people(world, 21, world.reports["client_id"])
    ]
    with capture_logs() as logs:
        async with stack(world, clock=clock) as service:
            world.emulator.faults.add(fault)
            refused = [await service.egress("app-obo", token) for token in crowd]
            while_held = service.calls
            clock.ahead += 20
            again = await service.egress("app-obo", crowd[0])
            world.emulator.faults.clear()
            world.emulator.calls.reset()
            clock.ahead += 29
            early = await service.egress("app-obo", crowd[20])
            calls_early = service.calls
            other = await service.egress("graph", world.token())
            clock.ahead += 6
            after = [await service.egress("app-obo", token) for token in crowd]

    assert {Reason.EXCHANGE_THROTTLED} == {denied(record) for record in (*refused, again, early)}
    assert {"app_obo": 3, "rejected": 3} == while_held
    assert {} == calls_early
    assert [50, 50, 50] == [waiting(record) for record in refused[:3]]
    assert {50} == {ceil(waiting(record)) for record in refused}
    assert 29 < waiting(again) <= 30
    assert 0 < waiting(early) <= 1
    assert world.agent["client_id"] == issued(other)["appid"]
    assert 21 == len({issued(record)["oid"] for record in after})
    assert ["application throttled", "application no longer throttled"] == [
        line["event"] for line in logs if line["event"].startswith("application ")
    ]
    (record,) = [line for line in logs if line["event"] == "application throttled"]
    assert (world.reports["client_id"], 50) == (record["client_id"], record["seconds"])


async def test_a_throttled_user_is_asked_for_again_when_the_time_is_over(
    world: World, clock: Clock
) -> None:
    """Not after two minutes, if Entra named five; the time that is left is what the caller is told."""
    async with stack(world, clock=clock) as service:
        world.emulator.faults.add(Fault("status", status=429, retry_after=300, match=OBO))
        token = world.token(lifetime=7200)
        told = []
        for _ in range(4):
            told.append(ceil(waiting(await service.egress("graph", token)) / 10) * 10)
            clock.ahead += 90
        world.emulator.faults.clear()

        assert [300, 210, 120, 30] == told
        assert {"t1": 1, "agent_obo": 1, "rejected": 1} == service.calls
        assert issued(await service.egress("graph", token))["appid"] == world.agent["client_id"]


@pytest.mark.parametrize(("target", "leg"), [("token", "t1"), ("discovery", None)])
async def test_what_all_users_need_is_probed_once_a_minute(
    world: World, clock: Clock, target: str, leg: str | None
) -> None:
    """One 429 of T1 or of the discovery document, with an hour to wait, keeps nobody away for an hour."""
    async with stack(world, clock=clock) as service:
        match = Match(leg=leg)
        world.emulator.faults.add(
            Fault("status", target, status=429, retry_after=3600, count=1, match=match)
        )
        refused = await service.egress("graph", world.token())
        clock.ahead += PROBE_EVERY
        served = await service.egress("graph", world.token())

    assert Reason.EXCHANGE_THROTTLED == denied(refused)
    assert 3590 < waiting(refused) <= 3600
    assert world.agent["client_id"] == issued(served)["appid"]


async def test_a_user_who_is_throttled_alone_holds_nobody_back(world: World, clock: Clock) -> None:
    """Law 8: such a user asks all the time, by new tokens, and takes no probe from the others."""
    three = people(world, 3, world.agent["client_id"])

    def token(person: str) -> str:
        return world.emulator.mint_user_token(user=person, audience=world.blueprint["client_id"])

    async with stack(world, clock=clock) as service:
        fault = world.emulator.faults.add(
            Fault("status", status=429, retry_after=1, match=Match(leg="agent_obo"))
        )
        held = [denied(await service.egress("graph", token(person))) for person in three]
        world.emulator.faults.clear(fault.id)
        alone = Match(user=three[0], leg="agent_obo")
        world.emulator.faults.add(Fault("status", status=429, retry_after=1, match=alone))
        clock.ahead += 1.1
        again = await service.egress("graph", token(three[0]))
        other = await service.egress("graph", world.token())

    assert [Reason.EXCHANGE_THROTTLED] * 3 == held
    assert Reason.EXCHANGE_THROTTLED == denied(again)
    assert world.users["alice"]["object_id"] == issued(other)["oid"]


async def test_a_user_whose_calls_always_fail_keeps_no_circuit_open(
    world: World, clock: Clock
) -> None:
    """Law 8: the probe is somebody else's, whose answer closes it."""
    *three, fourth = people(world, 4, world.agent["client_id"])

    def token(person: str) -> str:
        return world.emulator.mint_user_token(user=person, audience=world.blueprint["client_id"])

    async with stack(world, clock=clock) as service:
        issued(await service.egress("autonomous"))
        fault = world.emulator.faults.add(Fault("status", status=500, match=OBO))
        failed = []
        for person in three:
            failed.append(denied(await service.egress("graph", token(person))))
            clock.ahead += SPAN / 2
        world.emulator.faults.clear(fault.id)
        alone = Match(user=three[0], leg="agent_obo")
        world.emulator.faults.add(Fault("status", status=500, match=alone))
        clock.ahead += FIRST_PAUSE
        again = await service.egress("graph", token(three[0]))
        other = await service.egress("graph", token(fourth))

    assert [UNAVAILABLE] * 3 == failed
    assert UNAVAILABLE == denied(again)
    assert fourth == issued(other)["oid"]


async def test_a_probe_without_an_answer_leaves_its_place_to_the_next_user(
    world: World, clock: Clock
) -> None:
    """What is held back is not held back for longer because one call found no connection."""
    *three, fourth, fifth = people(world, 5, world.agent["client_id"])

    def token(person: str) -> str:
        return world.emulator.mint_user_token(user=person, audience=world.blueprint["client_id"])

    async with stack(world, clock=clock) as service:
        fault = world.emulator.faults.add(Fault("status", status=429, retry_after=5, match=OBO))
        for person in three:
            denied(await service.egress("graph", token(person)))
        world.emulator.faults.clear(fault.id)
        world.emulator.faults.add(Fault("down", match=Match(user=fourth, leg="agent_obo")))
        clock.ahead += 5.1
        probe = await service.egress("graph", token(fourth))
        after = await service.egress("graph", token(fifth))

    assert UNAVAILABLE == denied(probe)
    assert fifth == issued(after)["oid"]


async def test_an_agents_account_is_one_user_of_many(world: World, clock: Clock) -> None:
    """Law 8: it may be throttled for three resources, and nobody else is."""
    document = world.config()
    for number, scope in enumerate(("Mail.Read", "User.Read")):
        document["egress"][f"account-{number}"] = {
            **document["egress"]["agent-user"],
            "scopes": [f"https://graph.microsoft.com/{scope}"],
        }
    async with stack(world, clock=clock, document=document) as service:
        world.emulator.faults.add(
            Fault("status", status=429, retry_after=60, match=Match(leg="user_fic"))
        )
        routes = ("agent-user", "account-0", "account-1")
        refused = [denied(await service.egress(route)) for route in routes]
        other = await service.egress("graph", world.token())

    assert [Reason.EXCHANGE_THROTTLED] * 3 == refused
    assert world.agent["client_id"] == issued(other)["appid"]


async def test_a_date_says_how_long_to_wait(world: World) -> None:
    """Counted from the answer's own date: the wall clock here may be wrong."""
    async with stack(world) as service:
        then = formatdate(time.time() + 40, usegmt=True)
        world.emulator.faults.add(Fault("status", status=429, retry_after=then))

        assert 35 < waiting(await service.egress("autonomous")) <= 41


async def test_one_agents_failure_is_its_own(world: World) -> None:
    """Law 8: MSAL would key the failure of a T1 request without `fmi_path`."""
    async with stack(world) as service:
        world.emulator.faults.add(
            Fault(
                "status",
                status=429,
                retry_after=60,
                match=Match(leg="autonomous", client_id=world.agent["client_id"]),
            )
        )

        hers = await service.egress("autonomous")
        other = await service.egress("autonomous-clerk")

        assert Reason.EXCHANGE_THROTTLED == denied(hers)
        assert issued(other)["appid"] == world.sibling["client_id"]


async def test_throttled_users_hold_nobody_back_for_longer_than_a_minute(
    world: World, clock: Clock
) -> None:
    """Law 8: Entra may have meant these three. A probe shows it."""
    tokens = {
        person: world.emulator.mint_user_token(user=person, audience=world.blueprint["client_id"])
        for person in people(world, 4, world.agent["client_id"])
    }
    *three, fourth = tokens
    async with stack(world, clock=clock) as service:
        for person in three:
            match = Match(user=person, leg="agent_obo")
            world.emulator.faults.add(Fault("status", status=429, retry_after=3600, match=match))
        refused = [await service.egress("graph", tokens[person]) for person in three]
        held_back = await service.egress("graph", tokens[fourth])
        clock.ahead += PROBE_EVERY
        probe = await service.egress("graph", tokens[fourth])

    assert {Reason.EXCHANGE_THROTTLED} == {denied(record) for record in (*refused, held_back)}
    assert fourth == issued(probe)["oid"]


async def test_a_failure_is_repeated_to_the_same_question_without_asking(world: World) -> None:
    """A short negative cache spares Entra a storm of what it has just refused."""
    async with stack(world) as service:
        token = world.token("bob")
        first = await service.egress("graph", token)
        world.emulator.calls.reset()

        again = [await service.egress("graph", token) for _ in range(20)]

        assert {denied(first)} == {denied(record) for record in again}
        assert {} == service.calls


async def test_only_exchanges_that_were_carried_out_are_counted(world: World, clock: Clock) -> None:
    """A refused secret: users whose exchange was never begun are no exchanges, and no errors of Entra."""
    world.secret_file.write_text("wrong")
    async with stack(world, clock=clock) as service:
        for round_ in range(3):
            for name in ("alice", "alice2", "alice3"):
                record = await service.egress("graph", world.token(name, claims={"n": round_}))
                assert Reason.EXCHANGE_MISCONFIGURED is denied(record)
            clock.ahead += 6

        # Each of the three with its further tries: Entra's directory may be replicating.
        tries = 3 * (1 + len(REPLICATION_DELAYS))
        assert {"t1": tries, "rejected": tries} == service.calls
        assert ["graph"] * 3 == service.seen.begun_for
        assert [Flow.BLUEPRINT_ASSERTION] * 3 == [flow for flow, _, _ in service.seen.exchanges]
        errors = [error for _, error, _ in service.seen.exchanges if isinstance(error, EntraError)]
        assert [7000215] * 3 == [error.code for error in errors]


async def test_an_exchange_that_entra_does_not_answer_is_counted(world: World) -> None:
    """It was carried out as far as one can."""
    document = world.config()
    document["entra"] |= {"timeout": "500ms", "exchange_timeout": "500ms"}
    async with stack(world, document=document) as service:
        world.emulator.faults.add(Fault("hang"))
        record = await service.egress("app")

        assert Reason.EXCHANGE_UNAVAILABLE is denied(record)
        assert [Flow.APP] == [flow for flow, _, _ in service.seen.exchanges]


async def test_a_withdrawn_t1_is_replaced_once(world: World) -> None:
    """A cached T1 that Entra no longer takes is forgotten, and a fresh one decides."""
    async with stack(world) as service:
        await service.egress("autonomous")
        world.emulator.roll_signing_key(withdraw_old=True)
        world.emulator.calls.reset()

        record = await service.egress("agent-user")

        assert issued(record)["upn"] == world.agent["agent_user"]
        assert 1 == service.calls["t1"]


async def test_a_withdrawn_t2_is_replaced_once(world: World) -> None:
    """Likewise the agent's own assertion, which has an account's token issued."""
    document = world.config()
    document["egress"]["stock"] = {
        **document["egress"]["agent-user"],
        "scopes": ["api://inventory/.default"],
    }
    async with stack(world, document=document) as service:
        await service.egress("agent-user")
        world.emulator.roll_signing_key(withdraw_old=True)
        world.emulator.calls.reset()

        record = await service.egress("stock")

        assert issued(record)["upn"] == world.agent["agent_user"]
        assert (1, 1) == (service.calls["t1"], service.calls["t2"])


async def test_a_refused_account_is_not_asked_for_with_another_t2(world: World) -> None:
    """What concerns the account is no fault of the assertion."""
    async with stack(world) as service:
        await service.egress("autonomous")
        world.emulator.faults.add(Fault("error", code=65001, match=Match(leg="user_fic")))

        assert Reason.EXCHANGE_MISCONFIGURED == denied(await service.egress("agent-user"))
        assert 1 == service.calls["t2"]
