"""Fixtures: a real API server, one for all tests of a run, and a namespace of its own for each test.

Without the server's programs each test is skipped, and says which variable would lead to them.
"""

from collections.abc import Iterator

import pytest

from support.kubernetes.apiserver import CONTROLLERS, SERVER, ApiServer, find, missing


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Return a running API server, or skip."""
    reason = missing(*SERVER)
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("apiserver")
    with ApiServer(folder, controllers=find(CONTROLLERS) is not None) as running:
        yield running


@pytest.fixture
def controllers(server: ApiServer) -> ApiServer:
    """Return the server with controllers that act, or skip."""
    reason = missing(CONTROLLERS)
    if reason is not None:
        pytest.skip(reason)
    return server


@pytest.fixture
def namespace(server: ApiServer) -> str:
    """Return the name of a new namespace, in which pods need not wait for a controller."""
    return server.namespace()
