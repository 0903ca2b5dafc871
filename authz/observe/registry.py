"""Registries of metrics: one of this process, or one gathered from the files of several workers."""

import fcntl
import os
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    multiprocess,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict

from authz.observe.gauges import CONFIG_REFUSED, READY

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Set before the first metric is made, it makes this process write its values to files there."""

_PREFIX: Final = "authz-metrics-"
_LOCK: Final = "lock"
_ENDED: Final = "ended"
"""Stands for the process id in the files of workers that have ended."""

Registry = CollectorRegistry
_files: Final = threading.Lock()
"""While the counts of an ended worker are added to others they are there twice: nobody may read then."""
_log = structlog.get_logger(__name__)


def own_registry() -> Registry:
    """Return a registry with nothing in it but this process: `process_*` and `python_*`."""
    # A `*_created` series beside each counter and histogram: twice the series, which no query here asks for.
    # Of several workers there are none either.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    if FOLDER_VARIABLE not in os.environ:
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
    return registry


class _Processes:
    """`process_*` of several processes, each with the label `process`.

    Args:
        pids: Process ids by the value of the label.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        """Return the metrics, each once with a sample for each process. One that has ended has none."""
        found: dict[str, Metric] = {}
        for name, pid in self._pids.items():
            for metric in ProcessCollector(registry=None, pid=partial(int, pid)).collect():
                family = found.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                for sample in metric.samples:
                    family.add_sample(sample.name, {"process": name}, sample.value)
        yield from found.values()


class _Workers:
    """The metrics of workers; but for readiness and the refused configuration, which their supervisor states.

    Args:
        folder: Where workers write.
        ready: Whether every worker answers Checks.
        config_refused: Whether the supervisor cannot use the newest configuration.
    """

    def __init__(self, folder: Path, *, ready: bool, config_refused: bool) -> None:
        self._folder = folder
        self._ready = ready
        self._config_refused = config_refused

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of all workers."""
        refused = float(self._config_refused)
        files: Any = multiprocess.MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]
        with _files:
            found = list(files.collect())
        for metric in found:
            if metric.name == CONFIG_REFUSED[0]:
                # Where it can be read and not be built, only workers know.
                refused = max([refused, *(sample.value for sample in metric.samples)])
            elif metric.name != READY[0]:
                yield metric
        yield GaugeMetricFamily(*READY, value=float(self._ready))
        yield GaugeMetricFamily(*CONFIG_REFUSED, value=refused)


def gathered_registry(
    folder: Path, pids: Mapping[str, int], *, ready: bool, config_refused: bool
) -> Registry:
    """Return a registry with the values of every worker that writes to the folder, and of their processes.

    Args:
        folder: Where workers write.
        pids: Process ids, the supervisor's too, by what they are called.
        ready: Whether every worker answers Checks.
        config_refused: Whether the supervisor cannot use the newest configuration.
    """
    registry = CollectorRegistry()
    registry.register(_Processes(pids))
    PlatformCollector(registry=registry)
    registry.register(_Workers(folder, ready=ready, config_refused=config_refused))
    return registry


def forget_worker(pid: int, folder: Path) -> None:
    """Drop the files of a worker that has ended. What it counted is added to what others counted before.

    Raises:
        OSError: A file cannot be dropped.
    """
    with _files:
        for file in folder.glob(f"*_{pid}.db"):
            kind = file.name.partition("_")[0]
            if kind != "gauge":
                _add(file, folder / f"{kind}_{_ENDED}.db")
            file.unlink(missing_ok=True)


def _add(source: Path, target: Path) -> None:
    """Add the values of one file to those of another."""
    counted: Any = MmapedDict
    try:
        found = list(counted.read_all_values_from_file(str(source)))
    except (struct.error, RuntimeError, ValueError) as error:
        # Its worker was killed while it made the file.
        _log.error("metrics of a worker are lost", file=source.name, cause=type(error).__name__)
        return
    values: Any = MmapedDict(str(target))  # type: ignore[no-untyped-call]
    try:
        for key, value, timestamp, _ in found:
            before, _ = values.read_value(key)
            values.write_value(key, before + value, timestamp)
    finally:
        values.close()


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """Make a folder for the files of workers, gone after the block. Folders of killed processes go first."""
    for old in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_abandoned(old)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # Held as long as this process lives; workers do not inherit it.
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder


def _remove_abandoned(folder: Path) -> None:
    # Another user's cannot be opened.
    with suppress(OSError), (folder / _LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
