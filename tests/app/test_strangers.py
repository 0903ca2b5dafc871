"""Strangers at every door of the running programs: they take a bounded part, and who asks is answered."""

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trustme

from authz.injection.webhook import MOST_BYTES, PATH
from support.faults.strangers import GET, begun, strangers
from support.programs.holdings import descriptors, most_memory
from support.programs.stack import Client, Process, World, authorization, until
from support.programs.token_api import Sidecar

pytestmark = pytest.mark.thorough

Serve = Callable[..., Process]
MIB: Final = 1024**2
PROBES: Final = 20
SERVICE_LIMIT: Final = 384 * MIB
"""Memory that the manifests give the service."""
WEBHOOK_LIMIT: Final = 128 * MIB
"""The same of the injection webhook."""


async def live(process: Process) -> int:
    """Probe as a kubelet does: on a connection of its own, and only for so long."""
    serving = process.event("serving")
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        answer = await client.get(f"http://{serving['admin']}/livez")
        return answer.status_code


async def test_unfinished_bodies_to_the_http_api_take_little_and_hold_up_nobody(
    start: Callable[..., Sidecar], world: World
) -> None:
    """600 MiB from 150 callers: less than the limit by far, while probes and whole requests are answered."""
    sidecar = start()
    body = begun("/DownstreamApiUnauthenticated/graph", 4 * MIB)
    statuses = []
    async with strangers(sidecar.address, 0, body) as callers:
        for _ in range(PROBES):
            await callers.come(150 // PROBES + 1)
            statuses.append(await live(sidecar.process))
        await until(lambda: callers.unsent == 0, seconds=60)
        token = await asyncio.to_thread(sidecar.token, "/AuthorizationHeaderUnauthenticated/graph")
        most = most_memory(sidecar.process.pid)

    assert {200} == set(statuses)
    assert world.blueprint["client_id"] == token["appid"]
    assert most < SERVICE_LIMIT / 2, most / MIB


async def test_unfinished_reviews_take_little_and_hold_up_no_other(tmp_path: Path) -> None:
    """450 MiB from 150 callers of the webhook, over TLS: less than its limit, while a review is answered."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    leaf.private_key_pem.write_to_path(key)
    leaf.cert_chain_pems[0].write_to_path(certificate)
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    arguments = ("--certificate", str(certificate), "--key", str(key))
    pod = {"kind": "Pod", "metadata": {"name": "app"}, "spec": {"containers": []}}
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    request = {"uid": "1", "kind": kind, "operation": "CREATE", "object": pod}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    with Process("inject-webhook", "--listen", "127.0.0.1:0", *arguments) as process:
        address = process.event("serving")["listen"]
        body = begun(PATH, MOST_BYTES, "content-type: application/json")
        async with (
            strangers(address, 150, body, tls) as callers,
            httpx.AsyncClient(base_url=f"https://{address}", verify=tls, trust_env=False) as client,
        ):
            await until(lambda: callers.unsent == 0, seconds=60)
            answer = await client.post(PATH, json=review, timeout=30)
            most = most_memory(process.pid)

    assert 200 == answer.status_code, answer.text
    assert "1" == json.loads(answer.content)["response"]["uid"]
    assert most < WEBHOOK_LIMIT * 0.9, most / MIB


@pytest.mark.parametrize("said", [b"", GET], ids=["silent", "half a head"])
async def test_idle_connections_to_the_admin_listener_keep_no_probe_out(
    world: World, serve: Serve, said: bytes
) -> None:
    """More than there are places, and renewed as fast as they are closed: each probe is answered."""
    process = serve()
    before = descriptors(process.pid)
    statuses = []
    async with strangers(process.event("serving")["admin"], 1100, said) as idle:
        for _ in range(PROBES):
            await idle.renew()
            statuses.append(await live(process))
        held = descriptors(process.pid) - before

    assert [200] * PROBES == statuses
    assert 900 < held <= 1000 + PROBES


async def test_silent_connections_to_the_grpc_port_end_while_users_are_served(
    world: World, serve: Serve
) -> None:
    """1,200 that never speak HTTP/2: a new user is served beside them, and after a while they are gone."""
    listen: dict[str, Any] = {**world.config()["listen"], "grpc": "127.0.0.1:0"}
    process = serve(listen=listen)
    address = process.event("serving")["grpc"]
    before = descriptors(process.pid)
    async with strangers(address, 1200) as silent:
        # On a busy machine the first ones have ended before the last ones are accepted.
        await until(lambda: descriptors(process.pid) - before >= 600 or silent.staying < 1200)
        async with Client(address) as client:
            served = authorization(await client.check("egress", "graph", world.token()))
        status = await live(process)
        await until(lambda: silent.staying == 0, seconds=30)
        await until(lambda: descriptors(process.pid) - before < 50, seconds=60)

    assert (200, world.agent["client_id"]) == (status, served["appid"])
