"""`Demo`: the Entra SDK sidecar's demo without a cluster, and the commands of docs/walk-through.md run on it.

The script runs with stand-ins for kind, docker and kubectl (`kind`); what it applied runs on a `Node`. There
`kubectl exec` is podman's; `kubectl get po` is for a real node.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from authz_dev.emulator import default_directory
from authz_dev.emulator.description import describe_tenants
from support.kubernetes.engine import Engine
from support.kubernetes.kind import Kind, publish
from support.kubernetes.laptop import checkout
from support.kubernetes.manifests import ROOT
from support.kubernetes.node import Node
from support.programs.transcript import Step, run, steps_of

PAGE: Final = ROOT / "docs/walk-through.md"
CLUSTER: Final = "entra-desktop"
_TENANT: Final = describe_tenants(default_directory(1))[0]
BLUEPRINT: Final = _TENANT["blueprints"][0]["client_id"]
AGENT: Final = _TENANT["blueprints"][0]["agents"][0]["client_id"]
ALICE: Final = _TENANT["users"][0]["object_id"]

_ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
_KEY: Final = {
    "use": "sig",
    "kty": "RSA",
    "kid": "cluster",
    "alg": "RS256",
    "n": "sXch",
    "e": "AQAB",
}
_PATIENCE: Final = 90.0
_EXEC: Final = """\
import os, sys
prefixes, arguments = {prefixes!r}, sys.argv[1:]
assert arguments[0] == "exec" and "deploy/demo-app" in arguments, arguments
container = arguments[arguments.index("-c") + 1]
command = arguments[arguments.index("--") + 1:]
os.execvp(prefixes[container][0], [*prefixes[container], *command])
"""


def part(title: str) -> list[Step]:
    """Return the commands of a section of the page."""
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    return steps_of(section)


class Demo:
    """The running pods, and what the commands of a section have printed.

    Attributes:
        node: Where they run.
        steps: The commands.
        outputs: What each has printed.
    """

    TOKENS: ClassVar = (
        "/AuthorizationHeaderUnauthenticated/graph",
        "/AuthorizationHeaderUnauthenticated/graph?AgentIdentity=",
        "/AuthorizationHeader/graph?optionsOverride.RequestAppToken=false",
    )
    """Words of the commands that print a token."""
    GRAPH: ClassVar = "http://graph.entra-emulator.svc.cluster.local"

    def __init__(self, node: Node, steps: list[Step], outputs: list[str]) -> None:
        self.node = node
        self.steps = steps
        self.outputs = outputs

    def output(self, word: str) -> str:
        """Return what the first command with a word has printed."""
        for step, output in zip(self.steps, self.outputs, strict=True):
            if word in step.command:
                return output
        raise AssertionError(f"no command has {word}")

    def app(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container `app`."""
        return self.node.within("demo-app", "app", *argv)

    def graph(self) -> list[dict[str, Any]]:
        """Return the claims of the tokens that Graph has seen, oldest first."""
        url = "https://login.entra-emulator.svc.cluster.local/emulator/graph"
        found: list[dict[str, Any]] = json.loads(self.app("curl", "--silent", url).stdout)
        return found


@contextmanager
def deployed(engine: Engine, kubectl: str, folder: Path, title: str) -> Iterator[Demo]:
    """Run the commands of a section of the page; the pods run until the end of the block."""
    deploying, *steps = [step for step in part(title) if "kubectl get" not in step.command]
    folder.mkdir()
    root = checkout(folder / "checkout")
    publish(folder / "issuer", {"issuer": _ISSUER, "jwks_uri": f"{_ISSUER}/keys"}, [_KEY])
    kind = Kind(folder / "stand-ins", kubectl, folder / "issuer", context=f"kind-{CLUSTER}")
    if "--transparent" in deploying.command:
        # On the page it is there already.
        first = kind.run(root / "kubernetes/client-secret/deploy.sh", "--emulator")
        assert first.returncode == 0, first.stderr
    environ = {"PATH": f"{kind.path}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
    outputs = run([deploying], folder=root, environ=environ, within=["sh", "-c"])
    applied = [kind.applied(namespace) for namespace in ("entra-emulator", "entra-demo")]
    (volumes := folder / "volumes").mkdir()
    with Node(engine, volumes, {30443: 8443}) as node:
        node.run(applied, {})
        _wait_until_ready(node)
        names = applied[1].containers
        prefixes = {name: node.entering("demo-app", name) for name in names}
        stand_in = kind.path / "kubectl"
        stand_in.write_text(f"#!{sys.executable}\n{_EXEC.format(prefixes=prefixes)}")
        outputs += run(steps, folder=root, environ=environ, within=["sh", "-c"])
        yield Demo(node, [deploying, *steps], outputs)


def _wait_until_ready(node: Node) -> None:
    """Ask as the kubelet's probes do: the sidecar's API, or its administration where it has none."""
    address, deadline = node.address("demo-app"), time.monotonic() + _PATIENCE
    probes = [f"http://{address}:5000/healthz", f"http://{address}:9902/readyz"]
    while True:
        for url in probes:
            asked = node.command("curl", "--silent", "--fail", "--max-time", "5", url)
            if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
                return
        assert time.monotonic() < deadline, "\n".join(node.logs("demo-app").values())[-6000:]
