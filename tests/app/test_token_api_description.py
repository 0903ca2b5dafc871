"""The OpenAPI documents are true: Schemathesis asks for what they say, and for what they rule out."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.kubernetes.assets import SIDECAR_OPENAPI, asset
from support.programs.stack import World
from support.programs.token_api import Sidecar

pytestmark = pytest.mark.thorough

SETTINGS = Path(__file__).parent / "schemathesis.toml"
EXAMPLES = "25"


@pytest.fixture
def explore(world: World, tmp_path: Path) -> Callable[..., str]:
    """Let Schemathesis make requests by a document; return what it prints, where it finds nothing wrong."""

    def run(sidecar: Sidecar, *arguments: str | Path) -> str:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("st"), "--config-file", SETTINGS, "run", *arguments,
                "--header", f"Authorization: Bearer {world.token()}", "--checks", "all",
                "--max-examples", EXAMPLES, "--no-color",
            ],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        failed = [event for event in sidecar.process.events() if event["event"] == "check failed"]
        assert [] == failed
        return done.stdout

    return run


def test_no_request_is_answered_otherwise_than_described(
    start: Callable[..., Sidecar], explore: Callable[..., str]
) -> None:
    """Every check there is: statuses, bodies, media types, server errors, authentication, methods."""
    sidecar = start()
    shown = explore(sidecar, f"http://{sidecar.address}/openapi/v1.json")
    assert "Operations:       14 selected / 14 total" in shown


def test_requests_by_microsofts_document_are_answered_as_it_says(
    start: Callable[..., Sidecar], explore: Callable[..., str]
) -> None:
    """Without the checks of deliberate differences, which docs/sidecar-differences.md gives the reasons of.

    `/DownstreamApi` takes the other methods of which Microsoft's pages speak, and a switch without a value
    counts as absent.
    """
    document = asset(SIDECAR_OPENAPI)
    sidecar = start()
    shown = explore(
        sidecar, document, "--url", f"http://{sidecar.address}", "--exclude-checks",
        "unsupported_method,allow_header_conformance,negative_data_rejection",
    )  # fmt: skip
    assert "Operations:       5 selected / 5 total" in shown


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
    assert ["graph"] == header["parameters"][0]["schema"]["examples"]


def test_the_document_lists_what_microsofts_does(start: Callable[..., Sidecar]) -> None:
    """Each path, method, parameter and schema."""
    theirs = json.loads(asset(SIDECAR_OPENAPI).read_text("utf-8-sig"))
    ours = start().get("/openapi/v1.json").json()
    for path, operations in theirs["paths"].items():
        for method, operation in operations.items():
            own = ours["paths"][path][method]
            assert operation["operationId"] == own["operationId"]
            names = {each["name"] for each in operation.get("parameters", ())}
            assert names <= {each["name"] for each in own.get("parameters", ())}
            assert operation["responses"].keys() <= own["responses"].keys()
    # Their schema of claims is called JsonNode, and says nothing.
    assert (
        theirs["components"]["schemas"].keys() - {"JsonNode"}
        <= ours["components"]["schemas"].keys()
    )
