"""One running sidecar for the tests of a module: real Envoy, scripted decisions, echoing servers."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.config import Config, load
from authz.doors.envoy.grpc_server import ServerSettings
from support.proxy.ext_authz_server import ExtAuthzServer, allow
from support.proxy.sidecar import EXAMPLE_ENVIRONMENT, Authority, Sidecar

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def example() -> Config:
    """The configuration that the shipped Envoy configuration belongs to."""
    return load(ROOT / "docs" / "examples" / "sidecar.yaml", EXAMPLE_ENVIRONMENT).config


@pytest.fixture(scope="module")
def short_directory() -> Iterator[Path]:
    """A directory whose path is short enough for a Unix socket in it."""
    with tempfile.TemporaryDirectory(prefix="authz-") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def authority(short_directory: Path) -> Authority:
    """The authority that signs the destinations' certificates."""
    return Authority.create(short_directory)


@pytest.fixture(scope="module")
def service(short_directory: Path) -> Iterator[ExtAuthzServer]:
    """The scripted service of the module's sidecar."""
    with ExtAuthzServer(ServerSettings(f"unix:{short_directory}/authz.sock")) as server:
        yield server


@pytest.fixture(scope="module")
def running(example: Config, authority: Authority, service: ExtAuthzServer) -> Iterator[Sidecar]:
    """The sidecar of the shipped example. One destination's certificate is for another name."""
    certificates = {
        "graph.microsoft.com": ("*.microsoft.com",),
        "inventory.internal:8443": ("inventory.internal",),
        "api.weather.example": ("elsewhere.example",),
    }
    with Sidecar(
        example, authz_address=service.address, authority=authority, certificates=certificates
    ) as sidecar:
        yield sidecar


@pytest.fixture
def sidecar(running: Sidecar, service: ExtAuthzServer) -> Sidecar:
    """The running sidecar, with nothing on record and a service that allows everything."""
    service.start()
    service.answer = lambda _: allow()
    service.requests.clear()
    running.forget()
    return running
