"""`authz emulator` as a process: its files, its one line, its end and its errors."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

SCRIPT = """
import sys, pathlib
from authz.emulator.command import run
sys.exit(run(sys.argv[1], pathlib.Path(sys.argv[2])))
"""


def start(listen: str, out: Path) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, listen, str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    """One line, two files, a working authority, and exit status 0."""
    out = tmp_path / "entra"
    with start("127.0.0.1:0", out) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        description = json.loads((out / "emulator.json").read_text())
        assert ready == f"emulator ready: {description['authority']} (files in {out})\n"
        assert description["ca_file"] == str(out / "ca.pem")
        with requests.Session() as session:
            session.trust_env = False
            session.verify = description["ca_file"]
            tenant = description["tenants"][0]["tenant_id"]
            metadata = session.get(
                f"{description['authority']}/{tenant}/v2.0/.well-known/openid-configuration"
            )
            assert metadata.json()["issuer"] == f"{description['authority']}/{tenant}/v2.0"
            assert session.get(f"{description['control_url']}/calls").json()["total"] == 0
        process.send_signal(number)
        assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0


def test_the_description_has_the_shape_of_the_contract(tmp_path: Path) -> None:
    """Tenants, blueprints with secrets and agents, users, and where to find the endpoints."""
    with start("localhost:0", tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
    description = json.loads((tmp_path / "emulator.json").read_text())
    assert {"authority", "ca_file", "control_url", "mint_url", "graph_url", "tenants"} == (
        description.keys()
    )
    assert description["authority"].startswith("https://localhost:")
    first, second = description["tenants"]
    assert [len(blueprint["agents"]) for blueprint in first["blueprints"]] == [2, 2]
    for blueprint in (*first["blueprints"], *second["blueprints"]):
        assert {"client_id", "client_secret", "agents"} <= blueprint.keys()
        assert "@" in blueprint["agents"][0]["agent_user"]
    assert first["blueprints"][0]["agents"][1]["agent_user"] is None
    assert {"object_id", "username"} == first["users"][0].keys()
    assert [api["name"] for api in first["apis"]] == ["Microsoft Graph", "orders", "inventory"]
    assert [app["name"] for app in first["apps"]] == ["portal", "reports"]


@pytest.mark.parametrize("listen", ["8443", ":8443", "127.0.0.1:https", "127.0.0.1:70000"])
def test_a_bad_listen_value_is_a_clear_error(tmp_path: Path, listen: str) -> None:
    """Exit status 2 and one line that names the option."""
    with start(listen, tmp_path) as process:
        _, error = process.communicate(timeout=10)
    assert process.returncode == 2
    assert error.startswith(f"authz emulator: --listen {listen}: ")
    assert error.count("\n") == 1


def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    """Exit status 2 when someone else listens there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with start(listen, tmp_path) as process:
            _, error = process.communicate(timeout=10)
    assert process.returncode == 2
    assert error == f"authz emulator: --listen {listen}: Address already in use\n"


def test_an_unwritable_directory_is_a_clear_error(tmp_path: Path) -> None:
    """Exit status 2 when the directory cannot be made."""
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    with start("127.0.0.1:0", out) as process:
        _, error = process.communicate(timeout=10)
    assert process.returncode == 2
    assert error == f"authz emulator: --out {out}: Not a directory\n"
