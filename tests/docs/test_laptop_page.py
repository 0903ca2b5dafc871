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

from support.proxy.envoy import envoy_binary, free_port

pytestmark = pytest.mark.thorough

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs/laptop.md").read_text()
BLOCKS: Final = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
OWN_APIS: Final = re.findall(r"^```\n(\$B.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]
"""The emulator's command with APIs of the reader's own."""
OWN_ROUTES: Final = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]
"""The section `egress` for them."""
PORTS: Final = ("8443", "9902", "9000", "8080", "8000", "15001")


def test_nothing_is_exported_that_deploys() -> None:
    """In the same shell deploy.sh would take it for an input, before its file."""
    example = (ROOT / "kubernetes/client-secret-file/env.example").read_text()
    inputs = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    exported = re.findall(r"\bexport ((?:[A-Z_]+=\S+(?: \\\n *)? ?)+)", PAGE)

    assert {"TENANT_ID", "CLIENT_ID", "SCOPE"} < inputs
    assert set() == inputs & set(re.findall(r"([A-Z_]+)=", " ".join(exported)))


@pytest.fixture
def ports() -> Mapping[str, str]:
    """A free port for each of the page's."""
    return {port: str(free_port()) for port in PORTS}


def follow(folder: Path, ports: Mapping[str, str], blocks: list[str], last: str = "") -> str:
    """Do what the blocks say, each program in its background, and then `last`; return what was printed."""
    for program in ("curl", "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"the page is not run: {program} is not installed")
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "authz").symlink_to(Path(sys.executable).parent / "authz")
    (programs / "envoy").symlink_to(envoy_binary())
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    (folder / "examples").symlink_to(ROOT / "examples")
    texts = [block.strip() for block in [*blocks, last]]
    for port, free in ports.items():
        texts = [re.sub(rf"(?<=[:= ]){port}\b", free, text) for text in texts]
    emulator, configuration, pair, ours, call, secret, last = texts
    serve, envoy = pair.splitlines()
    api, agent = ours.splitlines()
    ready = {"9902": "/readyz", "8080": "/healthz", "8000": "/healthz", "9000": "/"}
    waits = "\n".join(
        f"until curl --silent http://127.0.0.1:{ports[port]}{path} "
        f"{'--fail ' if port == '9902' else ''}>/dev/null; do sleep 0.1; done"
        for port, path in ready.items()
    )
    script = f"""set -eu
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
B=.venv/bin
{emulator} > emulator.log 2>&1 &
B=.venv/bin
until [ -s entra/emulator.json ]; do sleep 0.1; done
{configuration}
{serve} > authz.log 2>&1 &
{envoy} --use-dynamic-base-id --log-level error > envoy.log 2>&1 &
{api} > api.log 2>&1 &
{agent} > agent.log 2>&1 &
{waits}
{call}
{last}
{secret}
until [ "$(grep --count 'credential accepted' authz.log)" -ge 2 ]; do sleep 0.1; done
"""
    ran = subprocess.run(
        ["bash"],
        input=script,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        text=True,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert 0 == ran.returncode, ran.stdout + ran.stderr
    return ran.stdout


def test_the_page_leads_to_an_agent_that_works(tmp_path: Path, ports: Mapping[str, str]) -> None:
    """Emulator, configuration, pair, agent, API and call, word for word; the API sees the agent."""
    printed = follow(tmp_path, ports, BLOCKS)

    described = json.loads((tmp_path / "entra/emulator.json").read_text())["tenants"][0]
    claims = json.JSONDecoder().raw_decode(printed[printed.index("{") :])[0]["claims"]
    alice = next(user for user in described["users"] if user["username"].startswith("alice@"))
    agent = described["blueprints"][0]["agents"][0]["client_id"]
    assert (agent, alice["object_id"], "Orders.Read") == (
        claims["azp"],
        claims["oid"],
        claims["scp"],
    )


def test_two_apis_of_the_readers_own_are_called(tmp_path: Path, ports: Mapping[str, str]) -> None:
    """With the options and the routes of the page: one for the user, and one for the agent itself."""
    _, configuration, pair, ours, call, secret = BLOCKS
    before, _, rest = configuration.partition("egress:\n")
    after = rest[rest.index("YAML\n") :]
    ours = ours.replace("http://orders", "http://billing").replace(
        "NIGHTLY_ORDERS_URL=", "NIGHTLY_ORDERS_URL=http://stock.localhost:9000"
    )
    blocks = [OWN_APIS, before + OWN_ROUTES + after, pair, ours, call, secret]

    # Its token is pushed: Envoy answers 503 until authz has given it.
    nightly = "until curl --silent --fail http://127.0.0.1:8000/jobs/nightly; do sleep 0.1; done"
    printed = follow(tmp_path, ports, blocks, nightly)

    described = json.loads((tmp_path / "entra/emulator.json").read_text())["tenants"][0]
    apis = {api["name"]: api["client_id"] for api in described["apis"]}
    text, decoder = printed[printed.index("{") :], json.JSONDecoder()
    billing, end = decoder.raw_decode(text)
    stock, _ = decoder.raw_decode(text[end:].lstrip())
    assert (apis["billing"], "Bills.Read") == (billing["claims"]["aud"], billing["claims"]["scp"])
    assert (apis["stock"], ["Stock.Read.All"]) == (
        stock["claims"]["aud"],
        stock["claims"]["roles"],
    )
