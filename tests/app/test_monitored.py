"""A real Prometheus scrapes the running program: every panel of the dashboard draws, and alerts wake up.

Needs Debian's package `prometheus`.
"""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz.config.reading.document import parse
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import SidecarSettings
from authz_dev.emulator.faults import Fault, Match
from entra.test_credentials import Certified, register
from support.kubernetes.monitoring import alerts, queries
from support.programs.prometheus import Prometheus, installed
from support.programs.stack import Client, Process, World
from support.proxy.envoy import EnvoyProcess, free_port
from support.proxy.secret_stream import SecretStream

pytestmark = pytest.mark.system

Serve = Callable[..., Process]

MAY_BE_EMPTY = {
    "Memory": "the kubelet's metric, and there is no kubelet",
    "Credentials not accepted yet": "each is accepted at once",
}
"""Panels without data here, and why."""
WINDOW = "10s"
"""The range of rates: some twenty scrapes."""
PATIENCE = 60.0
OBO = Match(leg="agent_obo")
TROUBLES = (
    Fault("error", code=7000215, match=OBO),
    Fault("error", code=50076, match=OBO),
    Fault("error", code=4242424, match=OBO),
    Fault("status", status=429, retry_after=1, match=OBO),
    *[Fault("status", status=503, match=OBO)] * 3,
)
"""Each class of Entra's refusals."""
WAKING = {
    "AuthzConfigRefused",
    "AuthzCredentialExpiring",
    "AuthzDenials",
    "AuthzEntraErrorsUnknown",
    "AuthzEntraThrottled",
    "AuthzEntraUnavailable",
    "AuthzExchangeMisconfigured",
    "AuthzSecretsRejected",
    "AuthzUsersRefused",
}
"""Alerts that this traffic wakes; they fire when it goes on for long enough."""
ASLEEP = {
    "AuthzAbsent",
    "AuthzAllowedWithoutDecision",
    "AuthzCacheThrash",
    "AuthzClockDiffers",
    "AuthzCredentialExpiringSoon",
    "AuthzCredentialRefused",
    "AuthzCredentialUnproved",
    "AuthzCredentialUnreadable",
    "AuthzDown",
    "AuthzEdgeCacheErrors",
    "AuthzEnvoyAbsent",
    "AuthzEnvoyDown",
    "AuthzEnvoyOutdated",
    "AuthzEntraCircuitOpen",
    "AuthzFileUnusable",
    "AuthzForeignSubject",
    "AuthzInternalErrors",
    "AuthzLogRecordsDropped",
    "AuthzNoDecision",
    "AuthzNotReady",
    "AuthzPartlyServing",
    "AuthzPushedSecretExpiring",
    "AuthzSigningKeysOld",
    "AuthzSubjectsEvicted",
}
"""Alerts whose business it is not."""
DEPENDS = {"AuthzSlowChecks", "AuthzTokensRefused"}
"""Alerts that the machine may wake."""


def _document(world: World, certificate: Path) -> dict[str, object]:
    """Return a configuration in which everything that has a metric can happen."""
    document = world.config(
        reload_interval="100ms",
        listen={
            "grpc": f"unix:{world.folder}/authz.sock",
            "admin": "127.0.0.1:0",
            "api": "127.0.0.1:0",
        },
        api={"ca_file": str(world.emulator.ca_file)},
    )
    document["blueprints"]["support"]["credentials"] = [{"certificate": {"file": str(certificate)}}]
    document["inbound"]["agent"]["prefetch"] = ["graph"]
    document["inbound"]["agent"]["forward"] = ["bearer", "handle"]
    document["egress"]["graph"]["subject"] = ["handle", "bearer", "none"]
    document["egress"]["autonomous"]["downstream"] = {
        "base_url": f"{world.emulator.authority}/v1.0",
        "path": "/whoami",
    }
    return document


def _rendered(document: Mapping[str, Any], socket: str, world: World) -> str:
    """Return the configuration of an Envoy beside the service, at free ports."""
    settings = SidecarSettings(
        inbound_address="127.0.0.1:0",
        egress_address="127.0.0.1:0",
        admin_address=f"127.0.0.1:{free_port()}",
        statistics_address="127.0.0.1:0",
        ipv6=False,
        inbound_route="agent",
        authz_address=socket,
        upstream_ca_file=world.emulator.ca_file,
    )
    return render(parse(json.dumps(document), os.environ), settings)


class Traffic:
    """Everything that is drawn, again and again."""

    def __init__(self, world: World, client: Client, api: str, envoy: EnvoyProcess) -> None:
        self._world = world
        self._client = client
        self._caller = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{envoy.port('inbound')}", trust_env=False
        )
        self._api = httpx.AsyncClient(base_url=f"http://{api}", trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.aclose()
        await self._caller.aclose()

    async def round(self) -> None:
        """Send a few requests of each kind."""
        check, token = self._client.check, self._world.token
        fresh = token()
        for _ in range(2):
            await check("inbound", "agent", fresh)
            await check("egress", "graph-clerk", fresh)
        # Nobody has consented for this user.
        for _ in range(6):
            await check("egress", "graph-clerk", token("bob"))
        # There is no app behind Envoy. The same caller needs no second Check; another one is refused.
        for bearer in (fresh, fresh, "nonsense"):
            await self._caller.get("/", headers={"authorization": f"Bearer {bearer}"})
        await check("egress", "graph")
        await check("egress", "autonomous")
        await check("inbound", "agent")
        await check("inbound", "agent", "nonsense")
        await check("egress", "nowhere")
        await self._api.get("/DownstreamApiUnauthenticated/autonomous")
        for trouble in TROUBLES:
            added = self._world.emulator.faults.add(trouble)
            await check("egress", "graph-clerk", token())
            self._world.emulator.faults.clear(added.id)


@pytest.fixture
async def prometheus(
    world: World, serve: Serve, write: Callable[..., Path], tmp_path: Path
) -> AsyncIterator[tuple[Prometheus, Traffic, Process]]:
    """Run everything, with an Envoy that refused a secret and a configuration that was refused."""
    certified = Certified(days=10)
    register(world, certified)
    certificate = tmp_path / "certificate.pem"
    certificate.write_bytes(certified.pem())
    document = _document(world, certificate)
    process = serve(document)
    serving = process.event("serving")
    socket = f"unix:{world.folder}/authz.sock"
    with (
        EnvoyProcess(_rendered(document, socket, world)) as beside,
        Prometheus(
            serving["admin"], tmp_path, envoy=f"127.0.0.1:{beside.port('statistics')}"
        ) as running,
    ):
        async with Client(socket) as client, SecretStream(socket) as envoy:
            await envoy.ask("autonomous")
            await envoy.hear()
            await envoy.acknowledge("autonomous")
            await envoy.ask("autonomous", "agent-user", nonce=envoy.last.nonce)
            await envoy.hear()
            await envoy.acknowledge("autonomous", "agent-user", error="not today")
            write({**document, "log": {"level": "debug"}})
            await asyncio.to_thread(process.event, "configuration applied")
            write({**document, "surprise": 1})
            await asyncio.to_thread(
                process.event, "configuration refused, the previous one stays in use"
            )
            traffic = Traffic(world, client, serving["api"], beside)
            try:
                yield running, traffic, process
            finally:
                await traffic.close()


async def test_every_panel_draws_and_alerts_wake_up(
    prometheus: tuple[Prometheus, Traffic, Process],
) -> None:
    """Each query finds numbers in real metrics, and each rule evaluates to what this traffic means."""
    running, traffic, process = prometheus
    waiting = [query for query in queries() if query.panel not in MAY_BE_EMPTY]
    asleep = set(WAKING)
    end = asyncio.get_running_loop().time() + PATIENCE
    while waiting or asleep:
        assert asyncio.get_running_loop().time() < end, (waiting, asleep, process.log()[-4000:])
        await traffic.round()
        # Without their zeros, which would be drawn in any case.
        waiting = [query for query in waiting if not running.query(query.own(WINDOW))]
        rules = running.rules()
        states = {rule["name"]: rule["state"] for rule in rules}
        asleep = {name for name in WAKING if states[name] == "inactive"}

    assert states.keys() == alerts().keys() == WAKING | ASLEEP | DEPENDS
    assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []
    assert {states[name] for name in ASLEEP} == {"inactive"}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
    # What the variables of the dashboard offer.
    assert running.values("namespace", 'authz_build_info{job="authz"}') == ["agents"]
    assert running.values("pod", 'authz_build_info{job="authz", namespace=~"agents"}') == [
        "agent-1"
    ]


async def test_no_panel_is_without_data_where_nothing_has_happened_yet(
    serve: Serve, tmp_path: Path
) -> None:
    """A zero, or words of its own: "No data" would look like a fault."""
    process = serve()
    waiting = {query.panel for query in queries() if query.no_value is None}
    end = asyncio.get_running_loop().time() + PATIENCE
    with Prometheus(process.event("serving")["admin"], tmp_path) as running:
        while waiting:
            assert asyncio.get_running_loop().time() < end, waiting
            waiting -= {
                query.panel
                for query in queries()
                if query.panel in waiting and running.query(query.filled(WINDOW))
            }


def test_the_exposition_is_well_formed(serve: Serve) -> None:
    """Names, types and help texts are as promtool wants them."""
    text = httpx.get(
        f"http://{serve().event('serving')['admin']}/metrics",
        headers={"accept": "text/plain"},
        trust_env=False,
    ).text
    result = subprocess.run(
        [installed("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
