"""docs/laptop.md is run as it stands, with free ports: a user's call reaches the API as the agent's."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

import httpx
import jwt
import pytest

from support.envoy import envoy_binary, free_port

ROOT: Final = Path(__file__).resolve().parents[2]
BLOCKS: Final = re.findall(
    r"^```sh\n(.*?)^```$", (ROOT / "docs/laptop.md").read_text(), re.MULTILINE | re.DOTALL
)
PORTS: Final = ("8443", "9902", "9000", "8080", "8000", "15001")


class Seen:
    """What the API was sent."""

    def __init__(self) -> None:
        self.authorizations: list[str] = []


def _serve(port: int, answer: object) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body: bytes = answer(self.headers)  # type: ignore[operator]
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def ports() -> Mapping[str, str]:
    """A free port for each of the page's."""
    return {port: str(free_port()) for port in PORTS}


@pytest.fixture
def seen(ports: Mapping[str, str]) -> Iterator[Seen]:
    """The page's agent, which calls the API with what it received, and the API."""
    seen = Seen()

    def api(headers: Mapping[str, str]) -> bytes:
        seen.authorizations.append(headers["authorization"])
        return b"orders"

    def agent(headers: Mapping[str, str]) -> bytes:
        if "authorization" not in headers:
            return b"health"
        with httpx.Client(proxy=f"http://127.0.0.1:{ports['15001']}", trust_env=False) as client:
            url = f"http://orders.localhost:{ports['9000']}/"
            return client.get(url, headers={"authorization": headers["authorization"]}).content

    servers = [_serve(int(ports["9000"]), api), _serve(int(ports["8000"]), agent)]
    yield seen
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_page_leads_to_an_agent_that_works(
    tmp_path: Path, ports: Mapping[str, str], seen: Seen
) -> None:
    """Emulator, configuration, pair and call, word for word; the API sees the agent, for alice."""
    for program in ("curl", "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"the page is not run: {program} is not installed")
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "authz").symlink_to(Path(sys.executable).parent / "authz")
    (programs / "envoy").symlink_to(envoy_binary())
    text = "\n".join(BLOCKS)
    for port, free in ports.items():
        text = text.replace(f":{port}", f":{free}")
    emulator, configuration, pair, call = text.split("\n\n")
    serve, envoy = pair.splitlines()
    script = f"""set -eu
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
{emulator} > emulator.log 2>&1 &
B=.venv/bin
until [ -s entra/emulator.json ]; do sleep 0.1; done
{configuration}
{serve} > authz.log 2>&1 &
{envoy} --use-dynamic-base-id --log-level error > envoy.log 2>&1 &
until curl --silent --fail http://127.0.0.1:{ports["9902"]}/readyz >/dev/null; do sleep 0.1; done
until curl --silent http://127.0.0.1:{ports["8080"]}/healthz >/dev/null; do sleep 0.1; done
{call}
"""
    ran = subprocess.run(
        ["bash"],
        input=script,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
    )

    assert (0, "orders") == (ran.returncode, ran.stdout.splitlines()[-1]), ran.stdout + ran.stderr
    described = json.loads((tmp_path / "entra/emulator.json").read_text())["tenants"][0]
    (authorization,) = seen.authorizations
    claims = jwt.decode(authorization.removeprefix("Bearer "), options={"verify_signature": False})
    alice = next(user for user in described["users"] if user["username"].startswith("alice@"))
    agent = described["blueprints"][0]["agents"][0]["client_id"]
    assert (agent, alice["object_id"]) == (claims.get("azp") or claims["appid"], claims["oid"])
