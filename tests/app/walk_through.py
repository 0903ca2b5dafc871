"""Runs the commands of docs/sidecar-api.md, word for word, where Microsoft's names lead to the emulator.

A program of its own, started in network and mount namespaces of its own: `unshare --net --mount`. There the
walk-through's ConfigMap and Secret are the service's whole environment, port 5000 is free, and nothing
can leave. Prints what each command printed, as JSON.

    python walk_through.py COMMANDS FOLDER
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from authz_dev.emulator import Emulator

NAMES = ("login.microsoftonline.com", "graph.microsoft.com")
RUN = Path("/run")


def main(commands: Path, folder: Path) -> None:
    """Set the scene, start the service, run the commands."""
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"127.0.0.1 {name}\n" for name in NAMES))
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["mount", "--bind", str(hosts), "/etc/hosts"],
        # /run/authz is the image's; here it is for this program only.
        ["mount", "-t", "tmpfs", "tmpfs", str(RUN)],
    ):
        subprocess.run(command, check=True)
    (RUN / "authz").mkdir()
    with Emulator(host="0.0.0.0", port=443, names=NAMES) as emulator:  # noqa: S104 - in a namespace
        tenant = emulator.describe()["tenants"][0]
        blueprint = tenant["blueprints"][0]
        config_map = {
            "AzureAd__Instance": "https://login.microsoftonline.com/",
            "AzureAd__TenantId": tenant["tenant_id"],
            "AzureAd__ClientId": blueprint["client_id"],
            "AzureAd__ClientCredentials__0__SourceType": "ClientSecret",
            "DownstreamApis__graph__BaseUrl": "https://graph.microsoft.com/v1.0",
            "DownstreamApis__graph__Scopes__0": "https://graph.microsoft.com/.default",
            "DownstreamApis__graph__RequestAppToken": "true",
            "ASPNETCORE_ENVIRONMENT": "Development",
            "ASPNETCORE_URLS": "http://+:5000",
        }
        secret = {"AzureAd__ClientCredentials__0__ClientSecret": blueprint["client_secret"]}
        # Not the walk-through's, but its machine's: which authorities it trusts.
        machine = {"SSL_CERT_FILE": str(emulator.ca_file)}
        log = (folder / "log").open("w")
        service = subprocess.Popen(
            [sys.executable, "-m", "authz", "serve"],
            env={**config_map, **secret, **machine}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            _wait_healthy(service, folder / "log")
            agent = blueprint["agents"][0]
            shell = {
                "PATH": os.environ["PATH"],
                "AGENT_ID": agent["client_id"],
                "AGENT_USER": agent["agent_user"],
                "USER_TOKEN": emulator.mint_user_token(),
            }
            answers = [
                subprocess.run(
                    ["sh", "-c", command], env=shell, capture_output=True, text=True, check=False
                ).stdout
                for command in commands.read_text().splitlines()
            ]
        finally:
            service.terminate()
            service.wait()
            log.close()
        json.dump(
            {"agent": agent, "blueprint": blueprint["client_id"], "answers": answers}, sys.stdout
        )


def _wait_healthy(service: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and service.poll() is None:
        try:
            with urlopen("http://localhost:5000/healthz") as answer:
                if answer.status == 200:
                    return
        except (URLError, ConnectionError):
            os.sched_yield()
    raise SystemExit(f"not healthy:\n{log.read_text()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
