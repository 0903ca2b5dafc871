"""A pod with an ordinary agent in it, as manifests make it, and a caller outside."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, Final

from support.kubernetes.manifests import Manifests
from support.kubernetes.namespaces import POD
from support.kubernetes.redirected import AGENT, RedirectedPod
from support.peers.ordinary_apis import CHAT, COLLECTOR, HOSTS, MODEL, PUBLIC, TOOLS

_ROUTES: Final = f"""
egress:
  services:
    flow: none
    hosts: ["http://{TOOLS[0]}:{TOOLS[1]}", "http://{COLLECTOR[0]}:{COLLECTOR[1]}",
            "http://{CHAT[0]}:{CHAT[1]}"]
  model: {{flow: none, hosts: [{MODEL}]}}
"""
_PATIENCE: Final = 10.0
_NEVER: Final = Event()
_TESTS: Final = Path(__file__).parents[2]
_TRUST: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


class OrdinaryPod(RedirectedPod):
    """The pod; Envoy and agent are started by `envoy` and `agent`.

    Args:
        manifests: An overlay, perhaps with components.
        folder: For files of the pod; every user must be able to read it.
    """

    def __init__(self, manifests: Manifests, folder: Path) -> None:
        super().__init__(
            manifests,
            folder,
            hosts=HOSTS,
            outside="support.peers.ordinary_apis",
            changes={"\negress:\n": _ROUTES},
            options=("--websockets", "egress"),
        )

    @contextmanager
    def agent(self) -> Iterator[None]:
        """Run the agent with its user and the variables of its container."""
        container = self._manifests.containers[AGENT]
        # What a machine's own store is elsewhere.
        public = dict.fromkeys(_TRUST, str(self._folder / PUBLIC))
        environ = {**public, **container.variables, **self._files_of(AGENT)}
        program = [
            sys.executable,
            "-m",
            "uvicorn",
            "support.peers.ordinary_agent:app",
            "--port",
            "8000",
        ]
        command = self.pod.command(program, self.users[AGENT])
        with (self._folder / "agent.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(_TESTS), **environ},
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_for("http://127.0.0.1:8000/healthz", AGENT)
            yield
        finally:
            process.kill()
            process.wait()

    def ask(self, path: str) -> dict[str, Any]:
        """Call the agent as a user does, from outside, and return its answer."""
        url = f"http://{POD[0]}:8080{path}"
        user = ("--header", f"Authorization: Bearer {self.token}")
        done = self.outside.run("curl", "--silent", "--max-time", "50", *user, url)
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise AssertionError(done.stdout + self.log("envoy") + self.log(AGENT)) from None
        return found

    def reason(self, host: str) -> str:
        """Return why Envoy's log says that a host was refused, once it does."""
        deadline = monotonic() + _PATIENCE
        while monotonic() < deadline:
            # The last line may still be half written.
            lines = [line for line in self.log("envoy").split("\n")[:-1] if line.startswith("{")]
            for entry in map(json.loads, lines):
                if entry.get("host") == host and "reason" in entry:
                    return str(entry["reason"])
            _NEVER.wait(0.02)
        raise TimeoutError(self.log("envoy"))
