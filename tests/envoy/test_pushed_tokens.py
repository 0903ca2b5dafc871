"""Pushed tokens end to end: real Envoy, the service as a process, the emulated Entra."""

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from authz.config.reading.document import parse
from authz.envoy_config.settings import AuthzTls
from authz_dev.emulator import Fault
from authz_dev.emulator import claims as emulated
from support.fakes.workload import workload_certificate
from support.peers.upstream import EchoUpstream
from support.programs.stack import Process, World, claims, until
from support.proxy.sidecar import Authority, Sidecar

ORDERS: Final = "orders.example"
GRAPH: Final = "graph.microsoft.com"
DESK: Final = "spiffe://cluster.example/ns/agents/sa/desk"
SHORT_LIFE: Final = 8
"""Seconds that tokens live where they must be seen to end. Two of them are the margin."""


class Pod:
    """Envoy with one destination whose token is pushed and one with Checks, and the service."""

    def __init__(self, world: World, sidecar: Sidecar, document: dict[str, Any]) -> None:
        self.world = world
        self.sidecar = sidecar
        self._file = world.folder / "authz.yaml"
        self._file.write_text(json.dumps(document))
        self.authz: Process | None = None

    def start(self) -> Process:
        """Start the service and wait until it is ready."""
        self.authz = Process("serve", "--config", str(self._file)).wait_ready()
        return self.authz

    def orders(self) -> httpx.Response:
        """Call the destination whose token is pushed, with a user's token as the app may send it."""
        headers = {"authorization": f"Bearer {self.world.token()}"}
        return self.sidecar.agent.get(f"http://{ORDERS}/items", headers=headers)

    @property
    def tokens(self) -> list[dict[str, Any]]:
        """The claims of every token that arrived at that destination, in order."""
        seen = [one.values("authorization") for one in self.sidecar.destinations[ORDERS].received]
        assert {1} >= {len(values) for values in seen}
        return [claims(values[0].removeprefix("Bearer ")) for values in seen]

    def only_the_agents_own(self) -> bool:
        """Whether nothing else than app-only tokens of the agent arrived there, and something did."""
        own = (self.world.agent["client_id"], "app")
        return {own} == {(token["appid"], token["idtyp"]) for token in self.tokens}


def document(world: World) -> dict[str, Any]:
    """Return a configuration with a pushed route and one for users."""
    # A second, so that what Envoy may repeat after the service has died is soon over.
    found = world.config(cache={"tokens": {"margin": "2s"}, "edge": {"max_ttl": "1s"}})
    routes = found["egress"]
    found["egress"] = {
        "graph": routes["graph"],
        "orders": {**routes["autonomous"], "hosts": [ORDERS]},
    }
    return found


def sidecar_for(
    found: dict[str, Any],
    authority: Authority,
    hosts: tuple[str, ...] = (ORDERS, GRAPH),
) -> Sidecar:
    """Return the Envoy for a configuration; not started yet."""
    return Sidecar(
        parse(json.dumps(found), {}),
        authz_address=found["listen"]["grpc"],
        authority=authority,
        certificates={host: (host,) for host in hosts},
    )


@pytest.fixture
def pod(world: World, tmp_path: Path) -> Iterator[Pod]:
    """A running pod. The service is there before Envoy."""
    found = document(world)
    sidecar = sidecar_for(found, Authority.create(tmp_path))
    running = Pod(world, sidecar, found)
    running.start()
    try:
        with sidecar:
            yield running
    finally:
        if running.authz is not None:
            running.authz.close()


@pytest.fixture
def short_lived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the emulated Entra issue app-only tokens that soon end."""
    monkeypatch.setattr(emulated, "APP_LIFETIME", SHORT_LIFE)


class Load:
    """Callers that keep calling, and what became of it."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.stop = False

    async def call(
        self, client: httpx.AsyncClient, host: str, headers: Callable[[], dict[str, str]]
    ) -> None:
        """Call one host until told to stop."""
        while not self.stop:
            started = time.time()
            answer = await client.get(f"http://{host}/items", headers=headers())
            if answer.status_code != 200:
                self.outcomes[f"{host} {answer.status_code}"] += 1
                continue
            arrived = dict(answer.json()["headers"])["authorization"].removeprefix("Bearer ")
            fresh = claims(arrived)["exp"] > started
            self.outcomes[f"{host} {'right' if fresh else 'expired'}"] += 1

    async def reach(self, number: int, outcome: str) -> None:
        """Wait for that many further outcomes of one kind."""
        target = self.outcomes[outcome] + number
        await until(lambda: self.outcomes[outcome] >= target, seconds=30)


@asynccontextmanager
async def load(pod: Pod, *, graph: int = 0) -> AsyncIterator[Load]:
    """Keep two callers of the pushed route, and some of the other, going through the block."""
    proxy, token = f"http://127.0.0.1:{pod.sidecar.egress_port}", pod.world.token()
    users = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(proxy=proxy, trust_env=False, timeout=20) as client:
        going = Load()
        hosts = [ORDERS, ORDERS, *([GRAPH] * graph)]
        tasks = [asyncio.create_task(going.call(client, host, lambda: users)) for host in hosts]
        await going.reach(20, f"{ORDERS} right")
        yield going
        going.stop = True
        await asyncio.gather(*tasks)


def test_a_pushed_token_needs_no_check_and_other_hosts_still_do(pod: Pod) -> None:
    """The user's token is replaced on the one, and exchanged on the other."""
    assert pod.authz is not None
    answers = [pod.orders() for _ in range(5)]
    checks = (
        'authz_checks_total{decision="allow",direction="egress",reason="none",route="graph"} 1.0'
    )
    headers = {"authorization": f"Bearer {pod.world.token()}"}
    other = pod.sidecar.agent.get(f"http://{GRAPH}/v1.0/me", headers=headers)
    without = pod.sidecar.agent.get(f"http://{GRAPH}/v1.0/me")

    assert [200] * 5 == [answer.status_code for answer in answers]
    assert pod.only_the_agents_own()
    assert (200, 401) == (other.status_code, without.status_code)
    metrics = pod.authz.admin("/metrics").text
    assert checks in metrics
    assert 'route="orders"' not in metrics
    assert 'authz_secret_pushes_total{outcome="token",secret="orders"} 1.0' in metrics
    assert "authz_secret_streams 2.0" in metrics  # the token, and why there is none
    (line,) = [
        line
        for line in metrics.splitlines()
        if line.startswith('authz_pushed_secret_expiry_seconds{secret="orders"}')
    ]
    assert 3000 < float(line.rpartition(" ")[2]) <= 3600
    status = pod.authz.admin("/status").json()["pushed_secrets"]
    assert 1 == status["orders"]["subscribers"]
    for text in (metrics, str(status), pod.authz.log(), pod.sidecar.envoy.log):
        assert "eyJ" not in text


def test_the_destinations_own_401_passes_as_it_is(pod: Pod) -> None:
    """Only Envoy's lack of a token is ours to explain."""
    pod.sidecar.destinations[ORDERS].status = 401

    answer = pod.orders()

    assert 401 == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert pod.only_the_agents_own()


@pytest.mark.thorough
async def test_rotation_under_load_uses_no_expired_token_and_refuses_nobody(
    short_lived: None, pod: Pod
) -> None:
    """Tokens of a few seconds follow one another while requests go on."""
    async with load(pod) as going:
        await until(lambda: len({token["uti"] for token in pod.tokens}) >= 4, seconds=60)

    assert {f"{ORDERS} right"} == set(going.outcomes)
    assert pod.only_the_agents_own()


@pytest.mark.thorough
def test_outage_of_entra_ends_with_the_token_and_heals_by_itself(
    short_lived: None, pod: Pod
) -> None:
    """The token is used while it lives, then requests are refused with a reason, then all is well again."""
    pod.world.emulator.faults.add(Fault("down"))
    assert 200 == pod.orders().status_code
    refused = _first(pod, 503)
    arrived = len(pod.tokens)
    again = pod.orders()

    assert (503, "exchange_unavailable") == (again.status_code, refused.json()["reason"])
    assert "application/problem+json" == refused.headers["content-type"]
    assert ("1", "no-store") == (refused.headers["retry-after"], refused.headers["cache-control"])
    assert arrived == len(pod.tokens)
    pod.world.emulator.faults.clear()
    assert 200 == _first(pod, 200).status_code
    assert pod.only_the_agents_own()


@pytest.mark.thorough
def test_a_refused_credential_is_told_as_such_until_it_is_put_right(
    world: World, tmp_path: Path
) -> None:
    """500 `exchange_misconfigured`, as where a Check fails by it; no header of ours reaches the API."""
    world.secret_file.write_text("wrong")
    found = document(world)
    found["entra"]["prove_credentials"] = True
    del found["applications"]  # the blueprint's credential is the only one
    authority = Authority.create(tmp_path)
    file = world.folder / "authz.yaml"
    file.write_text(json.dumps(found))
    with Process("serve", "--config", str(file)) as authz:
        authz.event("serving")
        with sidecar_for(found, authority) as sidecar:
            pod = Pod(world, sidecar, found)
            refused = _sooner_or_later(pod, 500)
            unready = authz.admin("/readyz").status_code
            status = authz.admin("/status").json()["pushed_secrets"]["orders"]
            arrived = list(sidecar.destinations[ORDERS].received)
            world.secret_file.write_text(world.blueprint["client_secret"])
            served = _sooner_or_later(pod, 200)
            seen = sidecar.destinations[ORDERS].received

            assert ("exchange_misconfigured", None) == (
                refused.json()["reason"],
                refused.headers.get("retry-after"),
            )
            assert 503 == unready
            assert "exchange_misconfigured" == status["reason"]
            assert "AADSTS7000215" in status["detail"]
            assert [] == arrived
            assert 200 == served.status_code
            assert [] == [one for one in seen if one.values("x-authz-refusal")]
            assert pod.only_the_agents_own()


def test_a_pushed_route_that_is_gone_is_unknown_and_not_away(pod: Pod) -> None:
    """Envoy has it still: 403 at once, without the advice to try again; and 200 when it is back."""
    authz = pod.authz
    assert authz is not None
    file = pod.world.folder / "authz.yaml"
    before = file.read_text()
    first = _sooner_or_later(pod, 200)
    document = json.loads(before)
    del document["egress"]["orders"]
    file.write_text(json.dumps(document))
    authz.signal(signal.SIGHUP)
    gone = _sooner_or_later(pod, 403)
    file.write_text(before)
    authz.signal(signal.SIGHUP)
    again = _sooner_or_later(pod, 200)

    assert (200, 403, 200) == (first.status_code, gone.status_code, again.status_code)
    assert ("unknown_route", None) == (gone.json()["reason"], gone.headers.get("retry-after"))
    assert pod.only_the_agents_own()


async def test_a_killed_service_leaves_pushed_traffic_alone_and_heals(pod: Pod) -> None:
    """Requests with a pushed token do not notice; Checks are refused until it is back."""
    right, refused = f"{ORDERS} right", f"{GRAPH} 503"
    async with load(pod, graph=1) as going:
        await going.reach(20, f"{GRAPH} right")
        old = pod.authz
        assert old is not None
        old.signal(signal.SIGKILL)
        await asyncio.to_thread(old.wait)
        await going.reach(20, refused)
        await going.reach(100, right)
        before = {token["uti"] for token in pod.tokens}
        await asyncio.to_thread(pod.start)
        old.close()
        await going.reach(20, f"{GRAPH} right")
        # Envoy comes back by itself, and is given the token that the new process has fetched.
        await until(lambda: pod.tokens[-1]["uti"] not in before, seconds=60)

    assert {right, f"{GRAPH} right", refused} == set(going.outcomes)
    assert pod.only_the_agents_own()


@pytest.mark.thorough
def test_envoy_starts_without_the_service_closed_and_heals(world: World, tmp_path: Path) -> None:
    """It opens after a few seconds, refuses what needs a token, and takes one as soon as there is one."""
    found = document(world)
    with sidecar_for(found, Authority.create(tmp_path)) as sidecar:
        pod = Pod(world, sidecar, found)
        refused = pod.orders()
        assert (503, "exchange_unavailable") == (refused.status_code, refused.json()["reason"])
        assert [] == pod.tokens
        with pod.start():
            assert 200 == _first(pod, 200, seconds=60).status_code
        assert pod.only_the_agents_own()


@pytest.mark.parametrize("allowed", [True, False])
def test_over_mutual_tls_the_certificate_decides(
    world: World, tmp_path: Path, allowed: bool
) -> None:
    """Law 2 with a shared service: this Envoy has the token of its own workload, or none."""
    authority = Authority.create(tmp_path)
    leaf = authority.ca.issue_cert("authz.example")
    certificate, key, client, client_key = (
        tmp_path / name for name in ("tls.crt", "tls.key", "client.crt", "client.key")
    )
    leaf.cert_chain_pems[0].write_to_path(certificate)
    leaf.private_key_pem.write_to_path(key)
    chain, private = workload_certificate(authority.ca, DESK if allowed else f"{DESK}-other")
    client.write_bytes(chain)
    client_key.write_bytes(private)
    found = document(world)
    found["listen"] = {
        "grpc": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "tls": {
            "certificate_file": str(certificate),
            "key_file": str(key),
            "client_ca_file": str(authority.file),
        },
    }
    found["agents"]["desk"]["workloads"] = [DESK]
    file = tmp_path / "service.yaml"
    file.write_text(json.dumps(found))
    with Process("serve", "--config", str(file)).wait_ready() as process:
        sidecar = Sidecar(
            parse(file.read_text(), {}),
            authz_address=process.event("serving")["grpc"],
            authority=authority,
            certificates={ORDERS: (ORDERS,), GRAPH: (GRAPH,)},
            authz_tls=AuthzTls(authority.file, "authz.example", client, client_key),
        )
        with sidecar:
            pod = Pod(world, sidecar, found)
            answer = pod.orders()

            assert (200 if allowed else 403) == answer.status_code
            assert ([] == pod.tokens) is not allowed
            assert ("secret refused" in process.log()) is not allowed


def test_a_pushed_wildcard_injects_into_requests_of_its_own_route_only(
    world: World, tmp_path: Path
) -> None:
    """Its cluster resolves and verifies the name asked for, as the one of other wildcards does."""
    authority = Authority.create(tmp_path)
    found = document(world)
    found["egress"]["orders"] |= {"hosts": ["*"], "token_to_loopback": True}
    with ExitStack() as stack:
        api = stack.enter_context(EchoUpstream(authority.server_context("api.localhost")))
        other = stack.enter_context(EchoUpstream(authority.server_context("other.localhost")))
        sidecar = sidecar_for(found, authority, hosts=())
        pod = Pod(world, sidecar, found)
        stack.enter_context(pod.start())
        stack.enter_context(sidecar)
        headers = {"authorization": f"Bearer {world.token()}"}
        served = sidecar.agent.get(f"http://api.localhost:{api.port}/items", headers=headers)
        unproved = sidecar.agent.get(f"http://api.localhost:{other.port}/items", headers=headers)
        user = sidecar.agent.get(f"http://{GRAPH}/v1.0/me")

        (value,) = api.received[0].values("authorization")
        assert (200, 503, 401) == (served.status_code, unproved.status_code, user.status_code)
        assert "app" == claims(value.removeprefix("Bearer "))["idtyp"]
        assert [] == other.received


def _sooner_or_later(pod: Pod, status: int, seconds: float = 60.0) -> httpx.Response:
    """Call the pushed route until it answers so."""
    end = time.monotonic() + seconds
    while (answer := pod.orders()).status_code != status:
        assert time.monotonic() < end, f"no answer with {status}"
    return answer


def _first(pod: Pod, status: int, seconds: float = 30.0) -> httpx.Response:
    """Call the pushed route until it answers so; meanwhile nothing but the opposite is answered."""
    end = time.monotonic() + seconds
    while (answer := pod.orders()).status_code != status:
        assert {200, 503} == {status, answer.status_code}
        assert time.monotonic() < end, f"no answer with {status}"
    return answer
