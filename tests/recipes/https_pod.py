"""Runs unmodified clients where the API's names lead to Envoy, and prints what came of it.

A program of its own, started in network and mount namespaces of its own: `unshare --net --mount`. There the
names lead to loopback, Envoy has port 443, and nothing can leave.

    python https_pod.py FOLDER PYTHON NODE [JAVA]
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from authz.config.reading.document import parse
from authz_dev.emulator import Emulator
from recipes.agents import APPS
from support.peers.models_api import ModelsApi
from support.programs.stack import Process, World
from support.proxy.sidecar import Authority, Sidecar

CHECKED: Final = "models.example"
"""Each call is asked about."""
PUSHED: Final = "pushed.example"
"""Envoy has the token."""
LARGE: Final = 64 * 1024**2
_FILES: Final = {
    "ca_file": "ca.pem",
    "bundle_file": "bundle.pem",
    "truststore_file": "truststore.p12",
    "key_file": "ca.key",
}
_BOTH: Final = ("1.1", "2")


def clients(python: str, node: str, java: str | None) -> dict[str, tuple[list[str | Path], str]]:
    """Commands and versions of HTTP, by name."""
    folder = APPS / "https"
    both: dict[str, list[str | Path]] = {
        "curl": ["sh", folder / "client.sh"],
        "httpx": [python, folder / "httpx_client.py"],
        "openai": [python, folder / "openai_client.py"],
    }
    if java is not None:
        both["java"] = [java, folder / "Client.java"]
    named = {
        f"{name}, HTTP/{version}": (command, version)
        for name, command in both.items()
        for version in _BOTH
    }
    return {
        **named,
        "requests": ([python, folder / "requests_client.py"], "1.1"),
        "aiohttp": ([python, folder / "aiohttp_client.py"], "1.1"),
        "node fetch": ([node, folder / "fetch.mjs"], "1.1"),
        "node http2": ([node, folder / "http2.mjs"], "2"),
    }


def main(folder: Path, python: str, node: str, java: str | None = None) -> None:
    """Set the scene, start everything, run the clients."""
    hosts = folder / "hosts"
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", CHECKED, PUSHED)))
    for step in (
        ["ip", "link", "set", "lo", "up"],
        ["mount", "--bind", str(hosts), "/etc/hosts"],
    ):
        subprocess.run(step, check=True)
    body = folder / "body"
    body.write_bytes(os.urandom(LARGE))
    with Emulator() as emulator:
        world = World(emulator, folder)
        found = _document(world)
        file = folder / "authz.yaml"
        file.write_text(json.dumps(found))
        destinations = folder / "destinations"
        destinations.mkdir()
        authority = Authority.create(destinations)
        api = ModelsApi(authority.server_context(CHECKED, PUSHED), body)
        with (
            api,
            Process("serve", "--config", str(file)) as process,
            Sidecar(
                parse(json.dumps(found), {}),
                authz_address=found["listen"]["grpc"],
                authority=authority,
                certificates={},
                servers=dict.fromkeys((CHECKED, PUSHED), api.address),
                https_address="127.0.0.1:443",
            ) as sidecar,
        ):
            process.wait_ready()
            runs: dict[str, tuple[list[str | Path], dict[str, str]]] = {
                name: (command, {"API": f"https://{CHECKED}", "VERSION": version})
                for name, (command, version) in clients(python, node, java).items()
            }
            pushed = {"API": f"https://{PUSHED}", "VERSION": "2"}
            runs["httpx, pushed"] = (runs["httpx, HTTP/2"][0], pushed)
            # What a first call needs is no question of bodies.
            warm = _result(*runs["openai, HTTP/1.1"], "warm", folder)
            pids = {"envoy": sidecar.envoy.pid, "authz": process.pid}
            before = {name: _forget_peak(pid) for name, pid in pids.items()}
            results = {}
            for number, (name, (command, environ)) in enumerate(runs.items()):
                api.forget_handshakes()
                results[name] = _result(command, environ, f"c{number}", folder)
            stalled: list[str | Path] = [python, APPS / "https/stalled_client.py"]
            taken = _result(stalled, runs["curl, HTTP/1.1"][1], "stalled", folder)
            grown = {name: _peak(pid) - before[name] for name, pid in pids.items()}
        told = {
            "agent": world.agent["client_id"],
            "callers": list(api.callers),
            "digest": hashlib.sha256(body.read_bytes()).hexdigest(),
            "warm": warm,
            "results": results,
            "stalled": taken,
            "grown": grown,
        }
        json.dump(told, sys.stdout)


def _document(world: World) -> dict[str, Any]:
    found = world.config()
    route = found["egress"]["autonomous"]
    egress = {
        "checked": {**route, "hosts": [CHECKED], "push": False},
        "pushed": {**route, "hosts": [PUSHED]},
    }
    https = {key: str(world.folder / name) for key, name in _FILES.items()}
    return {**found, "egress": egress, "https": https}


def _result(
    command: list[str | Path], environ: Mapping[str, str], name: str, folder: Path
) -> dict[str, Any]:
    bundle = str(folder / "bundle.pem")
    store = folder / "truststore.p12"
    done = subprocess.run(
        command,
        env={
            "PATH": os.environ["PATH"],
            "NAME": name,
            "BODY": str(folder / "body"),
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
            "CURL_CA_BUNDLE": bundle,
            "NODE_EXTRA_CA_CERTS": str(folder / "ca.pem"),
            "JAVA_TOOL_OPTIONS": f"-Djavax.net.ssl.trustStore={store}",
            **environ,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode:
        return {"error": done.stderr[-1500:]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _forget_peak(pid: int) -> int:
    """Let the kernel count a process's largest size anew, and return its size now, in bytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _peak(pid)


def _peak(pid: int) -> int:
    (kilobytes,) = re.findall(
        r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
    )
    return int(kilobytes) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
