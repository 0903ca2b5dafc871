"""Clients of several runtimes call `https://` themselves, unmodified: docs/https.md."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.agents import ENVIRONMENT, require_environment

pytestmark = pytest.mark.recipes
TESTS = Path(__file__).parents[1]
NEEDED = ("unshare", "ip", "mount", "curl")


@pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)), reason=f"needs the programs {', '.join(NEEDED)}"
)
def test_their_calls_go_out_with_the_agents_token(tmp_path: Path) -> None:
    """By the variables of the page alone: no code, no flag, no proxy."""
    require_environment()
    curl = shutil.which("curl")
    assert curl is not None
    done = subprocess.run(
        [
            "unshare", "--net", "--mount", "--map-root-user",
            sys.executable, TESTS / "recipes/https_pod.py", tmp_path,
            curl, ENVIRONMENT / "bin/node", ENVIRONMENT / "bin/python",
        ],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    names = ("curl", "curl, HTTP/2", "requests", "httpx", "aiohttp", "node")
    expected = {"appid": told["agent"], "idtyp": "app"}
    assert dict.fromkeys(names, expected) == told["results"]
