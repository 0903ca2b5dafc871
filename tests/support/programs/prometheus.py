"""A real Prometheus for tests: on a free loopback port, its data in the test's folder, ended by its pid."""

import re
import shutil
import subprocess
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

import httpx
import pytest
import yaml

from support.kubernetes.monitoring import envoys_parameters, write_rules

_PATIENCE: Final = 20.0
_LISTENING: Final = re.compile(r'msg="Listening on" address=(127\.0\.0\.1:\d+)')


class Prometheus:
    """A Prometheus that scrapes one service and evaluates the shipped rules, as a context manager.

    It gives the target the labels that the operator would.

    Args:
        target: `host:port` of the service's admin endpoint.
        folder: For its configuration and its data.
        every: Time between scrapes, and between evaluations.
        envoy: `host:port` of the statistics of the Envoy beside it, where there is one.
    """

    def __init__(
        self, target: str, folder: Path, every: str = "500ms", envoy: str | None = None
    ) -> None:
        self._folder = folder / "prometheus"
        self._folder.mkdir()
        labels = {"namespace": "agents", "pod": "agent-1", "container": "authz"}
        envoys = {
            "job_name": "authz-envoy",
            "metrics_path": "/stats/prometheus",
            "params": envoys_parameters(),
            "static_configs": [{"targets": [envoy], "labels": {**labels, "container": "envoy"}}],
        }
        document = {
            "global": {
                "scrape_interval": every,
                "scrape_timeout": every,
                "evaluation_interval": every,
            },
            "rule_files": [str(write_rules(self._folder))],
            "scrape_configs": [
                {"job_name": "authz", "static_configs": [{"targets": [target], "labels": labels}]},
                *([] if envoy is None else [envoys]),
            ],
        }
        self._config = self._folder / "prometheus.yml"
        self._config.write_text(yaml.safe_dump(document))
        self._log = self._folder / "log"

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    installed("prometheus"),
                    f"--config.file={self._config}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._http = httpx.Client(base_url=f"http://{self._address()}", trust_env=False)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()
        self._end()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query, without those that are no number."""
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return [sample for sample in found if sample["value"][1] != "NaN"]

    def values(self, label: str, series: str) -> list[str]:
        """Return the values that a label has in some series."""
        found: list[str] = self._get(f"label/{label}/values", **{"match[]": series})
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule with its state."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> Any:
        answer = self._http.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def _address(self) -> str:
        """Wait until it answers; return where."""
        end = monotonic() + _PATIENCE
        while True:
            said = self._log.read_text()
            assert self._process.poll() is None, f"ended early:\n{said}"
            assert monotonic() < end, f"not ready:\n{said}"
            found = _LISTENING.search(said)
            if found is not None and _answers(found[1]):
                return found[1]

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def installed(program: str) -> str:
    """Return the path of a program of the package; the test is skipped where there is none."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"not installed: {program} (package prometheus)")
    return found


def _answers(address: str) -> bool:
    try:
        answer = httpx.get(f"http://{address}/-/ready", trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200
