"""The public walk-through of the sidecar, unchanged: its ConfigMap, its Secret, its commands by curl."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.programs.stack import claims

ROOT = Path(__file__).parents[2]
NEEDED = ("unshare", "ip", "mount", "curl")


@pytest.mark.system
@pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)), reason=f"needs the programs {', '.join(NEEDED)}"
)
def test_the_commands_work_word_for_word(tmp_path: Path) -> None:
    """Against an Entra and a Graph that have Microsoft's names, in a namespace without a way out."""
    section = (ROOT / "docs/sidecar-api.md").read_text().split("## Commands")[1].split("\n## ")[0]
    commands = [line for line in section.split("\n") if line.startswith("curl ")]
    (tmp_path / "commands").write_text("\n".join(commands))
    done = subprocess.run(
        [
            "unshare", "--net", "--mount", "--map-root-user",
            sys.executable, Path(__file__).with_name("walk_through.py"), tmp_path / "commands", tmp_path,
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    health, *rest = told["answers"]
    assert "Healthy" == health
    blueprint, autonomous, account, account_call, valid, for_user, user_call = map(json.loads, rest)
    identities = [
        claims(answer["authorizationHeader"].removeprefix("Bearer "))
        for answer in (blueprint, autonomous, account, for_user)
    ]
    agent = told["agent"]["client_id"]
    assert [
        (told["blueprint"], "app"), (agent, "app"), (agent, "user"), (agent, "user"),
    ] == [(found["appid"], found["idtyp"]) for found in identities]  # fmt: skip
    assert identities[2]["oid"] == json.loads(account_call["content"])["id"]
    assert identities[3]["oid"] == json.loads(user_call["content"])["id"] == valid["claims"]["oid"]
