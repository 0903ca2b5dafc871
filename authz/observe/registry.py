"""Registries of metrics: one of this process, or one gathered from the files of several workers."""

from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, multiprocess

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Set before the first metric is made, it makes this process write its values to files there."""

Registry = CollectorRegistry


def own_registry() -> Registry:
    """Return an empty registry."""
    return CollectorRegistry()


def gathered_registry(folder: Path) -> Registry:
    """Return a registry with the values of every worker that writes to the folder."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return registry


def forget_worker(pid: int, folder: Path) -> None:
    """Drop the gauges of a worker that has ended; what it counted stays."""
    multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
