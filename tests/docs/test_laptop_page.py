"""docs/laptop.md is run as it stands, with free ports: a user's call reaches the API as the agent's."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from support.envoy import envoy_binary, free_port

ROOT: Final = Path(__file__).resolve().parents[2]
BLOCKS: Final = re.findall(
    r"^```sh\n(.*?)^```$", (ROOT / "docs/laptop.md").read_text(), re.MULTILINE | re.DOTALL
)
PORTS: Final = ("8443", "9902", "9000", "8080", "8000", "15001")


@pytest.fixture
def ports() -> Mapping[str, str]:
    """A free port for each of the page's."""
    return {port: str(free_port()) for port in PORTS}


def test_the_page_leads_to_an_agent_that_works(tmp_path: Path, ports: Mapping[str, str]) -> None:
    """Emulator, configuration, pair, agent, API and call, word for word; the API sees the agent."""
    for program in ("curl", "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"the page is not run: {program} is not installed")
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "authz").symlink_to(Path(sys.executable).parent / "authz")
    (programs / "envoy").symlink_to(envoy_binary())
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    text = "\n".join(BLOCKS)
    for port, free in ports.items():
        text = re.sub(rf"(?<=[:= ]){port}\b", free, text)
    emulator, configuration, pair, ours, call = text.split("\n\n")
    serve, envoy = pair.splitlines()
    api, agent = ours.splitlines()
    script = f"""set -eu
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
{emulator} > emulator.log 2>&1 &
B=.venv/bin
until [ -s entra/emulator.json ]; do sleep 0.1; done
{configuration}
{serve} > authz.log 2>&1 &
{envoy} --use-dynamic-base-id --log-level error > envoy.log 2>&1 &
{api} > api.log 2>&1 &
{agent} > agent.log 2>&1 &
until curl --silent --fail http://127.0.0.1:{ports["9902"]}/readyz >/dev/null; do sleep 0.1; done
until curl --silent http://127.0.0.1:{ports["8080"]}/healthz >/dev/null; do sleep 0.1; done
until curl --silent http://127.0.0.1:{ports["8000"]}/healthz >/dev/null; do sleep 0.1; done
until curl --silent http://127.0.0.1:{ports["9000"]}/ >/dev/null; do sleep 0.1; done
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

    assert 0 == ran.returncode, ran.stdout + ran.stderr
    described = json.loads((tmp_path / "entra/emulator.json").read_text())["tenants"][0]
    claims = json.loads(ran.stdout[ran.stdout.index("{") :])["claims"]
    alice = next(user for user in described["users"] if user["username"].startswith("alice@"))
    agent_identity = described["blueprints"][0]["agents"][0]["client_id"]
    assert (agent_identity, alice["object_id"], "Orders.Read") == (
        claims["azp"],
        claims["oid"],
        claims["scp"],
    )
