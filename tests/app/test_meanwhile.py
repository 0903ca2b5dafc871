"""Faults of one client, file or output, on the running program: meanwhile everybody else is served.

Each test has users of another tenant, new ones among them, and `/livez` asked without a pause until it ends.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from authz_dev.emulator import Fault, Match
from support.faults.answers import ODD_ERRORS
from support.faults.files import BAD_CERTIFICATES, hanging, laid
from support.faults.output import small_pipe
from support.peers.service_account import Cluster
from support.programs.stack import Client, Process, World, authorization, problem, until
from support.proxy.envoy import free_port
from support.proxy.neighbours import neighbours_token, probed, two_tenants

pytestmark = pytest.mark.thorough

Serve = Callable[..., Process]
Write = Callable[..., Path]
ROUNDS = 10


class Bystanders:
    """Users of the second tenant who keep asking, and probes.

    Attributes:
        livez: What `/livez` said.
        served: Object ids of those who got a token; in place of one, the problem of who got none.
    """

    def __init__(self, livez: list[int]) -> None:
        self.livez = livez
        self.served: list[Any] = []

    async def go_on(self) -> None:
        """Wait for some more answers to each of them."""
        users, probes = len(self.served) + ROUNDS, len(self.livez) + ROUNDS
        await until(lambda: len(self.served) >= users and len(self.livez) >= probes, seconds=60)

    async def ask(self, client: Client, world: World) -> None:
        """Ask as one user whom the service knows, and as one whom it does not know, in turn."""
        known = neighbours_token(world)
        while True:
            for token in (known, neighbours_token(world)):
                answer = await client.check("egress", "neighbour", token)
                allowed = answer.WhichOneof("http_response") == "ok_response"
                self.served.append(authorization(answer)["oid"] if allowed else problem(answer))


@asynccontextmanager
async def bystanders(world: World, process: Process) -> AsyncIterator[Bystanders]:
    """Let them ask through the block; at its end all of them must have been served."""
    async with (
        Client(f"unix:{world.folder}/authz.sock") as client,
        probed(process) as livez,
    ):
        others = Bystanders(livez)
        asking = asyncio.create_task(others.ask(client, world))
        try:
            await others.go_on()
            yield others
            await others.go_on()
        finally:
            asking.cancel()
            await asyncio.wait([asking])
    user = world.other_tenant["users"][0]["object_id"]
    assert {user} == {str(each) for each in others.served}
    assert {200} == set(livez)


async def test_odd_answers_to_one_user_concern_nobody_else(world: World, serve: Serve) -> None:
    """Neither the other users of the same agent nor its sibling, nor another tenant."""
    process = serve(two_tenants(world))
    alice = world.users["alice"]["username"]
    reasons, others = [], []
    async with (
        Client(f"unix:{world.folder}/authz.sock") as client,
        bystanders(world, process),
    ):
        for error in ODD_ERRORS:
            body = {"error": error}
            fault = Fault("answer", status=400, body=body, count=1, match=Match(user=alice))
            world.emulator.faults.add(fault)
            refused = await client.check("egress", "graph", world.token("alice"))
            reasons.append(problem(refused)["reason"])
            for route in ("graph", "graph-clerk"):
                token = world.token("alice2")
                others.append(authorization(await client.check("egress", route, token))["oid"])

    assert "internal" not in reasons
    assert {world.users["alice2"]["object_id"]} == set(others)
    assert "Traceback" not in process.log()


@pytest.mark.parametrize(
    ("target", "part"),
    [("token", "head"), ("token", "chunk"), ("jwks", "head"), ("discovery", "chunk")],
)
async def test_an_answer_that_drips_holds_up_nobody_else(
    world: World, serve: Serve, target: str, part: str
) -> None:
    """Of the token endpoint, the keys or the discovery document of one tenant."""
    document = two_tenants(world)
    document["entra"] |= {"timeout": "2s", "exchange_timeout": "3s"}
    process = serve(document)
    async with (
        Client(f"unix:{world.folder}/authz.sock") as client,
        bystanders(world, process) as others,
    ):
        drip = Fault("drip", target, Match(tenant=world.tenant_id), seconds=0.2, part=part)
        world.emulator.faults.add(drip)
        asked = asyncio.create_task(client.check("egress", "graph", world.token(), seconds=6.0))
        await others.go_on()
        answer = await asked
    if target == "token":
        assert problem(answer)["reason"] in ("exchange_unavailable", "deadline_exceeded")


async def test_a_tenant_whose_discovery_hangs_from_the_start_keeps_no_other_waiting(
    world: World, serve: Serve
) -> None:
    """The service is ready for the other tenant, which is served, and says for whom it is not."""
    world.emulator.faults.add(Fault("hang", "discovery", Match(tenant=world.tenant_id)))
    document = two_tenants(world)
    document["entra"] |= {"timeout": "2s", "exchange_timeout": "3s"}
    process = serve(document)
    async with bystanders(world, process):
        missing = process.admin("/status").json()["missing"]["signing_keys"]

    assert all(world.tenant_id in issuer for issuer in missing)


async def test_a_credential_that_hangs_holds_up_nobody(world: World, serve: Serve) -> None:
    """A FIFO in the place of the first tenant's secret: its own new exchanges go on as well."""
    process = serve(two_tenants(world))
    async with (
        Client(f"unix:{world.folder}/authz.sock") as client,
        bystanders(world, process),
    ):
        authorization(await client.check("egress", "autonomous"))
        hanging(world.secret_file)
        new = authorization(await client.check("egress", "autonomous-clerk"))

    assert world.sibling["client_id"] == new["appid"]


@pytest.mark.parametrize(
    ("section", "bad"), [("entra", "missing"), ("entra", "garbage"), ("api", "empty")]
)
async def test_a_reload_with_a_bad_file_ends_nothing(
    world: World, serve: Serve, write: Write, tmp_path: Path, section: str, bad: str
) -> None:
    """The version is refused, and the one before serves everybody."""
    document = two_tenants(world, reload_interval="0s")
    process = serve(document)
    file = laid(tmp_path / "ca.pem", BAD_CERTIFICATES[bad])
    async with bystanders(world, process):
        write({**document, section: {**document.get(section, {}), "ca_file": str(file)}})
        process.signal(signal.SIGHUP)
        await asyncio.to_thread(
            process.event, "configuration refused, the previous one stays in use"
        )

    assert process.running


@pytest.mark.parametrize("bad", [b"", b"garbage", None], ids=["empty", "garbage", "missing"])
async def test_a_federated_token_that_is_spoiled_leaves_the_last_good_one(
    world: World, serve: Serve, tmp_path: Path, bad: bytes | None
) -> None:
    """New exchanges of its own client go on with the assertion that is still valid."""
    file, cluster = tmp_path / "token", Cluster(world)
    file.write_text(cluster.token())
    document = two_tenants(world)
    document["blueprints"]["support"]["credentials"] = [{"federated_token": {"file": str(file)}}]
    process = serve(document)
    async with (
        Client(f"unix:{world.folder}/authz.sock") as client,
        bystanders(world, process),
    ):
        authorization(await client.check("egress", "autonomous"))
        laid(file, bad)
        new = authorization(await client.check("egress", "autonomous-clerk"))

    assert world.sibling["client_id"] == new["appid"]


async def test_an_edit_costs_nobody_a_token(world: World, serve: Serve, write: Write) -> None:
    """What does not depend on it stays: Entra is not asked again for a user or an agent."""
    document = two_tenants(world, reload_interval="0s")
    process = serve(document)
    token = world.token()
    async with (
        Client(f"unix:{world.folder}/authz.sock") as client,
        bystanders(world, process),
    ):
        before = authorization(await client.check("egress", "graph", token))
        asked = world.emulator.calls.snapshot()["t1"]
        document["egress"]["more"] = {"hosts": ["more.example"], "flow": "none"}
        write(document)
        process.signal(signal.SIGHUP)
        await asyncio.to_thread(process.event, "configuration applied")
        after = authorization(await client.check("egress", "graph", token))

    assert before["uti"] == after["uti"]
    assert asked == world.emulator.calls.snapshot()["t1"]


async def test_a_log_that_nobody_reads_holds_up_no_probe(world: World, write: Write) -> None:
    """More denials than the pipe takes, and everybody is served beside them."""
    reading, writing = small_pipe()
    document = two_tenants(world)
    admin = document["listen"]["admin"] = f"127.0.0.1:{free_port()}"
    arguments = ("serve", "--config", str(write(document)))
    with Process(*arguments, output=writing, admin=admin) as process:
        os.close(writing)
        process.wait_ready()
        async with (
            Client(f"unix:{world.folder}/authz.sock") as client,
            bystanders(world, process),
        ):
            for _ in range(100):
                refused = problem(await client.check("egress", "nowhere"))
                assert "unknown_route" == refused["reason"]
        os.close(reading)
