"""A tenant that the sidecar's keys name by its domain: who is served before and after its id is known."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx

from authz_dev.emulator import Fault, Match
from support.programs.stack import Process, World, until
from support.programs.token_api import Sidecar, bearer, environment


def test_a_tenant_by_its_domain_is_the_same_tenant(
    world: World, start: Callable[..., Sidecar]
) -> None:
    """Its users are verified, its tokens are given, and the log names the id that was found."""
    sidecar = start(AzureAd__TenantId=world.tenant["domain"].upper())

    valid = sidecar.get("/Validate", token=world.token())
    stranger = world.emulator.mint_user_token(
        tenant_id=world.other_tenant["tenant_id"], audience=world.blueprint["client_id"]
    )
    refused = sidecar.get("/Validate", token=stranger)
    own = sidecar.token("/AuthorizationHeaderUnauthenticated/graph")

    assert world.tenant_id == valid.json()["claims"]["tid"]
    assert 401 == refused.status_code
    assert (world.blueprint["client_id"], world.tenant_id) == (own["appid"], own["tid"])
    assert world.tenant_id == sidecar.process.event("tenant found")["tenant_id"]


async def test_until_its_id_is_known_nobody_is_served(world: World) -> None:
    """Not ready, and says why; no token is accepted, none is given. It comes right without a restart."""
    outage = Fault("status", target="discovery", match=Match(tenant=world.tenant["domain"]))
    world.emulator.faults.add(outage)
    variables = environment(world, AzureAd__TenantId=world.tenant["domain"])
    with Process("serve", environ=variables) as process:
        serving = await asyncio.to_thread(process.event, "serving")
        async with httpx.AsyncClient(
            base_url=f"http://{serving['api']}", trust_env=False, timeout=30
        ) as api:
            health = await api.get("/healthz")
            valid = await api.get("/Validate", headers=bearer(world.token()))
            own = await api.get("/AuthorizationHeaderUnauthenticated/graph")
            await asyncio.to_thread(process.event, "not ready")
            missing = process.admin("/readyz").json()["missing"]
            world.emulator.faults.clear()
            await asyncio.to_thread(process.wait_ready)
            healed = await api.get("/Validate", headers=bearer(world.token()))

    assert (503, "Unhealthy") == (health.status_code, health.text)
    assert (401, "invalid_token") == (valid.status_code, valid.json()["reason"])
    assert (500, "exchange_misconfigured") == (own.status_code, own.json()["reason"])
    assert ["tenant"] == list(missing)
    assert missing["tenant"].startswith(f"{world.tenant['domain']}: ")
    assert "503" in missing["tenant"]
    assert (200, world.tenant_id) == (healed.status_code, healed.json()["claims"]["tid"])


async def test_authorities_that_are_gone_while_it_is_looked_up_end_nothing(
    world: World, tmp_path: Path
) -> None:
    """It is said, and comes right with the file."""
    authorities = tmp_path / "ca.pem"
    shutil.copy(world.emulator.ca_file, authorities)
    world.emulator.faults.add(Fault("status", target="discovery"))
    variables = environment(
        world, AzureAd__TenantId=world.tenant["domain"], AUTHZ_CA_FILE=str(authorities)
    )
    with Process("serve", environ=variables) as process:
        await asyncio.to_thread(process.event, "serving")
        away = authorities.rename(tmp_path / "away")
        await until(lambda: any("ca_file" in str(r.get("cause")) for r in process.events()), 30)
        world.emulator.faults.clear()
        away.rename(authorities)
        found = await asyncio.to_thread(process.event, "tenant found", 60)

    assert world.tenant_id == found["tenant_id"]
