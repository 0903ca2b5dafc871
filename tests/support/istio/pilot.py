"""`Pilot`: Istio's real control plane on loopback, fed from a real API server.

It is found as the API server is, by a variable; the templates of its injector are found by another one. What
is asked of it is the business of `tests/cluster/istio`.
"""

import base64
import json
import os
import subprocess
from pathlib import Path
from threading import Event
from time import monotonic
from types import TracebackType
from typing import Final, Self

import httpx
import yaml

from support.kubernetes.manifests import Object
from support.proxy.envoy import free_port

PROGRAM: Final = "pilot-discovery"
CHART: Final = "TEST_ASSET_ISTIO_CHART"
"""The variable of a folder: Istio's chart `istio-discovery`, of the same version."""
NAMESPACE: Final = "istio-system"
_PATIENCE: Final = 60.0
_END_PATIENCE: Final = 15.0
_PAUSE: Final = 0.1
_FEATURES: Final = {
    # Filters that only Istio's own build of Envoy has. They tell proxies of the mesh about each other and
    # choose ALPN between them; nothing of ours depends on them.
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    # Certificates come from the stand-in for the proxy's agent.
    "ENABLE_CA_SERVER": "false",
    # There is no webhook of Istio's in this cluster.
    "INJECTION_WEBHOOK_CONFIG_NAME": "",
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
}


def find_chart() -> Path | None:
    """Return the folder of Istio's chart, if the variable names it."""
    named = os.environ.get(CHART)
    return Path(named) if named else None


class Pilot:
    """A running pilot-discovery, as a context manager.

    Args:
        program: Its file.
        folder: For its log and configuration.
        kubeconfig: How it reaches the API server, as an administrator.
        mesh_config: Istio's mesh configuration.

    Attributes:
        address: `host:port` of its discovery service, without TLS.
    """

    def __init__(self, program: Path, folder: Path, kubeconfig: Path, mesh_config: Object) -> None:
        self._program = program
        self._folder = folder
        self._kubeconfig = kubeconfig
        self._mesh_config = folder / "mesh.yaml"
        self.configure(mesh_config)
        self.address = f"127.0.0.1:{free_port()}"
        self._http = f"127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._write_injector()
        command = [
            *(str(self._program), "discovery"),
            f"--kubeconfig={self._kubeconfig}",
            f"--meshConfig={self._mesh_config}",
            f"--namespace={NAMESPACE}",
            f"--grpcAddr={self.address}",
            f"--httpAddr={self._http}",
            f"--monitoringAddr=127.0.0.1:{free_port()}",
            f"--ctrlz_port={free_port()}",
            *("--httpsAddr=", "--secureGRPCAddr=", "--keepaliveMaxServerConnectionAge=1h"),
        ]
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "POD_NAME": "istiod",
            "POD_NAMESPACE": NAMESPACE,
            **_FEATURES,
        }
        with (self._folder / "pilot.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=environ, stdout=log, stderr=log
            )
        try:
            self._wait()
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
        self._end()

    def configure(self, mesh_config: Object) -> None:
        """Write the mesh configuration, which a running pilot reads again."""
        file = self._folder / "mesh.yaml.new"
        file.write_text(yaml.safe_dump(mesh_config))
        file.replace(self._mesh_config)

    def debug(self, path: str) -> httpx.Response:
        """Return an answer of pilot's debugging interface."""
        return httpx.get(f"http://{self._http}/debug/{path}", trust_env=False).raise_for_status()

    def inject(self, namespace: str, pod: Object) -> Object:
        """Return the pod as the injector changes it when it is created."""
        request = {"uid": "1", "namespace": namespace, "operation": "CREATE", "object": pod}
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        answer = httpx.post(
            f"http://{self._http}/inject", json={**review, "request": request}, trust_env=False
        )
        response = answer.raise_for_status().json()["response"]
        assert response["allowed"], response
        patch = base64.b64decode(response["patch"]).decode()
        patched = subprocess.run(
            [
                "kubectl",
                "patch",
                "--local",
                "--type=json",
                "--filename=-",
                "--output=json",
                "-p",
                patch,
            ],
            input=json.dumps(pod),
            capture_output=True,
            text=True,
            check=True,
        )
        found: Object = json.loads(patched.stdout)
        return found

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return (self._folder / "pilot.log").read_text(errors="replace")

    def _write_injector(self) -> None:
        """Write what the injector reads: the chart's template, and its values with the CNI plugin."""
        chart = find_chart()
        if chart is None:
            return
        values = yaml.safe_load((chart / "values.yaml").read_text())
        # The chart keeps its defaults apart from what an operator sets.
        values = values.get("_internal_defaults_do_not_set", values)
        values["pilot"] = {
            **values.get("pilot", {}),
            "cni": {"enabled": True, "provider": "default"},
        }
        template = (chart / "files" / "injection-template.yaml").read_text()
        config = {
            "policy": "enabled",
            "defaultTemplates": ["sidecar"],
            "templates": {"sidecar": template},
        }
        folder = self._folder / "var/lib/istio/inject"
        folder.mkdir(parents=True)
        (folder / "config").write_text(yaml.safe_dump(config))
        (folder / "values").write_text(json.dumps(values))

    def _wait(self) -> None:
        assert self._process is not None
        end, pause = monotonic() + _PATIENCE, Event()
        while not self._is_ready():
            assert self._process.poll() is None, f"pilot ended early:\n{self.log[-4000:]}"
            assert monotonic() < end, f"pilot is not ready:\n{self.log[-4000:]}"
            pause.wait(_PAUSE)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://{self._http}/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _end(self) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(_END_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
