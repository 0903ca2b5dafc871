"""The shared topology at work: one `authz serve`, the Envoy of each agent, mutual TLS with SPIFFE ids."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

import pytest
import trustme

from authz.envoy_config.settings import SECRET_NAMES, AuthzTls
from support.fakes.workload import workload_certificate
from support.kubernetes.manifests import KUBERNETES, Manifests, render
from support.programs.stack import World, claims
from support.proxy.shared import GRAPH, NAME, Shared, serving

AGENTS: Final = ("desk", "clerk")


@pytest.fixture
def overlay(kubectl: str) -> Manifests:
    """Return the overlay of the service."""
    return render(KUBERNETES / "shared")


@pytest.fixture
def shared(overlay: Manifests, world: World, tmp_path: Path) -> Iterator[Shared]:
    """Run the service of the overlay."""
    with serving(overlay, world, tmp_path) as running:
        yield running


@pytest.fixture
def headers(world: World) -> Callable[[], dict[str, str]]:
    """Return what a caller sends."""
    return lambda: {"authorization": f"Bearer {world.token()}"}


def test_each_workload_gets_its_own_agent(
    shared: Shared, headers: Callable[[], dict[str, str]]
) -> None:
    """Two Envoys with two SPIFFE ids: each user's call leaves as that workload's agent, for that user."""
    with ExitStack() as stack:
        for agent in AGENTS:
            envoy = stack.enter_context(shared.envoy(agent, shared.workload(agent)))
            assert 200 == envoy.caller.get("/", headers=headers()).status_code
            answer = envoy.agent.get(f"http://{GRAPH}/v1.0/me", headers=headers())

            assert 200 == answer.status_code, answer.text
            (seen,) = envoy.destinations[GRAPH].received
            (value,) = seen.values("authorization")
            arrived = claims(value.removeprefix("Bearer "))
            assert shared.identity(agent) == arrived["appid"]
            assert shared.world.users["alice"]["object_id"] == arrived["oid"]


@pytest.mark.parametrize("agent", AGENTS)
def test_no_workload_gets_anothers_agent(
    shared: Shared, headers: Callable[[], dict[str, str]], agent: str
) -> None:
    """An Envoy that names the other agent's route is refused: its certificate counts, not its word."""
    (other,) = set(AGENTS) - {agent}
    with shared.envoy(agent, shared.workload(other)) as envoy:
        answer = envoy.agent.get(f"http://{GRAPH}/v1.0/me", headers=headers())

        assert (403, "workload_not_allowed") == (answer.status_code, answer.json()["reason"])
        assert [] == envoy.destinations[GRAPH].received


@pytest.mark.thorough
def test_certificates_of_other_authorities_get_no_answer(
    shared: Shared, headers: Callable[[], dict[str, str]]
) -> None:
    """The right SPIFFE id from the wrong authority: refused as without service, in both directions."""
    stranger = Shared(
        shared.world, shared.config, shared.process, shared.servers, shared.servers.ca
    )
    with stranger.envoy("desk", shared.workload("desk")) as envoy:
        outward = envoy.agent.get(f"http://{GRAPH}/v1.0/me", headers=headers())
        inward = envoy.caller.get("/", headers=headers())

        assert (503, 503) == (outward.status_code, inward.status_code)
        assert [] == envoy.destinations[GRAPH].received
        assert [] == envoy.app.received


@pytest.mark.thorough
@pytest.mark.parametrize("wrong", ["tls", "ca.crt"])
def test_renewed_files_count_without_a_restart(
    shared: Shared, headers: Callable[[], dict[str, str]], tmp_path: Path, wrong: str
) -> None:
    """Refused with the wrong certificate or authorities; allowed once the kubelet has written others."""
    mounted, other = Mounted(tmp_path / "mounted"), trustme.CA()
    right = _files(shared.workloads, shared.servers.ca, shared.workload("desk"))
    signer, trusted = (other, shared.servers.ca) if wrong == "tls" else (shared.workloads, other)
    mounted.write(_files(signer, trusted, shared.workload("desk")))
    for name in SECRET_NAMES:
        shipped = (KUBERNETES / f"shared/client/{name}.yaml").read_text()
        ours = shipped.replace("/run/secrets/envoy", str(mounted.folder))
        (tmp_path / f"{name}.yaml").write_text(ours)

    with shared.envoy_with("desk", AuthzTls(None, NAME, secrets_folder=tmp_path)) as envoy:
        ask = partial(envoy.agent.get, f"http://{GRAPH}/v1.0/me", headers=headers())
        before = ask().status_code
        mounted.write(right)
        after = [ask().status_code]
        deadline = monotonic() + 30
        while after[-1] != 200 and monotonic() < deadline:
            after.append(ask().status_code)

    assert 503 == before
    assert {503, 200} >= {*after}
    assert 200 == after[-1]


class Mounted:
    """A folder of Secrets, written as the kubelet does it: all files change at once, by one link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions = 0

    def write(self, files: Mapping[str, bytes]) -> None:
        """Put these files in place of those before."""
        self._versions += 1
        (version := self.folder / f"..{self._versions}").mkdir(parents=True)
        for name, content in files.items():
            (version / name).write_bytes(content)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        (link := self.folder / "..data_tmp").symlink_to(version.name)
        link.rename(self.folder / "..data")


def _files(signer: trustme.CA, trusted: trustme.CA, spiffe_id: str) -> dict[str, bytes]:
    chain, key = workload_certificate(signer, spiffe_id)
    return {"tls.crt": chain, "tls.key": key, "ca.crt": trusted.cert_pem.bytes()}


@pytest.mark.thorough
def test_nothing_passes_without_the_service(
    shared: Shared, headers: Callable[[], dict[str, str]]
) -> None:
    """All replicas gone: refused, and the user's token stays here."""
    with shared.envoy("desk", shared.workload("desk")) as envoy:
        shared.process.stop()
        answer = envoy.agent.get(f"http://{GRAPH}/v1.0/me", headers=headers())

        assert 503 == answer.status_code
        assert [] == envoy.destinations[GRAPH].received
