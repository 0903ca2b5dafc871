"""Runs unmodified clients where the API's name leads to Envoy, and prints what the API saw of each.

A program of its own, started in network and mount namespaces of its own: `unshare --net --mount`. There the
name leads to loopback, Envoy has port 443, and nothing can leave.

    python https_pod.py FOLDER CURL NODE PYTHON
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from authz.config.document import parse
from authz.emulator import Emulator
from support.sidecar import Authority, Sidecar
from support.stack import Process, World, claims

ORDERS = "orders.example"
URL = f"https://{ORDERS}/x"


def clients(curl: str, node: str, python: str) -> dict[str, list[str]]:
    """Commands by name; each prints the body of the answer."""
    fetch = f"fetch('{URL}').then((answer) => answer.text()).then(console.log)"
    aiohttp = (
        "import asyncio, aiohttp\n"
        "async def main():\n"
        " async with aiohttp.ClientSession() as session:\n"
        f"  async with session.get('{URL}') as answer: print(await answer.text())\n"
        "asyncio.run(main())"
    )
    return {
        "curl": [curl, "--silent", "--show-error", "--http1.1", URL],
        "curl, HTTP/2": [curl, "--silent", "--show-error", "--http2", URL],
        "requests": [python, "-c", f"import requests; print(requests.get('{URL}').text)"],
        "httpx": [python, "-c", f"import httpx; print(httpx.get('{URL}').text)"],
        "aiohttp": [python, "-c", aiohttp],
        "node": [node, "-e", fetch],
    }


def main(folder: Path, curl: str, node: str, python: str) -> None:
    """Set the scene, start everything, run the clients."""
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {ORDERS}\n")
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["mount", "--bind", str(hosts), "/etc/hosts"],
    ):
        subprocess.run(command, check=True)
    with Emulator() as emulator:
        world = World(emulator, folder)
        found = _document(world)
        file = folder / "authz.yaml"
        file.write_text(json.dumps(found))
        destinations = folder / "destinations"
        destinations.mkdir()
        with (
            Process("serve", "--config", str(file)) as process,
            Sidecar(
                parse(json.dumps(found), {}),
                authz_address=found["listen"]["grpc"],
                authority=Authority.create(destinations),
                certificates={ORDERS: (ORDERS,)},
                https_address="127.0.0.1:443",
            ),
        ):
            process.wait_ready()
            results = {
                name: _result(command, folder)
                for name, command in clients(curl, node, python).items()
            }
        json.dump({"agent": world.agent["client_id"], "results": results}, sys.stdout)


def _document(world: World) -> dict[str, Any]:
    found = world.config()
    route = {**found["egress"]["autonomous"], "hosts": [ORDERS]}
    files = {"ca_file": "ca.pem", "bundle_file": "bundle.pem", "key_file": "ca.key"}
    https = {key: str(world.folder / name) for key, name in files.items()}
    return {**found, "egress": {"orders": route}, "https": https}


def _result(command: list[str], folder: Path) -> dict[str, Any]:
    bundle = str(folder / "bundle.pem")
    done = subprocess.run(
        command,
        env={
            "PATH": os.environ["PATH"],
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
            "CURL_CA_BUNDLE": bundle,
            "NODE_EXTRA_CA_CERTS": str(folder / "ca.pem"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if done.returncode:
        return {"error": done.stderr[-400:]}
    headers = dict(json.loads(done.stdout)["headers"])
    token = claims(headers["authorization"].removeprefix("Bearer "))
    return {"appid": token["appid"], "idtyp": token["idtyp"]}


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
