"""Clients of the sidecar's HTTP API, unmodified, for every operation: Microsoft's own, and generated ones."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from recipes.agents import APPS, ENVIRONMENT, require_environment
from support.kubernetes.assets import SIDECAR_CLIENT, SIDECAR_OPENAPI, asset
from support.programs.stack import Process, World, claims
from support.programs.token_api import Sidecar, environment

pytestmark = pytest.mark.recipes


@pytest.fixture
def sidecar(world: World) -> Iterator[Sidecar]:
    """A running service by the keys of the walk-through."""
    require_environment()
    with Process("serve", environ=environment(world)) as process:
        running = Sidecar(process)
        yield running
        running.http.close()


def run(world: World, sidecar: Sidecar, app: str, argument: Path) -> dict[str, Any]:
    """Run an app that calls every operation; return what it was answered."""
    done = subprocess.run(
        [ENVIRONMENT / "bin/python", APPS / app, argument],
        env={
            **os.environ,
            "SIDECAR_URL": f"http://{sidecar.address}",
            "USER_TOKEN": world.token(),
            "AGENT": world.agent["client_id"],
            "TENANT": world.tenant_id,
            "NO_PROXY": "*",
        },
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def generated(folder: Path, document: Path) -> Path:
    """Generate a client from a document; return its folder. A generator that leaves something out fails."""
    client = folder / "generated"
    done = subprocess.run(
        [
            ENVIRONMENT / "bin/openapi-python-client", "generate", "--path", document,
            "--output-path", client, "--meta", "none", "--fail-on-warning",
        ],
        # It tidies up by ruff, where that is.
        env={**os.environ, "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False, timeout=60, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return client


def token(answer: dict[str, Any], name: str = "authorizationHeader") -> tuple[str, str]:
    """Return whose token it is, and of which kind."""
    found = claims(answer[name].removeprefix("Bearer "))
    return found["appid"], found["idtyp"]


def check_generated(world: World, found: dict[str, Any]) -> None:
    """Whatever is absent or empty, the token is that of the agent that is named; else the client's."""
    agent, blueprint = world.agent["client_id"], world.blueprint["client_id"]
    assert world.users["alice"]["object_id"] == found["validate"]["claims"]["oid"]
    for kind in ("absent", "empty"):
        assert (agent, "user") == token(found[f"authorization_header {kind}"])
        assert (agent, "app") == token(found[f"authorization_header_unauthenticated {kind}"])
        for name in ("downstream_api", "downstream_api_unauthenticated"):
            answer = found[f"{name} {kind}"]
            assert (200, agent) == (answer["statusCode"], json.loads(answer["content"])["appid"])
    assert (blueprint, "app") == token(found["nobody empty"])
    assert (400, "bad_parameter") == (found["refused"]["status"], found["refused"]["reason"])


def test_a_client_generated_from_our_document_works(
    world: World, sidecar: Sidecar, tmp_path: Path
) -> None:
    """Every operation is there, with parameters left out and with parameters sent empty."""
    document = tmp_path / "openapi.json"
    answer = httpx.get(f"http://{sidecar.address}/openapi/v1.json", trust_env=False)
    document.write_bytes(answer.content)
    client = generated(tmp_path, document)
    check_generated(world, run(world, sidecar, "generated_client.py", client))


def test_a_client_generated_from_microsofts_document_works(
    world: World, sidecar: Sidecar, tmp_path: Path
) -> None:
    """The same for the document that Microsoft publishes."""
    client = generated(tmp_path, asset(SIDECAR_OPENAPI))
    check_generated(world, run(world, sidecar, "generated_client.py", client))


def test_microsofts_own_client_works(world: World, sidecar: Sidecar) -> None:
    """Every operation, with every option that is not a deliberate difference."""
    found = run(world, sidecar, "sidecar_client.py", asset(SIDECAR_CLIENT))
    agent = world.agent["client_id"]
    assert world.users["alice"]["object_id"] == found["validate"]["claims"]["oid"]
    header = "authorization_header"
    assert (agent, "user") == token(found["authorization_header"], header)
    assert (agent, "app") == token(found["authorization_header_unauthenticated"], header)
    for name in ("downstream_api", "downstream_api_unauthenticated"):
        answer = found[name]
        assert (200, agent) == (answer["status_code"], json.loads(answer["content"])["appid"])
    assert (400, "Bad parameter") == (found["refused"]["status"], found["refused"]["title"])
