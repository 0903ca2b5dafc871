"""`Kind`: stand-ins for kind, docker, kubectl and curl, with which `kubernetes/kind/up.sh` runs to its end.

Nothing is made: what the script applies is remembered, as by a cluster that accepts everything, and can be
looked up again. Rendering, and objects made from files, are the real kubectl's; keys and certificates the
real openssl's.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from authz_dev.emulator import default_directory
from authz_dev.emulator.description import describe_tenants
from support.kubernetes.manifests import Manifests

_KUBECTL: Final = """\
import base64, json, os, pathlib, re, subprocess, sys, yaml, zlib
arguments = sys.argv[1:]
folder = pathlib.Path({folder!r})
given = ""
if "-" in arguments or any(a.endswith("/dev/stdin") for a in arguments):
    given = sys.stdin.read()
record = {{"tool": "kubectl", "arguments": arguments, "input": given, "environ": dict(os.environ)}}
with open(folder / "calls", "a") as log:
    log.write(json.dumps(record) + "\\n")
if arguments[0] == "--context":
    arguments = arguments[2:]
option = lambda name: arguments[arguments.index(name) + 1]
stored = folder / "objects"
if arguments[0] == "kustomize" or "--dry-run=client" in arguments:
    made = subprocess.run([{kubectl!r}, *arguments], input=given, text=True)
    sys.exit(made.returncode)
if {silent!r} and arguments[0] not in ("kustomize", "config"):
    sys.exit("The connection to the server 127.0.0.1:6443 was refused")
if arguments == ["config", "current-context"]:
    print({context!r}) if {context!r} else sys.exit("no context")
if arguments[0] in ("apply", "create"):
    text = given or pathlib.Path(option("--filename")).read_text()
    for item in yaml.safe_load_all(text):
        name = item["metadata"]["name"]
        namespace = item["metadata"].get("namespace") or (
            option("--namespace") if "--namespace" in arguments else "none"
        )
        file = stored / f"{{namespace}}+{{item['kind'].lower()}}+{{name}}"
        before, now = file.read_text() if file.exists() else None, yaml.safe_dump(item)
        file.write_text(now)
        verb = "created" if before is None else "unchanged" if before == now else "configured"
        verb = "serverside-applied" if "--server-side" in arguments else verb
        group = item["apiVersion"].partition("/")[0] if "/" in item["apiVersion"] else ""
        print(f"{{item['kind'].lower()}}{{group and '.'}}{{group}}/{{name}} {{verb}}")
if arguments[:2] == ["get", "--raw"]:
    file = folder / "issuer" / arguments[2].lstrip("/")
    sys.exit("no such document") if not file.exists() else print(file.read_text())
elif arguments[0] == "get":
    file = stored / f"{{option('--namespace')}}+{{arguments[1]}}+{{arguments[2]}}"
    if arguments[1] == "namespace":
        file = next(stored.glob(f"*+namespace+{{arguments[2]}}"), file)
    if not file.exists():
        sys.exit(0 if "--ignore-not-found" in arguments else "not found")
    if "jsonpath={{.metadata.resourceVersion}}" in arguments:
        print(zlib.crc32(file.read_bytes()), end="")
    elif "jsonpath={{.metadata.name}}/{{.status.phase}}" in arguments:
        gone = (folder / "going").exists() and arguments[2] in (folder / "going").read_text().split()
        print(arguments[2], "Terminating" if gone else "Active", sep="/", end="")
    elif "--output" in arguments:
        key = re.fullmatch(r"jsonpath=\\{{\\.data\\.(.*)\\}}", option("--output"))[1].replace("\\\\", "")
        print(yaml.safe_load(file.read_text())["data"][key], end="")
if arguments[0] == "wait":
    going = folder / "going"
    going.write_text(going.read_text().replace(arguments[2], ""))
    for pattern in (arguments[2] + "+*", "*+namespace+" + arguments[2]):
        for file in stored.glob(pattern):
            file.unlink()
if arguments[0] == "exec":
    print((folder / "emulator.json").read_text())
if arguments[:2] == ["rollout", "status"]:
    sys.exit(arguments[2] in json.loads((folder / "broken").read_text()))
"""

_OTHER: Final = """\
import json, os, pathlib, sys
folder, tool, arguments = pathlib.Path({folder!r}), {tool!r}, sys.argv[1:]
given = sys.stdin.read() if "@-" in arguments else ""
record = {{"tool": tool, "arguments": arguments, "input": given, "environ": dict(os.environ)}}
with open(folder / "calls", "a") as log:
    log.write(json.dumps(record) + "\\n")
clusters = folder / "clusters"
match [tool, *arguments]:
    case ["docker", "info"]:
        sys.exit({docker_fails})
    case ["docker", "image", "inspect", *_]:
        print("sha256:" + "a" * 64)
    case ["kind", "get", "clusters"]:
        print(clusters.read_text() if clusters.exists() else "", end="")
    case ["kind", "create", "cluster", *_]:
        clusters.write_text("authz\\n")
    case ["curl", *_] if arguments[-1].endswith("/mint"):
        print('{{"access_token":"{token}"}}')
    case ["curl", *_]:
        print("answer of " + arguments[-1])
"""

TOKEN: Final = "a-users-token"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a stand-in."""

    tool: str
    arguments: list[str]
    input: str
    environ: dict[str, str]


class Kind:
    """A folder for PATH with the stand-ins, and what they were told.

    Args:
        folder: Where everything is kept.
        kubectl: The real one.
        issuer: Folder with the documents that the cluster publishes.
        tools: The stand-ins to make.
        broken: Deployments that do not get ready, as `deployment/NAME`.
        docker_answers: Whether docker's daemon does.
        context: The current context of kubectl; empty where there is none.
        silent: Whether the cluster does not answer.
    """

    def __init__(
        self,
        folder: Path,
        kubectl: str,
        issuer: Path,
        *,
        tools: Sequence[str] = ("docker", "kind", "kubectl", "curl"),
        broken: Sequence[str] = (),
        docker_answers: bool = True,
        context: str = "kind-authz",
        silent: bool = False,
    ) -> None:
        self._folder = folder
        self.path = folder / "bin"
        for made in (self.path, folder / "objects"):
            made.mkdir(parents=True)
        (folder / "issuer").symlink_to(issuer)
        (folder / "broken").write_text(json.dumps(list(broken)))
        tenants = describe_tenants(default_directory(1))
        (folder / "emulator.json").write_text(json.dumps({"tenants": tenants}, indent=2))
        for tool in tools:
            text = _KUBECTL if tool == "kubectl" else _OTHER
            (self.path / tool).write_text(
                f"#!{sys.executable}\n"
                + text.format(
                    folder=str(folder),
                    kubectl=kubectl,
                    tool=tool,
                    token=TOKEN,
                    context=context,
                    silent=silent,
                    docker_fails=int(not docker_answers),
                )
            )
            (self.path / tool).chmod(0o755)

    def run(
        self, script: Path, *arguments: str | Path, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script with the stand-ins before all other programs."""
        search = os.pathsep.join([str(self.path), os.environ["PATH"]])
        return subprocess.run(
            # A test may have been started in the background, where ^C is ignored, by its children too.
            ["/usr/bin/env", "--default-signal=INT", script, *arguments],
            env={"PATH": search, "HOME": str(self._folder), **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def calls(self) -> list[Call]:
        """What the stand-ins were told, in order."""
        log = self._folder / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        return [Call(**json.loads(line)) for line in lines]

    def being_deleted(self, *namespaces: str) -> None:
        """Let namespaces be on their way out until somebody waits for it."""
        (self._folder / "going").write_text(" ".join(namespaces))

    def told(self, *words: str) -> list[Call]:
        """Return the calls whose tool and arguments have all of these words."""
        return [call for call in self.calls if {*words} <= {call.tool, *call.arguments}]

    def applied(self, namespace: str) -> Manifests:
        """Return the objects of a namespace, as they were applied last."""
        files = sorted((self._folder / "objects").glob(f"{namespace}+*"))
        return Manifests(tuple(yaml.safe_load(file.read_text()) for file in files))


def publish(
    folder: Path, metadata: Mapping[str, object], keys: Sequence[Mapping[str, object]]
) -> None:
    """Write the two documents of an issuer, as an API server answers with them."""
    for path, document in (
        (".well-known/openid-configuration", metadata),
        ("openid/v1/jwks", {"keys": list(keys)}),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(document, separators=(",", ":")))
