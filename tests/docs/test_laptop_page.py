"""docs/laptop.md is run as it stands, with free ports: a user's call reaches the API as the agent's."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final

import pytest

from authz_dev.emulator.faults import KINDS, PARTS, TARGETS, Fault
from support.programs.stack import claims
from support.proxy.envoy import envoy_binary, free_port

pytestmark = pytest.mark.thorough

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs/laptop.md").read_text()
*BLOCKS, SIDECAR, SIDECARS_CALLS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
OWN_APIS: Final = re.findall(r"^```\n(\$B.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]
"""The emulator's command with APIs of the reader's own."""
OWN_ROUTES: Final = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]
"""The section `egress` for them."""
PORTS: Final = ("8443", "9902", "9000", "8080", "8000", "15001", "9912", "5000")


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


def prepare(folder: Path) -> None:
    """Put what the page's lines call where they call it."""
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


def on_free_ports(texts: list[str], ports: Mapping[str, str]) -> list[str]:
    """Return the blocks with other ports than the page's, each without blanks around it."""
    texts = [text.strip() for text in texts]
    for port, free in ports.items():
        texts = [re.sub(rf"(?<=[:= ]){port}\b", free, text) for text in texts]
    return texts


def run(script: str, folder: Path) -> str:
    """Run a script in the folder and return what it prints."""
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


def follow(folder: Path, ports: Mapping[str, str], blocks: list[str], last: str = "") -> str:
    """Do what the blocks say, each program in its background, and then `last`; return what was printed."""
    prepare(folder)
    texts = on_free_ports([*blocks, last], ports)
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
    return run(script, folder)


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


def test_the_sidecars_variables_serve_its_calls(tmp_path: Path, ports: Mapping[str, str]) -> None:
    """The file of variables and a call of each kind, word for word: for the user, and as the agent itself."""
    prepare(tmp_path)
    emulator, configuration, call, variables, calls = on_free_ports(
        [BLOCKS[0], BLOCKS[1], BLOCKS[4], SIDECAR, SIDECARS_CALLS], ports
    )
    minted = call[: call.index("user-token)") + len("user-token)")]
    printed = run(
        f"""set -eu
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
{emulator} > emulator.log 2>&1 &
B=.venv/bin
until [ -s entra/emulator.json ]; do sleep 0.1; done
{configuration} > /dev/null 2>&1
{minted}
{variables} > authz.log 2>&1 &
until curl --silent --fail http://127.0.0.1:{ports["9912"]}/readyz > /dev/null; do sleep 0.1; done
{calls.replace("curl ", "echo; curl --silent ")}
""",
        tmp_path,
    )
    described = json.loads((tmp_path / "entra/emulator.json").read_text())["tenants"][0]
    alice = next(user for user in described["users"] if user["username"].startswith("alice@"))
    agent = described["blueprints"][0]["agents"][0]["client_id"]
    validated, *answers = [
        json.loads(line) for line in printed.splitlines() if line.startswith("{")
    ]
    seen = [
        claims(answer["authorizationHeader"].removeprefix("Bearer "))
        if "authorizationHeader" in answer
        else json.loads(answer["content"])
        for answer in answers
    ]

    assert alice["object_id"] == validated["claims"]["oid"]
    assert [(agent, "user"), (agent, "user"), (agent, "app"), (agent, "app")] == [
        (each["appid"], each["idtyp"]) for each in seen
    ]


def test_the_page_names_every_kind_of_fault_and_its_members() -> None:
    """Whoever rehearses an outage finds them without reading the emulator's code."""
    table = PAGE[PAGE.index("A fault is of a `kind`") :]
    named = set(re.findall(r"`(\w+)`", table[: table.index("**The configuration**")]))
    own = {each.name for each in fields(Fault)} - {"id"}

    assert set() == {*KINDS, *TARGETS, *PARTS, *own} - named
