"""The OpenAPI document is true: Schemathesis asks for what it says, and for what it rules out."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.stack import World
from support.token_api import Sidecar

SETTINGS = Path(__file__).parent / "schemathesis.toml"
EXAMPLES = "25"


def test_no_request_is_answered_otherwise_than_described(
    world: World, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    """Every check there is: statuses, bodies, media types, server errors, authentication, methods."""
    sidecar = start()
    program = Path(sys.executable).with_name("st")
    done = subprocess.run(
        [
            program, "--config-file", SETTINGS, "run", f"http://{sidecar.address}/openapi/v1.json",
            "--header", f"Authorization: Bearer {world.token()}", "--checks", "all",
            "--max-examples", EXAMPLES, "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Operations:       14 selected / 14 total" in done.stdout
    failed = [event for event in sidecar.process.events() if event["event"] == "check failed"]
    assert [] == failed


def test_the_document_names_the_sidecars_operations(start: Callable[..., Sidecar]) -> None:
    """By their ids, and the APIs that are there."""
    document = start().get("/openapi/v1.json").json()
    ids = {each["operationId"] for path in document["paths"].values() for each in path.values()}
    assert "3.1.1" == document["openapi"]
    assert {
        "ValidateAuthorizationHeader", "AuthorizationHeader", "AuthorizationHeaderUnauthenticated",
        "DownstreamApi", "DownstreamApiUnauthenticated",
    } <= ids  # fmt: skip
    header = document["paths"]["/AuthorizationHeader/{apiName}"]["get"]
    assert ["graph"] == header["parameters"][0]["schema"]["enum"]
