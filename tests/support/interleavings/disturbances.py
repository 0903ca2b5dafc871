"""What is done to a fleet while requests go on, and which denials that explains. Each has an end."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

from authz.core.errors import Reason
from authz_dev.emulator import Match
from authz_dev.emulator.entities import Secret
from authz_dev.emulator.faults import Fault
from support.faults.answers import ODD_ANSWERS, ODD_DOCUMENTS
from support.faults.files import BAD_CERTIFICATES, laid, spoiled
from support.faults.strangers import GET, begun, strangers
from support.interleavings.explanations import LOST, REFUSED, UNAVAILABLE, Whose
from support.interleavings.fleet import Fleet

Doing = Callable[[Fleet, Random], AbstractAsyncContextManager[None]]
HALF_WRITTEN: Final = 3
HOUR: Final = 3600.0
NOTHING: Final[frozenset[str]] = frozenset()
WRONG_TIME: Final = UNAVAILABLE | {Reason.INVALID_TOKEN.value, Reason.UNKNOWN_SUBJECT.value}
"""A user's token has ended, or is not valid yet, and so has its reference and each token that is issued."""
NEW_KEY: Final = frozenset({Reason.KEYS_UNAVAILABLE.value})
OLD_KEY: Final = frozenset({Reason.INVALID_TOKEN.value, Reason.EXCHANGE_REJECTED.value})


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One kind.

    Attributes:
        name: Words for it, as operators read them in docs/failures.md.
        do: Lets it last through a block.
        alone: What no two may touch at a time.
        weight: How often it is drawn.
    """

    name: str
    do: Doing
    alone: str = ""
    weight: int = 10


@asynccontextmanager
async def _fault(
    fleet: Fleet, fault: Fault, whose: Whose, reasons: frozenset[str]
) -> AsyncIterator[None]:
    faults = fleet.world.emulator.faults
    with fleet.ledger.open(whose, reasons):
        added = faults.add(fault)
        try:
            yield
        finally:
            faults.clear(added.id)


@asynccontextmanager
async def _answers_to_a_user(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    caller = pick.choice([one for tenant in fleet.callers.values() for one in tenant])
    fault = pick.choice(ODD_ANSWERS).draw(pick, Match(user=caller.object_id))
    async with _fault(fleet, fault, Whose(user=caller.object_id), REFUSED):
        yield


@asynccontextmanager
async def _answers_to_an_agent(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    agent = pick.choice(list(fleet.agents.values()))
    fault = pick.choice(ODD_ANSWERS).draw(pick, Match(client_id=agent.client_id))
    async with (
        _fault(fleet, fault, Whose(agent=agent.client_id), REFUSED),
        AsyncExitStack() as more,
    ):
        if agent.name == "clerk":
            # The route `moving` may be this agent's as well.
            desk = Whose(agent=fleet.agents["desk"].client_id)
            more.enter_context(fleet.ledger.open(desk, REFUSED))
        yield


@asynccontextmanager
async def _answers_to_a_tenant(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    tenant = pick.choice(list(fleet.callers))
    fault = pick.choice(ODD_ANSWERS).draw(pick, Match(tenant=tenant))
    async with _fault(fleet, fault, Whose(tenant=tenant), REFUSED):
        yield


@asynccontextmanager
async def _late_answers(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    tenant = pick.choice(list(fleet.callers))
    fault = Fault("latency", seconds=pick.uniform(0.05, 0.8), match=Match(tenant=tenant))
    async with _fault(fleet, fault, Whose(tenant=tenant), UNAVAILABLE):
        yield


@asynccontextmanager
async def _documents(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """Discovery documents and key sets. Users' exchanges need none but the first of a new version."""
    tenant = pick.choice(list(fleet.callers))
    values = {**pick.choice(ODD_DOCUMENTS)}
    fault = Fault(**values, target=pick.choice(["discovery", "jwks"]), match=Match(tenant=tenant))
    # A token of a key that cannot be fetched waits, and so does a client that a reload has made.
    reasons = NEW_KEY | UNAVAILABLE
    async with _fault(fleet, fault, Whose(tenant=tenant), reasons):
        yield


@asynccontextmanager
async def _rollover(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    withdraw = pick.random() < 0.5
    if withdraw:
        fleet.ledger.begin(Whose(before_generation=fleet.generation + 1), OLD_KEY)
    with fleet.ledger.open(Whose(from_generation=fleet.generation + 1), NEW_KEY):
        fleet.roll(withdraw=withdraw)
        yield


@asynccontextmanager
async def _spoiled_secret(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """A last good version is there: nobody is denied."""
    file = pick.choice(
        [fleet.world.secret_file, fleet.world.app_secret_file, fleet.other_secret_file]
    )
    hang = pick.random() < 0.4
    with spoiled(file, pick.choice([None, b"", b"\xff\xfe\x00"]), hang=hang):
        yield


@asynccontextmanager
async def _rotated_secret(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """A new secret at Entra, then in the file, then the old one is gone at Entra: nobody is denied."""
    directory, world = fleet.world.emulator.directory, fleet.world
    blueprint = directory.application(world.tenant_id, world.blueprint["client_id"])
    assert blueprint is not None
    new = Secret(f"secret {pick.getrandbits(64):x}")
    directory.add_secret(blueprint, new)
    laid(world.secret_file, new.value.encode())
    yield
    directory.update_application(world.tenant_id, blueprint.client_id, secrets=(new,))


@asynccontextmanager
async def _reload(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """Another version that serves everybody as the one before: nobody is denied, and nothing moves."""
    document = fleet.document()
    document["egress"]["moving"]["agent"] = _moving(fleet)
    document["egress"][f"more-{pick.randrange(100)}"] = {"flow": "none"}
    document["cache"]["edge"]["max_ttl"] = pick.choice(["1s", "500ms", 0])
    document["entra"]["timeout"] = pick.choice(["2s", "2500ms"])
    fleet.write(document)
    if pick.random() < 0.5:
        fleet.authz.signal(signal.SIGHUP)
    yield


@asynccontextmanager
async def _moved_route(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """A route is another agent's from some moment on, and nobody gets the former one's token for long."""
    desk, clerk = (fleet.agents[name].client_id for name in ("desk", "clerk"))
    to, client = pick.choice([("desk", desk), ("clerk", clerk)])
    document = fleet.document()
    document["egress"]["moving"]["agent"] = to
    # A version before this one may be applied only now: this one is known by a route of its own.
    mark = f"mark-{pick.getrandbits(48):x}"
    document["egress"][mark] = {"flow": "none"}
    fleet.moving |= {client}
    fleet.write(document)
    fleet.authz.signal(signal.SIGHUP)
    if await _applied(fleet, mark):
        # Envoy may repeat an answer of the version before for as long as `cache.edge.max_ttl` says.
        await asyncio.sleep(1.5)
        fleet.moving = frozenset({client})
    yield


@asynccontextmanager
async def _refused_version(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """A version with a fault: the one before serves on."""
    good, document = fleet.config_file.read_text(), fleet.document()
    choice = pick.randrange(HALF_WRITTEN + 1)
    bad = fleet.world.folder / "bad-ca.pem"
    laid(bad, pick.choice(list(BAD_CERTIFICATES.values())))
    if choice == 0:
        document["egress"]["moving"]["agent"] = "nobody"
    elif choice == 1:
        document["entra"]["ca_file"] = str(bad)
    elif choice == 2:
        document["api"] = {"ca_file": str(bad)}
    else:
        bad = laid(bad, good[: len(good) // 2].encode())
    if choice < HALF_WRITTEN:
        fleet.write(document)
    else:
        laid(fleet.config_file, bad.read_bytes())
    fleet.authz.signal(signal.SIGHUP)
    yield
    laid(fleet.config_file, good.encode())


@asynccontextmanager
async def _stalled_log(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """Records wait or are dropped: nobody is denied."""
    fleet.output.stall()
    try:
        yield
    finally:
        fleet.output.go_on()


@asynccontextmanager
async def _lost_socket(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """The socket's file is removed: connections that there are stay, and it is there again in a second."""
    (fleet.world.folder / "authz.sock").unlink(missing_ok=True)
    yield


@asynccontextmanager
async def _strangers(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """Connections to the admin endpoints that say nothing, or half a request."""
    said = pick.choice([b"", GET, begun("/livez", 100)])
    async with strangers(f"unix:{fleet.admin_socket}", 200, said):
        yield


@asynccontextmanager
async def _set_clock(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """The service's wall clock is wrong for a while. Nothing of it lasts when it is right again."""
    direction = pick.choice([-1, 1])
    seconds, reasons = pick.choice([(20.0, NOTHING), (HOUR, WRONG_TIME), (24 * HOUR, WRONG_TIME)])
    with fleet.ledger.open(Whose(), reasons):
        fleet.clock.set_by(direction * seconds)
        try:
            yield
        finally:
            fleet.clock.set_by(0.0)


@asynccontextmanager
async def _suspended(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """The machine stands still for a while, as one that is suspended: Checks that were under way are late."""
    with fleet.ledger.open(Whose(), UNAVAILABLE):
        fleet.let_pass(pick.uniform(1.0, 120.0))
        yield


@asynccontextmanager
async def _restart(fleet: Fleet, pick: Random) -> AsyncIterator[None]:
    """The service is killed and started again: what needs a Check is refused until it is back."""
    reasons = (
        frozenset({LOST, Reason.UNKNOWN_SUBJECT.value, Reason.KEYS_UNAVAILABLE.value}) | UNAVAILABLE
    )
    with fleet.ledger.open(Whose(), reasons):
        await asyncio.to_thread(fleet.restart)
        yield


def _moving(fleet: Fleet) -> str:
    return str(json.loads(fleet.config_file.read_text())["egress"]["moving"]["agent"])


async def _applied(fleet: Fleet, route: str) -> bool:
    """Wait until the version with this route is in force; False if that takes too long."""
    for _ in range(100):
        status = await asyncio.to_thread(fleet.admin.get, "/status")
        if route in status.text:
            return True
        await asyncio.sleep(0.1)
    return False


DISTURBANCES: Final = (
    Disturbance("odd answers of Entra to one user", _answers_to_a_user, weight=30),
    Disturbance("odd answers of Entra to one agent", _answers_to_an_agent),
    Disturbance("odd answers of Entra to one tenant", _answers_to_a_tenant, weight=5),
    Disturbance("late answers of Entra to one tenant", _late_answers),
    Disturbance("odd discovery documents and key sets", _documents),
    Disturbance("a rollover of the signing key", _rollover, "keys", weight=4),
    Disturbance(
        "a credential file that is missing, empty, garbage or hangs", _spoiled_secret, "secret"
    ),
    Disturbance("a rotated secret", _rotated_secret, "secret"),
    Disturbance("a reload", _reload, "configuration"),
    Disturbance("a reload that gives a route to another agent", _moved_route, "configuration"),
    Disturbance(
        "a version of the configuration that is refused", _refused_version, "configuration"
    ),
    Disturbance("a reader of the log who stalls", _stalled_log, "log"),
    Disturbance("a socket whose file is removed", _lost_socket, "socket", weight=3),
    Disturbance("silent connections to the admin endpoints", _strangers, "configuration", weight=5),
    Disturbance("a wall clock that is set back or ahead, and right again", _set_clock, "clock"),
    Disturbance("a machine that is suspended for up to two minutes", _suspended, "clock", weight=3),
    # Others that share its name need the service to be there.
    Disturbance("a service that is killed", _restart, "configuration", weight=1),
)
LASTING: Final = tuple(each for each in DISTURBANCES if each.do is not _restart)
"""Those that leave the process as it is."""
