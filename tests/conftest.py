"""Fixtures for tests of the whole service. Packages of tests have their own beside them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from authz_dev.emulator import Emulator
from support.stack import Clock, World

# A busy machine is no fault of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def clock() -> Clock:
    """The clock that service and emulator share."""
    return Clock()


@pytest.fixture
def world(clock: Clock, tmp_path: Path) -> Iterator[World]:
    """An emulated Entra of one's own, with a configuration for it."""
    with Emulator(clock=clock) as emulator:
        yield World(emulator, tmp_path)
