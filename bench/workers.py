"""Throughput of Checks by worker processes: `listen.workers` on a TCP port, with every core for everyone."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from authz_dev.demo.processes import free_ports
from bench.checks import answer_bytes, request, target
from bench.documents import DELEGATED
from bench.machine import pinned
from bench.programs import Measured, wait
from bench.rows import Effort, Lane, Row, measure
from bench.scene import Scene

_CONNECTIONS: Final = 32
"""As from as many Envoys: the kernel spreads connections over the workers, not calls."""


def name(workers: int) -> str:
    """Return the row's name."""
    return f"workers_{workers}"


def counts(cores: int) -> list[int]:
    """Return the numbers of workers to try: doubled, up to the cores."""
    found = [1]
    while found[-1] * 2 <= cores:
        found.append(found[-1] * 2)
    return found


def ratios(rows: Mapping[str, Row]) -> dict[str, tuple[str, str]]:
    """Return which rows to compare: each with that of a single worker."""
    first = name(1)
    return {f"{row}_vs_1": (row, first) for row in rows if row != first}


def throughput(
    scene: Scene, effort: Effort, *, announce: Callable[[str], None] = lambda _: None
) -> dict[str, Row]:
    """Measure each number of workers, in alternating rounds.

    Raises:
        LoadError: A Check was denied.
    """
    known = request("egress", DELEGATED, scene.user_token)
    started: list[tuple[int, str, Measured]] = []
    for workers in counts(len(scene.cores.everything)):
        grpc, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
        listen = {"grpc": grpc, "admin": admin, "workers": workers}
        config: dict[str, Any] = {**scene.config, "listen": listen}
        program = scene.serve(name(workers), config, cores=scene.cores.everything)
        started.append((workers, grpc, program))
    programs = [program for _, _, program in started]
    try:
        wait(programs)
        lanes = [
            Lane(
                name(workers),
                replace(target(address, known), connections=_CONNECTIONS),
                server=program,
                answer_bytes=answer_bytes(address, known),
            )
            for workers, address, program in started
        ]
        with pinned(scene.cores.everything):
            return measure(lanes, effort, announce=announce, between=scene.forget_logs)
    finally:
        scene.stop(*programs)
