"""Fixtures: the Istio overlay applied to the API server, the real pilot, and a pod that it configures.

Without pilot, the rights or the tools each test is skipped, and says what is missing.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.istio.mesh import AGENTS, applied, mesh_config
from support.istio.meshed import MeshedPod
from support.istio.pilot import PROGRAM, Pilot
from support.kubernetes.apiserver import SERVER, ApiServer, find, missing
from support.kubernetes.manifests import Manifests
from support.kubernetes.namespaces import missing as missing_namespaces


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Return an API server of one's own, or skip: pilot reads all namespaces, and writes to objects."""
    reason = missing(*SERVER, PROGRAM)
    if reason is not None:
        pytest.skip(reason)
    with ApiServer(tmp_path_factory.mktemp("apiserver")) as running:
        yield running


@pytest.fixture(scope="session")
def overlay(server: ApiServer) -> Manifests:
    """Return the overlay, applied."""
    return applied(server)


@pytest.fixture(scope="session")
def pilot(
    server: ApiServer, overlay: Manifests, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pilot]:
    """Return a running pilot."""
    program = find(PROGRAM)
    assert program is not None
    folder = tmp_path_factory.mktemp("pilot")
    with Pilot(program, folder, server.kubeconfig(), mesh_config()) as running:
        yield running


@pytest.fixture(scope="session")
def pod(overlay: Manifests, pilot: Pilot) -> Iterator[MeshedPod]:
    """Return the running pod."""
    reason = missing_namespaces()
    if reason is not None:
        pytest.skip(f"no pod runs: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="authz-meshed-"))
    # Every user of the pod reads it; pytest's own folders are closed to others.
    folder.chmod(0o755)
    try:
        with MeshedPod(overlay, AGENTS, folder, pilot.address) as running:
            yield running
    finally:
        shutil.rmtree(folder)
