"""`Kubelet`: runs the pod of a rendered overlay with podman, in a network namespace of its own.

It honours what decides whether the containers can work together: users, groups, volumes with their owners,
mounts, arguments, variables, read-only roots, capabilities, memory limits. It probes nothing, orders
nothing, and knows no cluster.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from uuid import uuid4

from support.kubernetes.engine import Engine
from support.kubernetes.manifests import Container, Manifests, Object

_FETCH: Final = """
import json, sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], headers=json.loads(sys.stdin.read()))
try:
    answer = urllib.request.urlopen(request, timeout=20)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode()]))
"""


@dataclass(frozen=True, slots=True)
class Given:
    """What the cluster would give to the pod beyond its manifests.

    Attributes:
        identity: Content of the ConfigMap of identities.
        secrets: Content of each Secret by name.
        options: More options of podman by container, such as the authorities of a test.
    """

    identity: Mapping[str, str]
    secrets: Mapping[str, Mapping[str, str]]
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Kubelet:
    """One pod. A context manager: at its end the namespace and what runs in it are gone."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._namespace = f"authz-{uuid4().hex[:8]}"

    def __enter__(self) -> Self:
        subprocess.run(["ip", "netns", "add", self._namespace], check=True)
        subprocess.run(self.inside(["ip", "link", "set", "lo", "up"]), check=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.attempt("rm", "--force", "--all", "--time", "0")
        subprocess.run(["ip", "netns", "delete", self._namespace], check=True)

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return the command, to be run in the pod's network namespace."""
        return ["ip", "netns", "exec", self._namespace, *command]

    def fetch(self, url: str, **headers: str) -> tuple[int, str]:
        """Return status and body of a GET from within the pod's network namespace.

        Raises:
            ConnectionError: Nobody answers.
        """
        result = subprocess.run(
            self.inside([sys.executable, "-c", _FETCH, url]),
            input=json.dumps(headers),
            env={},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise ConnectionError(result.stderr)
        status, body = json.loads(result.stdout)
        return status, body

    def logs(self) -> str:
        """Return what the containers of the pod have printed."""
        names = self._engine.podman("ps", "--all", "--format", "{{.Names}}").split()
        outputs = [(name, self._engine.attempt("logs", name)) for name in names]
        return "\n".join(f"--- {name}\n{log.stdout}{log.stderr}" for name, log in outputs)

    def start(self, manifests: Manifests, given: Given) -> None:
        """Make the volumes, run the init containers to their end, and start the containers."""
        volumes = {
            volume["name"]: self._volume(volume, manifests, given)
            for volume in manifests.pod["volumes"]
        }
        initial = {spec["name"] for spec in manifests.pod["initContainers"]}
        for name, container in manifests.containers.items():
            if name in initial:
                self._run(name, container, manifests, given, volumes)
        for name, container in manifests.containers.items():
            if name not in initial:
                self._run(name, container, manifests, given, volumes, detach=True)

    def _run(
        self,
        name: str,
        container: Container,
        manifests: Manifests,
        given: Given,
        volumes: Mapping[str, Path],
        *,
        detach: bool = False,
    ) -> None:
        security, spec = container.security, container.spec
        options = [
            f"--name={name}",
            f"--network=ns:/run/netns/{self._namespace}",
            "--pull=never",
            "--read-only",
            "--read-only-tmpfs=false",
            "--security-opt=no-new-privileges",
            f"--user={security['runAsUser']}:{security['runAsGroup']}",
            f"--group-add={manifests.pod['securityContext']['fsGroup']}",
            f"--memory={spec['resources']['limits']['memory'].removesuffix('i').lower()}",
            *(f"--cap-drop={capability}" for capability in security["capabilities"]["drop"]),
        ]
        variables = {**container.variables, **(given.identity if "envFrom" in spec else {})}
        options += [f"--env={key}={value}" for key, value in variables.items()]
        for volume, mount in container.mounts.items():
            mode = "ro" if mount.get("readOnly") else "rw"
            options.append(f"--volume={volumes[volume]}:{mount['mountPath']}:{mode}")
        image = spec["image"] if "/" in spec["image"] else f"localhost/{spec['image']}"
        detached = ["--detach"] if detach else []
        more = given.options.get(name, ())
        self._engine.podman("run", *detached, *options, *more, image, *spec.get("args", []))

    def _volume(self, volume: Object, manifests: Manifests, given: Given) -> Path:
        folder = self._folder / str(volume["name"])
        folder.mkdir()
        group = manifests.pod["securityContext"]["fsGroup"]
        content, mode = _content(volume, manifests, given)
        for file, text in content.items():
            (folder / file).write_text(text)
            (folder / file).chmod(mode)
            os.chown(folder / file, 0, group)
        # As a real kubelet does for a pod with fsGroup.
        os.chown(folder, 0, group)
        folder.chmod(0o2777 if "emptyDir" in volume else 0o2755)
        return folder


def _content(
    volume: Mapping[str, Any], manifests: Manifests, given: Given
) -> tuple[Mapping[str, str], int]:
    if "configMap" in volume:
        return manifests.find("ConfigMap", volume["configMap"]["name"])["data"], 0o644
    if "secret" in volume:
        source = volume["secret"]
        data = given.secrets[source["secretName"]]
        return {item["path"]: data[item["key"]] for item in source["items"]}, source["defaultMode"]
    assert "emptyDir" in volume
    return {}, 0
