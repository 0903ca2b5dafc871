"""Fixtures of tests that start agents."""

import pytest

from support.proxy.sidecar import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Sign the destinations' certificates; its folder takes all files of a module."""
    return Authority.create(tmp_path_factory.mktemp("recipe"))
