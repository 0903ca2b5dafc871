"""`Cluster`: a stand-in for kubectl that renders with the real one and writes down what else it is told.

It answers as a cluster would that accepts everything; nothing is stored.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

_STAND_IN = """\
#!{python}
# Renders with the real kubectl. Of other calls it records arguments, input and environment.
import json, os, subprocess, sys
arguments = sys.argv[1:]
if arguments[0] == "kustomize":
    sys.exit(subprocess.run([{kubectl!r}, *arguments]).returncode)
if arguments == ["config", "current-context"]:
    print("stand-in")
    sys.exit()
reads = "-" in arguments or "--from-file=client-secret=/dev/stdin" in arguments
given = sys.stdin.read() if reads else ""
record = {{"arguments": arguments, "input": given, "environ": dict(os.environ)}}
with open({log!r}, "a") as log:
    log.write(json.dumps(record) + "\\n")
if arguments[:2] == ["create", "secret"]:
    print("kind: Secret")
if arguments[:2] == ["get", "namespace"]:
    sys.exit({namespace_missing})
if arguments[:2] == ["get", "--raw"]:
    print('{{"issuer":"https://issuer.example/cluster","jwks_uri":"https://issuer.example/keys"}}')
if arguments[:2] == ["rollout", "status"]:
    sys.exit({rollout_fails})
"""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the stand-in for kubectl."""

    arguments: list[str]
    input: str
    environ: dict[str, str]


class Cluster:
    """A folder for PATH whose `kubectl` speaks to no cluster and writes down what it was told."""

    def __init__(
        self, folder: Path, kubectl: str, *, namespace_exists: bool = False, ready: bool = True
    ) -> None:
        self.path = folder / "bin"
        self.path.mkdir()
        self._log = folder / "calls"
        stand_in = self.path / "kubectl"
        stand_in.write_text(
            _STAND_IN.format(
                python=sys.executable,
                kubectl=kubectl,
                log=str(self._log),
                namespace_missing=int(not namespace_exists),
                rollout_fails=int(not ready),
            )
        )
        stand_in.chmod(0o755)

    @property
    def calls(self) -> list[Call]:
        """What it was told, in order."""
        if not self._log.exists():
            return []
        # In a pipe, two calls are under way at once; each writes one line.
        return [Call(**json.loads(line)) for line in self._log.read_text().splitlines()]

    def call(self, *start: str) -> Call:
        """Return the one call whose arguments begin so."""
        (found,) = [call for call in self.calls if call.arguments[: len(start)] == list(start)]
        return found
