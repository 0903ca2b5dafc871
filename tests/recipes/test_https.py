"""Clients of several runtimes call `https://` themselves, unmodified: docs/https.md."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recipes.agents import ENVIRONMENT, require_environment
from recipes.https_pod import LARGE

pytestmark = pytest.mark.recipes
TESTS = Path(__file__).parents[1]
NEEDED = ("unshare", "ip", "mount", "curl")
MOST_GROWTH = LARGE // 4
"""Of a process through which bodies pass that are a multiple of it."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run every client once, where the API's names lead to Envoy."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs the programs {', '.join(missing)}")
    require_environment()
    folder = tmp_path_factory.mktemp("https")
    programs: list[str | Path] = [ENVIRONMENT / "bin/python", ENVIRONMENT / "bin/node", *_java()]
    done = subprocess.run(
        [
            *("unshare", "--net", "--mount", "--map-root-user"),
            *(sys.executable, str(TESTS / "recipes/https_pod.py"), str(folder)),
            *map(str, programs),
        ],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    (folder / "body").unlink(missing_ok=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _java() -> list[str]:
    """A Java that runs source files, if there is one."""
    java = shutil.which("java")
    return [java] if java and shutil.which("javac") else []


CLIENTS = {
    "curl, HTTP/1.1": "1.1",
    "curl, HTTP/2": "2",
    "httpx, HTTP/1.1": "1.1",
    "httpx, HTTP/2": "2",
    "requests": "1.1",
    "aiohttp": "1.1",
    "node fetch": "1.1",
    "node http2": "2",
    "httpx, pushed": "2",
}
JAVA = {"java, HTTP/1.1": "1.1", "java, HTTP/2": "2"}


def test_their_calls_go_out_with_the_agents_token(told: dict[str, Any]) -> None:
    """By the variables of the page alone: no code, no flag, no proxy. Whatever the client sent is gone."""
    assert [[told["agent"], "app"]] == told["callers"]


@pytest.mark.parametrize("name", [*CLIENTS, *JAVA])
def test_events_and_large_bodies_pass_as_they_come(told: dict[str, Any], name: str) -> None:
    """The last event is sent when the client has the first one; 64 MiB each way arrive as they were."""
    if name in JAVA and not _java():
        pytest.skip("there is no JDK here: the row of Java in docs/https.md is not tried")
    expected = {
        "events": ["first", "last"],
        "up": told["digest"],
        "down": told["digest"],
        "version": {**CLIENTS, **JAVA}[name],
    }
    assert expected == told["results"][name]


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_the_openai_sdk_streams(told: dict[str, Any], version: str) -> None:
    """A chat completion, whole and streamed; its own key never arrives."""
    expected = {"events": ["first", " last"], "whole": "first last"}
    assert expected == told["results"][f"openai, HTTP/{version}"]


def test_nobody_keeps_a_body(told: dict[str, Any]) -> None:
    """Not for a client that stops reading either: the API is held up, and neither process grows."""
    assert 0 < told["stalled"]["sent"] < LARGE
    assert {"envoy": True, "authz": True} == {
        name: grown < MOST_GROWTH for name, grown in told["grown"].items()
    }, told["grown"]
