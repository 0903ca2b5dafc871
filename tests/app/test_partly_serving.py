"""One tenant or client that cannot be served takes nothing from the others, and is named."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.programs.stack import Client, Process, World, authorization, problem, until

UNKNOWN = "99999999-9999-4999-8999-999999999999"
STRAY = "99999999-0000-4000-8000-00000000000a"
Serve = Callable[..., Process]


def with_unknown_tenant(world: World, **changes: Any) -> dict[str, Any]:
    """Return a configuration with a second blueprint, in a tenant that Entra does not know."""
    document = world.config(**changes)
    document["blueprints"]["lost"] = {
        **document["blueprints"]["support"],
        "tenant_id": UNKNOWN,
    }
    document["agents"]["stray"] = {"blueprint": "lost", "agent_identity": STRAY}
    document["inbound"]["lost"] = {"agent": "stray", "scopes": ["access_agent"]}
    return document


async def test_a_tenant_that_entra_does_not_know_is_named_and_the_others_are_served(
    world: World, serve: Serve
) -> None:
    """Ready for the good tenant; metric, status and log say for whom not."""
    process = serve(with_unknown_tenant(world))
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        served = authorization(await client.check("egress", "graph", world.token()))

    def said() -> dict[str, str]:
        found = [each for each in process.events() if each["event"] == "ready, but not for all"]
        return found[-1]["signing_keys"] if found else {}

    # At first keys of the good tenant's other issuer may be on their way.
    await until(lambda: said() and all(UNKNOWN in issuer for issuer in said()))
    metrics = process.admin("/metrics").text

    assert world.agent["client_id"] == served["appid"]
    assert all("status 400" in cause for cause in said().values())
    assert said() == process.admin("/status").json()["missing"]["signing_keys"]
    for issuer in said():
        assert f'authz_unserved{{kind="signing_keys",name="{issuer}"}} 1.0' in metrics
    assert "authz_ready 1.0" in metrics


async def test_a_client_without_credential_is_named_and_the_others_are_served(
    world: World, serve: Serve
) -> None:
    """Its own routes are denied; when its credential arrives, they are served without a restart."""
    world.app_secret_file.unlink()
    process = serve()
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        served = authorization(await client.check("egress", "autonomous"))
        refused = problem(await client.check("egress", "app"))
    named = 'authz_unserved{kind="credential",name="reports"} '
    before = named + "1.0" in process.admin("/metrics").text
    world.app_secret_file.write_text(world.reports["client_secret"])
    await asyncio.to_thread(_wait_for_metric, process, named + "0.0")

    assert world.agent["client_id"] == served["appid"]
    assert "exchange_misconfigured" == refused["reason"]
    assert before


@pytest.mark.parametrize("lacking", ["tenant", "credential"])
def test_the_strict_form_waits_for_everybody(
    world: World, write: Callable[..., Any], lacking: str
) -> None:
    """`listen.readiness: all`."""
    listen = {**world.config()["listen"], "readiness": "all"}
    if lacking == "credential":
        world.app_secret_file.unlink()
        document = world.config(listen=listen)
    else:
        document = with_unknown_tenant(world, listen=listen)
    with Process("serve", "--config", str(write(document))) as process:
        key = "credentials" if lacking == "credential" else "signing_keys"
        _wait_for_only(process, key)
        answer = process.admin("/readyz")

    assert 503 == answer.status_code
    assert [key] == list(answer.json()["missing"])


def _wait_for_metric(process: Process, line: str) -> None:
    for _ in range(10_000):
        if line in process.admin("/metrics").text:
            return
    raise AssertionError(f"no {line}")


def _wait_for_only(process: Process, key: str) -> None:
    """Wait until all is there that will come."""
    process.event("serving")
    for _ in range(10_000):
        if [key] == list(process.admin("/readyz").json().get("missing", {})):
            return
    raise AssertionError(f"never only {key}: {process.admin('/readyz').text}")
