"""Credentials are shown to a strict Entra: which exchange that is, what it costs, and what is said of it."""

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from authz.config import compile_policy
from authz.config.proofs import proofs
from authz.config.reading.document import parse
from authz.core.exchange import AppToken, BlueprintAssertion, BlueprintToken, Target, TokenExchange
from authz_dev.emulator import Fault, Match
from support.programs.stack import GRAPH, Clock, Stack, World, issued, reload, stack, until

WRONG = "of another application"


def proving(world: World, **changes: Any) -> dict[str, Any]:
    """The world's configuration, with its credentials shown ahead."""
    document = world.config(**changes)
    document["entra"]["prove_credentials"] = True
    return document


def alone(world: World) -> dict[str, Any]:
    """The same with the blueprint as its only client."""
    document = proving(world)
    del document["applications"]
    routes = document["egress"]
    document["egress"] = {name: routes[name] for name in ("graph", "autonomous")}
    return document


def standings(service: Stack) -> dict[str, str]:
    """How the clients' first credentials stand, by name of the client."""
    return {name: found[0]["standing"] for name, found in service.engine.credentials().items()}


async def all_accepted(service: Stack) -> None:
    """Wait until Entra has taken what each client holds."""
    await until(lambda: {"accepted"} == set(standings(service).values()))


async def test_the_first_request_finds_what_the_proof_has_brought(
    world: World, clock: Clock
) -> None:
    """One T1 for the blueprint, one token for the application; neither is asked for a second time."""
    with capture_logs() as logs:
        async with stack(world, clock=clock, document=proving(world), keys=False) as service:
            await all_accepted(service)
            await until(service.engine.is_ready)
            proof = service.calls
            world.emulator.calls.reset()
            record = await service.egress("graph", world.token())
            app = await service.egress("app")

            assert {"t1": 1, "app": 1} == proof
            assert {"agent_obo": 1} == service.calls
            assert world.users["alice"]["object_id"] == issued(record)["oid"]
            assert world.reports["client_id"] == issued(app)["appid"]
    logged = [entry for entry in logs if entry["event"] == "credential accepted"]
    assert {
        (
            "support",
            world.blueprint["client_id"],
            "client_secret",
            f"client_secret {world.secret_file}",
        ),
        (
            "reports",
            world.reports["client_id"],
            "client_secret",
            f"client_secret {world.app_secret_file}",
        ),
    } == {(one["client"], one["client_id"], one["kind"], one["credential"]) for one in logged}


async def test_a_wrong_credential_is_known_before_anybody_calls(world: World, clock: Clock) -> None:
    """Not ready, with the cause; ready when the file is right, without a restart."""
    world.secret_file.write_text(WRONG)
    with capture_logs() as logs:
        async with stack(world, clock=clock, document=alone(world)) as service:
            await until(lambda: "refused" in service.engine.missing()["credentials"]["support"])
            cause = service.engine.missing()["credentials"]["support"]
            unserved, ready = service.engine.unserved(), service.engine.is_ready()
            refused = service.engine.refused_credentials()
            world.secret_file.write_text(world.blueprint["client_secret"])
            clock.ahead += 10  # the pause after a refusal
            await until(service.engine.is_ready)

            assert "AADSTS7000215" in cause
            assert ({("credential", "support")}, False) == (unserved, ready)
            assert {("support", "client_secret")} == refused
            assert {} == service.engine.missing()
    events = [e["event"] for e in logs if e["event"].startswith("credential")]
    assert ("credential refused", "credential accepted") == (events[0], events[-1])
    assert WRONG not in json.dumps([{k: str(v) for k, v in entry.items()} for entry in logs])


async def test_a_secret_that_is_replaced_by_a_wrong_one_is_known_without_a_call(
    world: World, clock: Clock
) -> None:
    """Seconds after the file has changed. The service stays ready, and the accepted one stays in use."""
    async with stack(world, clock=clock, document=alone(world)) as service:
        await all_accepted(service)
        await until(service.engine.is_ready)
        world.secret_file.write_text(WRONG)
        await until(lambda: standings(service) != {"support": "accepted"})
        clock.ahead += 10  # replicas show it one after the other
        await until(lambda: standings(service) == {"support": "refused"})
        record = await service.egress("graph", world.token())

        assert service.engine.is_ready()
        assert {} == service.engine.missing()
        assert {("support", "client_secret"): False} == service.engine.proved_credentials()
        assert service.engine.credentials()["support"][0]["accepted_in_use"]
        assert world.users["alice"]["object_id"] == issued(record)["oid"]


async def test_a_reload_shows_nothing_again(world: World, clock: Clock) -> None:
    """What Entra took it has taken, whichever version of the configuration asks."""
    async with stack(world, clock=clock, document=proving(world)) as service:
        await all_accepted(service)
        world.emulator.calls.reset()
        document = proving(world)
        document["entra"]["timeout"] = "6s"
        await reload(service.engine, document)
        await service.engine.look_at_credentials()
        await service.engine.look_at_credentials()

        assert {} == service.calls
        assert {"accepted"} == set(standings(service).values())


@pytest.mark.parametrize("fault", ["down", "truncated"])
async def test_an_entra_that_is_away_at_the_first_start_is_waited_for(
    world: World, clock: Clock, fault: str
) -> None:
    """As for signing keys. When it answers, the service is ready; when it is away later, it stays so."""
    world.emulator.faults.add(Fault(fault, match=Match(leg="t1")))
    async with stack(world, clock=clock, document=alone(world)) as service:
        await until(service.engine.unserved)
        before = service.engine.is_ready(), service.engine.missing()
        world.emulator.faults.clear()
        clock.ahead += 60
        await until(service.engine.is_ready)
        world.emulator.faults.add(Fault(fault))
        await reload(service.engine, alone(world))
        await service.engine.look_at_credentials()

        assert False is before[0]
        assert before[1]["credentials"]["support"].startswith("not shown to Entra: ")
        assert service.engine.is_ready()


async def test_an_entra_that_throttles_the_first_start_keeps_nobody_unready(
    world: World, clock: Clock
) -> None:
    """It is asked once, and not again before it says so, however many looks there are."""
    world.emulator.faults.add(Fault("status", status=429, retry_after=120, match=Match(leg="t1")))
    async with stack(world, clock=clock, document=alone(world), keys=False) as service:
        await until(service.engine.is_ready)
        for _ in range(50):
            await service.engine.look_at_credentials()
            clock.ahead += 1

        assert {"t1": 1, "rejected": 1} == service.calls


async def test_the_next_credential_serves_where_the_first_is_refused(
    world: World, clock: Clock
) -> None:
    """The client is ready; the first is named."""
    spare = world.folder / "spare"
    spare.write_text(WRONG)
    document = alone(world)
    document["blueprints"]["support"]["credentials"].insert(
        0, {"client_secret": {"file": str(spare)}}
    )
    async with stack(world, clock=clock, document=document) as service:
        await until(service.engine.is_ready)

        assert ["refused", "accepted"] == [
            one["standing"] for one in service.engine.credentials()["support"]
        ]
        assert {("support", "client_secret"): False} == service.engine.proved_credentials()


async def test_where_nothing_is_shown_ahead_nothing_is_missing(world: World, clock: Clock) -> None:
    """The application, which nobody needs, raises no alarm; what was needed is named."""
    world.app_secret_file.write_text(WRONG)
    document = alone(world)
    document["applications"] = world.config()["applications"]
    document["egress"] = world.config()["egress"]
    document["entra"]["prove_credentials"] = False
    async with stack(world, clock=clock, document=document) as service:
        await until(service.engine.is_ready)
        before = service.engine.proved_credentials()
        await service.egress("autonomous")
        served = service.engine.proved_credentials()
        await service.egress("app")

        assert ({}, {("support", "client_secret"): True}) == (before, served)
        assert {
            ("support", "client_secret"): True,
            ("reports", "client_secret"): False,
        } == service.engine.proved_credentials()


def test_each_client_has_an_exchange_of_its_own(world: World) -> None:
    """T1 of a routed agent, the token of a route, one of the same resource, or of the client itself."""
    document = world.config()
    del document["egress"]["app"]
    document["applications"]["idle"] = {
        **document["applications"]["reports"],
        "client_id": world.portal["client_id"],
    }
    document["blueprints"]["spare"] = {
        **document["blueprints"]["support"],
        "client_id": world.other_blueprint["client_id"],
    }
    found = _proofs(document)
    document["egress"] = {"own": document["egress"]["blueprint"]}
    document["agents"] = {}
    document["inbound"] = {}
    document["listen"]["direction"] = "egress"
    own = _proofs(document)

    support, reports, idle, spare = (found[n] for n in ("support", "reports", "idle", "spare"))
    assert isinstance(support, BlueprintAssertion)
    assert (world.agent["client_id"], None) == (support.agent.client_id, support.agent.user)
    assert isinstance(reports, AppToken)
    assert (GRAPH,) == reports.target.scopes
    assert isinstance(idle, AppToken)
    assert (f"{world.portal['client_id']}/.default",) == idle.target.scopes
    assert isinstance(spare, BlueprintToken)
    assert own["support"] == BlueprintToken(
        support.agent.blueprint, Target((GRAPH,), policy_version=support.target.policy_version)
    )


def _proofs(document: dict[str, Any]) -> dict[str, TokenExchange]:
    config = parse(json.dumps(document), {})
    return {client.name: proof for client, proof in proofs(config, compile_policy(config)).items()}
