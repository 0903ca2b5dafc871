"""Signing keys against the emulator: discovery, rollover, withdrawal, outages, and no amplification."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from authz.core.decision import Allow, Deny
from authz.core.errors import InvalidToken, KeysUnavailable, Reason, TokenFault
from authz.core.keys import KeyFault, RefreshPolicy
from authz.core.record import CheckRecord
from authz.core.shares import Shares
from authz.entra.bulkheads import Bulkheads
from authz.entra.http import Answer, HttpClient
from authz.entra.signing_keys import MOST_WAITING, NOT_PUBLISHED, Issuer, SigningKeys
from authz_dev.emulator import Fault, Match
from support.fakes.clock import Clock as Epoch
from support.fakes.tenant import OTHER_TENANT, FakeTenant
from support.kubernetes.manifests import ROOT
from support.programs.stack import Clock, World, denied, stack, until


def fault_of(record: CheckRecord) -> TokenFault | None:
    """What exactly was wrong with the token."""
    return getattr(record.error, "fault", None)


async def test_v1_and_v2_tokens_of_the_tenant_verify(world: World) -> None:
    """Both issuers of a tenant have their keys."""
    async with stack(world) as service:
        for version in (1, 2):
            token = world.token(version=version)
            assert isinstance((await service.inbound(token)).decision, Allow), version


async def test_new_key_is_met_by_one_refetch(world: World) -> None:
    """A token signed by a key we have not seen fetches once, and is let in."""
    async with stack(world) as service:
        world.emulator.roll_signing_key()
        fetched = counting(world)

        records = await asyncio.gather(*(service.inbound(world.token()) for _ in range(100)))

        assert {True} == {isinstance(record.decision, Allow) for record in records}
        assert 1 == fetched()


async def test_keys_are_believed_only_of_the_issuer_that_they_are_published_for(
    world: World,
) -> None:
    """A document that speaks for somebody else proves nothing for us, whoever signed what comes with it."""
    others = f"{world.emulator.authority}/{world.other_tenant['tenant_id']}/v2.0"
    world.emulator.faults.add(Fault("members", target="discovery", members={"issuer": others}))
    document = world.config()
    document["entra"]["keys"] = {"retry_interval": "1s"}
    async with stack(world, document=document, keys=False) as service:
        with capture_logs() as logs:
            foreign = await service.inbound(world.token())
        lacking = service.engine.missing()["signing_keys"]
        # The other issuer of the tenant may not have been asked yet.
        assert any("speaks for" in cause for cause in lacking.values())
        world.emulator.faults.clear()
        await until(lambda: "signing_keys" not in service.engine.missing())
        own = await service.inbound(world.token())

    assert Reason.KEYS_UNAVAILABLE == denied(foreign)
    assert any(world.tenant_id in issuer for issuer in lacking)
    assert any(f"speaks for '{others}'" in entry.get("cause", "") for entry in logs)
    assert isinstance(own.decision, Allow)


async def test_withdrawn_key_ends_what_it_proved(world: World, clock: Clock) -> None:
    """After the next refresh a cached verification by a withdrawn key is no longer served."""
    async with stack(world, clock=clock) as service:
        token = world.token()
        before = await service.inbound(token)
        world.emulator.roll_signing_key(withdraw_old=True)
        fresh = await service.inbound(world.token())
        after = await service.inbound(token)

        assert isinstance(before.decision, Allow)
        assert isinstance(fresh.decision, Allow)
        assert Reason.INVALID_TOKEN == denied(after)
        assert TokenFault.UNKNOWN_KEY == fault_of(after)


async def test_a_key_that_is_published_for_an_application_alone_is_refused_with_a_hint(
    world: World,
) -> None:
    """What an operator with claims mapping meets: the log says what it may be, and where to read."""
    async with stack(world) as service:
        record = await service.inbound(world.token(key="foreign"))

    assert Reason.INVALID_TOKEN == denied(record)
    assert "unknown_key: the tenant publishes no such key" in str(record.error)
    page, _, heading = NOT_PUBLISHED.partition("(")[2].strip(")").partition("#")
    titles = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert heading in [title.lower().replace("'", "").replace(" ", "-") for title in titles]


async def test_unknown_key_ids_cannot_be_turned_into_load(world: World, clock: Clock) -> None:
    """Law 10: a flood of forged key ids fetches once per interval, for everyone together."""
    async with stack(world, clock=clock) as service:
        begun, fetched = clock.timer(), counting(world)
        for _ in range(50):
            forged = [world.token(header={"kid": f"forged-{uuid4()}"}) for _ in range(4)]
            await asyncio.gather(*(service.inbound(token) for token in forged))
            clock.ahead += 0.2

        # Real time passes as well: how much depends on the machine.
        most = ceil((clock.timer() - begun) / RefreshPolicy().unknown_key_interval)
        assert 1 < fetched() <= most


async def test_a_new_key_is_met_within_seconds_of_a_flood(world: World, clock: Clock) -> None:
    """Forged key ids hold nobody off for longer than the interval, and nobody throws a good token away."""
    async with stack(world, clock=clock) as service:
        await service.inbound(world.token(header={"kid": "forged"}))
        world.emulator.roll_signing_key()
        early = await service.inbound(world.token())
        forged = [
            await service.inbound(world.token(header={"kid": f"forged-{n}"})) for n in range(9)
        ]
        assert isinstance(early.decision, Deny)
        assert early.decision.retry_after is not None
        clock.ahead += early.decision.retry_after

        assert Reason.KEYS_UNAVAILABLE == early.decision.reason
        assert {Reason.KEYS_UNAVAILABLE} == {denied(record) for record in forged}
        assert early.decision.retry_after <= RefreshPolicy().unknown_key_interval
        assert isinstance((await service.inbound(world.token())).decision, Allow)


async def test_a_kid_that_is_not_there_is_asked_about_less_and_less(
    world: World, clock: Clock
) -> None:
    """A client that repeats a token of a withdrawn key is refused at once, and causes little."""
    async with stack(world, clock=clock) as service:
        token, fetched, moments = world.token(header={"kid": "withdrawn"}), counting(world), []
        for second in range(100):
            before = fetched()
            record = await service.inbound(token)
            assert Reason.INVALID_TOKEN == denied(record)
            assert TokenFault.UNKNOWN_KEY == fault_of(record)
            if fetched() > before:
                moments.append(second)
            clock.ahead += 1

        assert [0, 5, 15, 35, 75] == moments


def counting(world: World) -> Callable[[], int]:
    """Count from now on how often the emulator is asked for a key set."""
    most = 10**6
    counter = world.emulator.faults.add(Fault("members", target="jwks", count=most))

    def counted() -> int:
        (left,) = (
            fault.count for fault in world.emulator.faults.active() if fault.id == counter.id
        )
        assert left is not None
        return most - left

    return counted


@pytest.mark.parametrize("target", ["jwks", "discovery"])
@pytest.mark.parametrize("fault", ["down", "malformed", "status", "huge", "redirect"])
async def test_the_last_good_keys_survive_an_outage(
    world: World, clock: Clock, fault: str, target: str
) -> None:
    """Whatever discovery answers, tokens of known keys go on being verified, and new ones may wait."""
    async with stack(world, clock=clock) as service:
        world.emulator.faults.add(Fault(fault, target=target, megabytes=4))
        world.emulator.roll_signing_key()
        known = await service.inbound(world.token(key="old"))
        unknown = [await service.inbound(world.token()) for _ in range(2)]
        world.emulator.faults.clear()
        waits = [getattr(record.decision, "retry_after", None) or 0.0 for record in unknown]
        clock.ahead += max(waits)

        assert {Reason.KEYS_UNAVAILABLE} == {denied(record) for record in unknown}
        assert 1 <= min(waits)
        assert isinstance(known.decision, Allow)
        assert isinstance((await service.inbound(world.token())).decision, Allow)


async def test_without_any_keys_the_answer_is_unavailable_with_retry_after(world: World) -> None:
    """Entra down at the start: 503 rather than a wrong 401; healed without a restart."""
    world.emulator.faults.add(Fault("down", target="discovery"))
    document = world.config()
    document["entra"]["keys"] = {"retry_interval": "1s"}
    async with stack(world, document=document, keys=False) as service:
        record = await service.inbound(world.token())
        world.emulator.faults.clear()

        assert Reason.KEYS_UNAVAILABLE == denied(record)
        assert isinstance(record.decision, Deny)
        assert 1 == record.decision.retry_after
        await until(lambda: not service.engine.missing())
        assert isinstance((await service.inbound(world.token())).decision, Allow)


async def test_a_hanging_key_server_is_answered_before_the_deadline(world: World) -> None:
    """Waiting for a key ends with the Check's own deadline."""
    async with stack(world) as service:
        world.emulator.faults.add(Fault("hang", target="discovery"))

        record = await service.inbound(world.token(header={"kid": "unheard-of"}), seconds=0.3)

        assert Reason.DEADLINE_EXCEEDED == denied(record)
        world.emulator.faults.clear()


async def test_keys_of_another_tenant_do_not_verify(world: World) -> None:
    """A token of a tenant that is not on the allow-list is refused before any key is chosen."""
    async with stack(world) as service:
        other = world.other_tenant
        token = world.emulator.mint_user_token(
            tenant_id=other["tenant_id"],
            user=other["users"][0]["object_id"],
            audience=other["blueprints"][0]["client_id"],
        )
        record = await service.inbound(token)

        assert Reason.INVALID_TOKEN == denied(record)
        assert TokenFault.ISSUER == fault_of(record)


async def test_an_unconfirmed_v1_issuer_does_not_keep_v2_tokens_out(world: World) -> None:
    """In a cloud whose v1 issuer is another than we think, one attempt is all that is waited for."""
    base = f"{world.emulator.authority}/{world.tenant_id}"
    discovery = ".well-known/openid-configuration"
    confirmed = Issuer(f"{base}/v2.0", world.tenant_id, f"{base}/v2.0/{discovery}", ())
    guessed = Issuer(
        "https://sts.elsewhere.example/", world.tenant_id, f"{base}/{discovery}", (), required=False
    )
    http = HttpClient(
        ca_file=Path(world.emulator.ca_file), connect_timeout=3, timeout=5, pool_size=2
    )
    with ThreadPoolExecutor(2) as threads:
        keys = SigningKeys(
            [confirmed, guessed], http=http, bulkheads=Bulkheads(threads, Shares(4, holders=1)), policy=RefreshPolicy(),
            clock=time.time, timer=time.monotonic,
        )  # fmt: skip
        both = keys.missing()
        refreshing = asyncio.create_task(keys.keep_fresh())
        await until(lambda: not keys.missing())
        refreshing.cancel()

    assert [guessed.name] == keys.optional_missing()
    assert {confirmed.name, guessed.name} == set(both)
    assert [confirmed.name] == list(keys.ages())


class Broken(Exception):
    """A defect."""


class FailingClock(Clock):
    """A clock that works until it is broken."""

    broken = False

    def timer(self) -> float:
        """Tell the time, or fail."""
        if self.broken:
            raise Broken
        return super().timer()


async def test_the_end_of_refreshing_does_not_go_unnoticed(world: World) -> None:
    """Keys that are no longer refreshed would be believed for ever: the process must not go on."""
    clock = FailingClock()
    world.emulator.faults.add(Fault("down", target="discovery"))
    document = world.config()
    document["entra"]["keys"] = {"retry_interval": "1s"}
    async with stack(world, clock=clock, document=document, keys=False) as service:
        service.engine.check()
        clock.broken = True
        refreshing = service.engine._background[0]
        await until(refreshing.done)

        with pytest.raises(Broken):
            service.engine.check()
        del service.engine._background[0]


class Publisher:
    """An issuer whose first key set is answered late, and is out of date by then."""

    def __init__(self, issuer: str, *key_sets: dict[str, Any]) -> None:
        self._issuer = issuer
        self._key_sets = list(key_sets)
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def get(self, url: str) -> Answer:
        """Answer with metadata or with the next key set."""
        if "keys" not in url:
            content: object = {"issuer": self._issuer, "jwks_uri": "https://entra.example/keys"}
        else:
            content = self._key_sets.pop(0)
            self.asked.set()
            self.go_on.wait(10)
        return Answer(200, json.dumps(content), {})


async def test_a_fetch_that_was_under_way_does_not_answer_for_a_newer_key() -> None:
    """Who joins it and does not find his key may cause one of his own."""
    old, new = FakeTenant(clock=Epoch()), FakeTenant(clock=Epoch(), key_id="new")
    publisher = Publisher(old.issuer, {"keys": [old.jwk()]}, {"keys": [old.jwk(), new.jwk()]})
    issuer = Issuer(old.issuer, old.tenant_id, "https://entra.example/metadata", ())
    with ThreadPoolExecutor(1) as threads:
        keys = SigningKeys(
            [issuer], http=publisher, bulkheads=Bulkheads(threads, Shares(4, holders=1)), policy=RefreshPolicy(),
            clock=time.time, timer=time.monotonic,
        )  # fmt: skip
        refreshing = asyncio.create_task(keys.keep_fresh())
        await asyncio.to_thread(publisher.asked.wait, 10)
        wanted = asyncio.create_task(keys.find(old.issuer, "new", deadline=time.monotonic() + 10))
        await asyncio.sleep(0)
        publisher.go_on.set()
        found = await wanted
        refreshing.cancel()

    assert "new" == found.key_id


async def test_a_reload_during_a_refresh_delays_no_key() -> None:
    """What the old version's fetch brings stays there; the new version fetches at once."""
    tenant, clock = FakeTenant(clock=Epoch()), Epoch(100.0)
    publisher = Publisher(tenant.issuer, *[{"keys": [tenant.jwk()]}] * 2)
    with ThreadPoolExecutor(2) as threads:
        before, after = (_keys_of(tenant, publisher, threads, clock) for _ in range(2))
        refreshing = [asyncio.create_task(before.keep_fresh())]
        await asyncio.to_thread(publisher.asked.wait, 10)
        after.adopt(before)
        refreshing.append(asyncio.create_task(after.keep_fresh()))
        publisher.go_on.set()
        await until(lambda: not after.missing())
        for task in refreshing:
            task.cancel()
        await asyncio.wait(refreshing)

    assert after.current(tenant.issuer, "key-1") is not None


async def test_a_reload_during_a_look_for_a_key_delays_no_key() -> None:
    """Requests of the new version have it looked for again, though the last look is a moment ago."""
    tenant, clock = FakeTenant(clock=Epoch()), Epoch(100.0)
    new = FakeTenant(clock=Epoch(), key_id="new")
    publisher = Publisher(tenant.issuer, *[{"keys": [tenant.jwk(), new.jwk()]}] * 2)
    with ThreadPoolExecutor(2) as threads:
        before, after = (_keys_of(tenant, publisher, threads, clock) for _ in range(2))
        looking = asyncio.create_task(before.find(tenant.issuer, "new", deadline=clock() + 10))
        await asyncio.to_thread(publisher.asked.wait, 10)
        after.adopt(before)
        publisher.go_on.set()
        found = await after.find(tenant.issuer, "new", deadline=clock() + 10)

        assert ("new", "new") == (found.key_id, (await looking).key_id)


def _keys_of(
    tenant: FakeTenant, publisher: Publisher, threads: ThreadPoolExecutor, clock: Epoch
) -> SigningKeys:
    return SigningKeys(
        [Issuer(tenant.issuer, tenant.tenant_id, "https://entra.example/metadata", ())],
        http=publisher,
        bulkheads=Bulkheads(threads, Shares(4, holders=1)),
        policy=RefreshPolicy(),
        clock=clock,
        timer=clock,
    )


async def test_a_refused_key_is_told_once() -> None:
    """Each key that is left out has a line with its reason, when it is first seen and not at each refresh."""
    tenant, weak = FakeTenant(clock=Epoch()), FakeTenant(clock=Epoch(), key_id="weak")
    published = {
        "keys": [tenant.jwk(), weak.jwk(e="AQ"), weak.jwk(issuer="https://other.example/")]
    }
    also = {"keys": [*published["keys"], weak.jwk(kid="enc" * 100, use="enc")]}
    publisher = Publisher(tenant.issuer, published, published, also)
    publisher.go_on.set()
    issuer = Issuer(tenant.issuer, tenant.tenant_id, "https://entra.example/metadata", ())
    clock = Epoch(0.0)
    with ThreadPoolExecutor(1) as threads, capture_logs() as logs:
        keys = SigningKeys(
            [issuer], http=publisher, bulkheads=Bulkheads(threads, Shares(4, holders=1)), policy=RefreshPolicy(),
            clock=Epoch(), timer=clock,
        )  # fmt: skip
        for _ in range(3):
            with pytest.raises(InvalidToken):
                await keys.find(tenant.issuer, "unheard-of", deadline=clock() + 10)
            clock.advance(60)

    told = [(line["kid"], line["cause"]) for line in logs if line["event"] == "signing key refused"]
    assert [("weak", KeyFault.EXPONENT.value), (("enc" * 100)[:100], KeyFault.USE.value)] == told


@pytest.mark.parametrize("part", ["head", "chunk", "body"])
@pytest.mark.parametrize("target", ["jwks", "discovery"])
async def test_an_answer_that_drips_does_not_hold_up_new_keys(
    world: World, clock: Clock, target: str, part: str
) -> None:
    """The fetch has an end however its answer comes, so the next one meets the new key."""
    document = world.config()
    document["entra"] |= {"timeout": "500ms", "connect_timeout": "500ms"}
    async with stack(world, clock=clock, document=document) as service:
        world.emulator.roll_signing_key()
        world.emulator.faults.add(Fault("drip", target=target, part=part, seconds=0.05))
        held = await service.inbound(world.token())
        world.emulator.faults.clear()
        assert Reason.KEYS_UNAVAILABLE == denied(held), held.error
        clock.ahead += RefreshPolicy().unknown_key_interval

        assert isinstance((await service.inbound(world.token())).decision, Allow)


async def test_tenants_that_hang_hold_up_no_others_keys(world: World) -> None:
    """However many they are, whoever is asked last has a thread: its new key is met."""
    silent = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(8)]
    document = world.config()
    for number, tenant_id in enumerate(silent):
        document["blueprints"][f"silent-{number}"] = {
            **document["blueprints"]["support"],
            "tenant_id": tenant_id,
        }
        identity = f"{number:08d}-0000-4000-8000-00000000000a"
        agent = {"blueprint": f"silent-{number}", "agent_identity": identity}
        document["agents"][f"silent-{number}"] = agent
        document["inbound"][f"silent-{number}"] = {"agent": f"silent-{number}"}
        world.emulator.faults.add(Fault("hang", "discovery", match=Match(tenant=tenant_id)))
    async with stack(world, document=document, keys=False) as service:
        record = await service.inbound(world.token(), seconds=4.0)

    assert isinstance(record.decision, Allow), record.error


async def test_an_issuer_that_hangs_holds_up_no_others_keys() -> None:
    """Each issuer's refresh is its own, and few requests wait for one that does not answer."""
    good, silent = FakeTenant(clock=Epoch()), FakeTenant(OTHER_TENANT, clock=Epoch())
    answering = Publisher(good.issuer, *[{"keys": [good.jwk()]}] * 3)
    answering.go_on.set()

    hanging = Publisher(silent.issuer, *[{"keys": [silent.jwk()]}] * 2)

    class Both:
        """Answers for one issuer, and for the other when it is told to."""

        def get(self, url: str) -> Answer:
            """Answer at the issuer's own pace; both publish their keys at one address."""
            if "silent" in url and "keys" in url:
                return hanging.get(url)
            if "silent" in url:
                return Answer(
                    200, json.dumps({"issuer": silent.issuer, "jwks_uri": f"{url}/keys"}), {}
                )
            return answering.get(url)

    issuers = [
        Issuer(silent.issuer, silent.tenant_id, "https://silent.example/metadata", ()),
        Issuer(good.issuer, good.tenant_id, "https://entra.example/metadata", ()),
    ]
    policy = RefreshPolicy(interval=0.05)
    with ThreadPoolExecutor(2) as threads:
        keys = SigningKeys(
            issuers, http=Both(), bulkheads=Bulkheads(threads, Shares(4, holders=1)), policy=policy,
            clock=time.time, timer=time.monotonic,
        )  # fmt: skip
        refreshing = asyncio.create_task(keys.keep_fresh())
        deadline = time.monotonic() + 10
        await until(lambda: len(answering._key_sets) == 0)
        waiting = [
            asyncio.create_task(keys.find(silent.issuer, f"forged-{n}", deadline=deadline))
            for n in range(MOST_WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(KeysUnavailable, match="too many"):
            await keys.find(silent.issuer, "one more", deadline=deadline)
        hanging.go_on.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        refreshing.cancel()

    assert {InvalidToken} == {type(outcome) for outcome in outcomes}
