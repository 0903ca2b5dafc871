"""Fixtures for tests of the running program."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.programs.stack import Process, World
from support.programs.token_api import Sidecar, environment


@pytest.fixture
def write(world: World) -> Callable[..., Path]:
    """Write the world's configuration to its file, with sections changed."""

    def write_config(document: dict[str, Any] | None = None, **changes: Any) -> Path:
        file = world.folder / "authz.yaml"
        fresh = world.folder / "authz.yaml.new"
        fresh.write_text(yaml.dump(document or world.config(**changes), Dumper=_NoAliases))
        fresh.replace(file)
        return file

    return write_config


@pytest.fixture
def serve(write: Callable[..., Path]) -> Iterator[Callable[..., Process]]:
    """Start `authz serve` with the world's configuration; ended after the test."""
    running: list[Process] = []

    def start(document: dict[str, Any] | None = None, **changes: Any) -> Process:
        process = Process("serve", "--config", str(write(document, **changes)))
        running.append(process)
        return process.wait_ready()

    yield start
    for process in running:
        process.close()


@pytest.fixture
def start(world: World) -> Iterator[Callable[..., Sidecar]]:
    """Start the service with the walk-through's keys, changed; ended after the test."""
    running: list[Sidecar] = []

    def run(**more: str) -> Sidecar:
        # No two share a socket.
        address = f"unix:{world.folder}/authz-{len(running)}.sock"
        variables = environment(world, **{"AUTHZ_LISTEN_GRPC": address, **more})
        sidecar = Sidecar(Process("serve", environ=variables))
        running.append(sidecar)
        return sidecar

    yield run
    for sidecar in running:
        sidecar.http.close()
        sidecar.process.close()


class _NoAliases(yaml.SafeDumper):
    """Writes every value out: the configuration takes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Alias nothing."""
        return True
