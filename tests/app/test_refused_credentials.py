"""A credential file that gets a wrong content, under the running program: nobody notices but the operator."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz_dev.emulator.entities import Secret
from support.programs.stack import Client, Process, World, authorization, until

Serve = Callable[..., Process]
NEW = "the new secret of the application"


def set_secrets(world: World, *secrets: str) -> None:
    """Let the application of route `app-obo` have these secrets at Entra, and no others."""
    world.emulator.directory.update_application(
        world.tenant_id,
        world.reports["client_id"],
        secrets=tuple(Secret(secret) for secret in secrets),
    )


@asynccontextmanager
async def probed(process: Process) -> AsyncIterator[Counter[int]]:
    """Ask `/livez` again and again through the block; count the answers by status."""
    serving = process.event("serving")
    answers: Counter[int] = Counter()
    stop = asyncio.Event()

    async def ask() -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            while not stop.is_set():
                answer = await http.get(f"http://{serving['admin']}/livez", timeout=10)
                answers[answer.status_code] += 1

    asking = asyncio.create_task(ask())
    await until(lambda: answers or asking.done())
    yield answers
    stop.set()
    await asking


class Callers:
    """Users of the application, each with one token.

    Args:
        client: The ext_authz door.
        world: Whose users they are.
    """

    def __init__(self, client: Client, world: World) -> None:
        self._client = client
        self._tokens = {
            name: world.token(name, audience=world.reports["client_id"], scopes=None)
            for name in ("alice", "alice2", "alice3")
        }

    async def call(self, *names: str) -> list[str]:
        """Let users call one after the other; return for whom the API is called."""
        return [
            authorization(await self._client.check("egress", "app-obo", self._tokens[name]))["upn"]
            for name in names
        ]


def metric(process: Process, line: str) -> bool:
    """Whether the metrics hold a line."""
    return line in process.admin("/metrics").text


@pytest.mark.parametrize("wrong", [NEW[:10], "of another application"], ids=["half", "wrong"])
async def test_a_secret_that_entra_refuses_leaves_the_accepted_one_in_use(
    world: World, serve: Serve, wrong: str
) -> None:
    """Users whose token is cached and new ones are served throughout; log, metric and readiness say it."""
    process = serve()
    refused = 'authz_credential_refused{client="reports",kind="client_secret"} '
    async with Client(f"unix:{world.folder}/authz.sock") as client, probed(process) as probes:
        callers = Callers(client, world)
        before = await callers.call("alice")
        set_secrets(world, world.reports["client_secret"], NEW)
        world.app_secret_file.write_text(wrong)
        meanwhile = await callers.call("alice", "alice2")
        told = await asyncio.to_thread(process.event, "credential refused")
        ready: dict[str, Any] = process.admin("/readyz").json()
        was_refused = metric(process, refused + "1.0")

        world.app_secret_file.write_text(NEW)
        set_secrets(world, NEW)
        after = await callers.call("alice", "alice2", "alice3")
        is_refused = metric(process, refused + "1.0")

    assert [world.users["alice"]["username"]] == before
    assert [world.users[name]["username"] for name in ("alice", "alice2")] == meanwhile
    assert [world.users[name]["username"] for name in ("alice", "alice2", "alice3")] == after
    assert {200} == set(probes)
    assert ("reports", True) == (told["client"], told["accepted_one_in_use"])
    assert "AADSTS7000215" in told["cause"]
    assert {
        "ready": True,
        "missing": {},
        "credentials_refused": {"reports": ["client_secret"]},
    } == ready
    assert "credentials_refused" not in process.admin("/readyz").json()
    assert (True, False) == (was_refused, is_refused)
    assert wrong not in process.log()


async def test_a_secret_that_is_gone_is_in_status_and_metrics(world: World, serve: Serve) -> None:
    """Users are served meanwhile from what was read before; the operator sees which file, and why."""
    process = serve()
    series = 'authz_credential_unreadable{client="reports",kind="client_secret"} '
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        callers = Callers(client, world)
        before = metric(process, series + "0.0")
        world.app_secret_file.unlink()
        lost = await asyncio.to_thread(process.event, "credential not usable")
        served = await callers.call("alice")
        (stands,) = process.admin("/status").json()["credentials"]["reports"]
        meanwhile = metric(process, series + "1.0")
        world.app_secret_file.write_text(world.reports["client_secret"])
        await asyncio.to_thread(process.event, "credential usable again")
        after = metric(process, series + "0.0")

    assert (True, True, True) == (before, meanwhile, after)
    assert [world.users["alice"]["username"]] == served
    assert f"{world.app_secret_file}: No such file or directory" == stands["fault"] == lost["cause"]


async def test_a_reload_does_not_forget_which_secret_entra_took(
    world: World, serve: Serve, write: Callable[..., Path]
) -> None:
    """The configuration changes while the file is wrong: the accepted version is handed over."""
    process = serve(reload_interval="50ms")
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        callers = Callers(client, world)
        await callers.call("alice")
        world.app_secret_file.write_text("wrong")
        document = world.config(reload_interval="50ms")
        document["entra"]["timeout"] = "6s"
        write(document)
        await asyncio.to_thread(process.event, "configuration applied")
        served = await callers.call("alice2", "alice3")

    assert [world.users[name]["username"] for name in ("alice2", "alice3")] == served


async def test_the_first_start_is_not_ready_with_a_refused_secret_and_the_running_service_stays_so(
    world: World, write: Callable[..., Path]
) -> None:
    """Nobody calls in all of it: probes, log, status and metrics say what Entra thinks of the file."""
    document = world.config()
    document["entra"]["prove_credentials"] = True
    del document["applications"]
    routes = document["egress"]
    document["egress"] = {name: routes[name] for name in ("graph", "autonomous")}
    accepted = 'authz_credential_accepted{client="support",kind="client_secret"} '
    world.secret_file.write_text("wrong")
    with Process("serve", "--config", str(write(document))) as process:
        refused = await asyncio.to_thread(process.event, "credential refused")
        unready = process.admin("/readyz")
        before = metric(process, accepted + "0.0")
        world.secret_file.write_text(world.blueprint["client_secret"])
        await asyncio.to_thread(process.wait_ready)
        told = await asyncio.to_thread(process.event, "credential accepted")
        after = metric(process, accepted + "1.0")
        world.secret_file.write_text("wrong again")
        await until(lambda: metric(process, accepted + "0.0"), seconds=60)
        ready, status = process.admin("/readyz"), process.admin("/status").json()["credentials"]
        log = process.log()

    assert (503, True, True) == (unready.status_code, before, after)
    assert world.blueprint["client_id"] == refused["client_id"] == told["client_id"]
    assert ("client_secret", f"client_secret {world.secret_file}") == (
        told["kind"],
        told["credential"],
    )
    assert 200 == ready.status_code
    assert {"support"} == status.keys()
    assert status["support"][0]["accepted_in_use"]
    assert world.blueprint["client_secret"] not in log
    assert "wrong" not in "".join(line for line in log.splitlines() if "wrong secret" not in line)


async def test_a_secret_in_the_place_of_its_file_is_in_no_text(world: World, serve: Serve) -> None:
    """Log, readiness and status name the credential's kind, and words in place of the path."""
    secret = "gK8~Q1aBcD-3efGhIjKlMnOpQrStUvWxYz012345"
    blueprint = world.config()["blueprints"]["support"]
    credentials = [{"client_secret": {"file": secret}}, {"client_secret": {"env": "Summer2024"}}]
    process = serve(blueprints={"support": {**blueprint, "credentials": credentials}})
    await asyncio.to_thread(process.event, "serving")
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        await client.check("egress", "graph", world.token())
    texts = [process.admin(path).text for path in ("/readyz", "/status", "/metrics")]
    texts.append(process.log())

    assert [False, False, True] == [
        any(secret in text for text in texts),
        any("Summer2024" in text for text in texts),
        "not shown" in process.log(),
    ]
