"""One running emulator for the whole directory, and fresh ones for tests that change it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from authz.emulator import Emulator
from emulator.scene import Clock, Scene, trusting


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[Emulator]:
    """An emulator whose directory no test changes."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def scene(shared_emulator: Emulator) -> Iterator[Scene]:
    """A scene on the shared emulator, left without faults and counts."""
    shared_emulator.calls.reset()
    with trusting(shared_emulator) as session:
        yield Scene(shared_emulator, session)
    shared_emulator.faults.clear()


@pytest.fixture
def clock() -> Clock:
    """The clock of `fresh_scene`."""
    return Clock()


@pytest.fixture
def fresh_scene(clock: Clock) -> Iterator[Scene]:
    """A scene on an emulator of its own, for tests that change the directory, keys or time."""
    with Emulator(clock=clock) as emulator, trusting(emulator) as session:
        yield Scene(emulator, session)
