"""Fixtures for tests of the whole service. Packages of tests have their own beside them."""

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml
from hypothesis import settings

from authz_dev.emulator import Emulator
from support.programs import program
from support.programs.stack import Clock, World

_MARKS = re.compile(r"^pytestmark = .+$", re.MULTILINE)

# A busy machine is no fault of the code. `make test` asks for the quick one.
settings.register_profile("patient", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=15)
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of `make test`."""
    parser.addoption(
        "--quick",
        action="store_true",
        help="fewer examples of each property, and programs forked from an interpreter with imports done",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Load the profile before anything is collected."""
    if config.getoption("--quick"):
        settings.load_profile("quick")
        # The parser in C takes a tenth of the time, and most tests of Envoy read what is rendered.
        setattr(yaml, "SafeLoader", yaml.CSafeLoader)  # noqa: B010 - a type for mypy
    # Its counterpart waits for a thread, for ever if that thread is just about to end: so gRPC's loop stays.
    grpc.aio.init_grpc_aio()
    # What is imported and collected stays for the whole run.
    gc.disable()


def pytest_collection_finish() -> None:
    """Let the garbage collector begin, and look only at what tests make."""
    gc.freeze()
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files none of whose tests would be chosen (`-m "not ..."`): importing them takes seconds."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    found = _MARKS.search(collection_path.read_text())
    if found is None:
        return None
    chosen = str(config.getoption("-m")).split(" and ")
    return (
        True
        if {f"not {mark}" for mark in re.findall(r"mark\.(\w+)", found[0])} & {*chosen}
        else None
    )


def pytest_unconfigure() -> None:
    """End the interpreter that programs were forked from."""
    program.close()


@pytest.fixture
def clock() -> Clock:
    """The clock that service and emulator share."""
    return Clock()


@pytest.fixture
def world(clock: Clock, tmp_path: Path) -> Iterator[World]:
    """An emulated Entra of one's own, with a configuration for it."""
    with Emulator(clock=clock) as emulator:
        yield World(emulator, tmp_path)


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for the tests of a module, none of which changes it."""
    with Emulator() as emulator:
        yield World(emulator, tmp_path_factory.mktemp("world"))
