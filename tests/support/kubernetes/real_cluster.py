"""`RealCluster`: what a person has after `kubernetes/kind/up.sh`, with a real node.

The script runs whole: real are kubectl, the control plane, the node and its pods; stand-ins are kind, docker,
the ports that docker maps, and DNS. `laptop` has the same without a cluster.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from support.kubernetes.apiserver import ApiServer
from support.kubernetes.images import AUTHZ, DEVELOPMENT
from support.kubernetes.kind import Kind
from support.kubernetes.laptop import checkout
from support.kubernetes.machine import ADDRESS, Machine
from support.kubernetes.manifests import Object
from support.kubernetes.sidecar_demo import CLUSTER
from support.kubernetes.worker import CONTROLLERS, Worker
from support.programs.transcript import Step, run

_ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
_MINT: Final = "https://login.entra-emulator.svc.cluster.local/emulator/mint"
_PORTS: Final = {8080: 30080, 8443: 30443, 8444: 30444}
_PODS: Final = "/api/v1/namespaces/agent/pods"
_PATIENCE: Final = 240.0


@dataclass(frozen=True, slots=True)
class RealCluster:
    """The cluster, and what the script has printed.

    Attributes:
        server: Its API server.
        output: What `up.sh` has printed.
        authority: Certificate of the authority that the script has made.
        checkout: Where the scripts are.
        environ: Variables for a person's commands.
    """

    server: ApiServer
    output: str
    authority: Path
    checkout: Path
    environ: Mapping[str, str]

    def run(self, steps: Sequence[Step]) -> list[str]:
        """Run commands of a page as a person does, with the walk-through's cluster as the current context."""
        shell = self.server.command("sh", "-c")
        return run(steps, folder=self.checkout, environ=self.environ, within=shell)

    def pod(self) -> Object:
        """Return the agent's pod that is to stay."""
        (found,) = [
            item
            for item in self.server.get(_PODS)["items"]
            if "deletionTimestamp" not in item["metadata"]
        ]
        return dict(found)

    def within(self, container: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container of the agent's pod."""
        where = ["--namespace=agent", self.pod()["metadata"]["name"], f"--container={container}"]
        return self.server.kubectl("exec", *where, "--", *argv)

    def mint(self, user: str) -> str:
        """Return a token that a user was given for the agent."""
        options = ["--cacert", str(self.authority), "--connect-to", "::127.0.0.1:8443"]
        body = json.dumps({"user": f"{user}@contoso.example"})
        token: str = json.loads(self.curl(*options, "--data", body, _MINT))["access_token"]
        return token

    def curl(self, *arguments: str | Path) -> str:
        """Run curl in the cluster's network, and return what it prints."""
        command = self.server.command("curl", "--silent", "--fail", *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def last_state(self, pod: str) -> Object:
        """Wait until a pod is gone, and return what it was at its end."""
        asked = {"watch": "1", "fieldSelector": f"metadata.name={pod}", "timeoutSeconds": "90"}
        with self.server.http.stream("GET", _PODS, params=asked) as answer:
            for line in answer.iter_lines():
                event: dict[str, Any] = json.loads(line)
                if event["type"] == "DELETED":
                    return dict(event["object"])
        raise AssertionError(f"{pod} did not end")


@contextmanager
def up(archive: Path, folder: Path) -> Iterator[RealCluster]:
    """Make a cluster of one node, and run the script.

    Args:
        archive: Has the images.
        folder: Its path must be short, and every user must be able to read it.
    """
    for name in ("machine", "server", "worker"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        machine = stack.enter_context(Machine(folder / "machine"))
        server = stack.enter_context(
            ApiServer(
                folder / "server",
                issuer=_ISSUER,
                controllers=True,
                more=CONTROLLERS,
                machine=machine,
            )
        )
        worker = stack.enter_context(Worker(server, machine, folder / "worker"))
        worker.load(archive, [AUTHZ, DEVELOPMENT])
        worker.wait_until_ready()
        pairs = [(f"127.0.0.1:{near}", f"{ADDRESS}:{far}") for near, far in _PORTS.items()]
        addresses = [address for pair in pairs for address in pair]
        server.start(stack, "ports", sys.executable, "-m", "support.peers.relay", *addresses)
        script = checkout(folder / "checkout") / "kubernetes/kind/up.sh"
        environ = _environ(server, folder)
        done = subprocess.run(
            machine.command([script, "workload-identity"]),
            env=environ,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        authority = script.with_name(".up") / "ca.crt"
        yield RealCluster(server, done.stdout, authority, folder / "checkout", environ)


def _environ(server: ApiServer, folder: Path) -> dict[str, str]:
    """Return the script's variables: stand-ins before all programs, and a context that is named as kind's."""
    kubectl = shutil.which("kubectl")
    assert kubectl is not None
    kind = Kind(folder / "stand-ins", kubectl, folder, tools=("docker", "kind"))
    config = yaml.safe_load(server.kubeconfig().read_text())
    # One cluster by two names: that of `up.sh`, and that of the walk-through, which a person has chosen.
    (context,) = config["contexts"]
    config["current-context"] = f"kind-{CLUSTER}"
    config["contexts"] = [{**context, "name": f"kind-{name}"} for name in ("authz", CLUSTER)]
    (file := folder / "kubeconfig").write_text(yaml.safe_dump(config))
    search = os.pathsep.join([str(kind.path), os.environ["PATH"]])
    return {"PATH": search, "HOME": str(folder), "KUBECONFIG": str(file)}
