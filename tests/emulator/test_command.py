"""`authz emulator` as a process: its files, its one line, its end and its errors."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import trustme

from authz_dev.emulator import default_directory
from authz_dev.emulator.description import describe_tenants

pytestmark = pytest.mark.thorough

CLUSTER = "https://kubernetes.default.svc.cluster.local"
SUBJECT = "system:serviceaccount:agent:agent"


@contextmanager
def start(listen: str, out: Path, *options: str | Path) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which ends with the block, or at once when a test fails in it."""
    command = [sys.executable, "-m", "authz", "emulator", "--listen", listen, "--out", str(out)]
    command.extend(str(option) for option in options)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


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
    registered = [*first["blueprints"], *first["apps"], *first["public_clients"], *first["apis"]]
    for application in registered:
        assert {"client_id", "object_id", "principal_id"} <= application.keys()
        assert len({application[name] for name in ("client_id", "object_id", "principal_id")}) == 3
    agent = first["blueprints"][0]["agents"][0]
    assert agent["object_id"] == agent["client_id"]
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


def test_behind_a_service_it_is_known_by_another_address(tmp_path: Path) -> None:
    """Issuer, token endpoint and certificate have the name; the port is the one in front."""
    name = "login.emulator.example"
    options = ("--name", name, "--authority", f"https://{name}")
    with start("0.0.0.0:0", tmp_path, *options) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"emulator ready: https://{name} ")
        port = _port(process)
        description = json.loads((tmp_path / "emulator.json").read_text())
        served = _peer_names(port, Path(description["ca_file"]), name)
        process.terminate()
    assert description["authority"] == f"https://{name}"
    assert description["mint_url"] == f"https://{name}/emulator/mint"
    assert name in served


def test_a_certificate_may_be_given(tmp_path: Path) -> None:
    """As a Kubernetes Secret has it: certificate, key and authority, which is what clients trust."""
    authority = trustme.CA()
    made = authority.issue_cert("login.emulator.example")
    tls = tmp_path / "tls"
    tls.mkdir()
    authority.cert_pem.write_to_path(str(tls / "ca.crt"))
    made.cert_chain_pems[0].write_to_path(str(tls / "tls.crt"))
    made.private_key_pem.write_to_path(str(tls / "tls.key"))
    with start("127.0.0.1:0", tmp_path / "out", "--tls", tls) as process:
        assert process.stdout is not None
        process.stdout.readline()
        served = _peer_names(_port(process), tls / "ca.crt", "login.emulator.example")
        process.terminate()
    assert served == ["login.emulator.example"]
    assert (tmp_path / "out/ca.pem").read_bytes() == (tls / "ca.crt").read_bytes()


def test_the_same_seed_is_the_same_directory(tmp_path: Path) -> None:
    """What a manifest names is there after each restart."""
    with start("127.0.0.1:0", tmp_path, "--seed", "1") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
    description = json.loads((tmp_path / "emulator.json").read_text())
    assert description["tenants"] == describe_tenants(default_directory(1))


def test_a_foreign_issuer_may_be_trusted(tmp_path: Path, issuer: Path) -> None:
    """The first blueprint has a federated credential: issuer of the document, subject as given."""
    with start("127.0.0.1:0", tmp_path / "out", "--federate", issuer, SUBJECT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
    description = json.loads((tmp_path / "out/emulator.json").read_text())
    first, second = description["tenants"][0]["blueprints"]
    assert first["federated_credentials"] == [
        {"issuer": CLUSTER, "subject": SUBJECT, "audiences": ["api://AzureADTokenExchange"]}
    ]
    assert second["federated_credentials"] == []


def test_an_api_of_the_readers_own_is_listed(tmp_path: Path) -> None:
    """Scopes and roles of one API may be given by several options; the other APIs stay as they are."""
    options = (
        *("--api", "billing", "Bills.Read,Bills.Pay"),
        *("--api-roles", "billing", "Bills.Read.All"),
        *("--api", "billing", "Bills.Void"),
    )
    with start("127.0.0.1:0", tmp_path, "--seed", "1", *options) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
    tenant, _ = json.loads((tmp_path / "emulator.json").read_text())["tenants"]
    *others, billing = tenant["apis"]
    assert others == describe_tenants(default_directory(1))[0]["apis"]
    assert ("api://billing", ["Bills.Read", "Bills.Pay", "Bills.Void"], ["Bills.Read.All"]) == (
        billing["identifier_uri"],
        billing["scopes"],
        billing["roles"],
    )


def test_an_api_that_is_there_already_is_a_clear_error(tmp_path: Path) -> None:
    """Exit status 2, and its identifier URI."""
    with start("127.0.0.1:0", tmp_path, "--api", "orders", "Orders.Read") as process:
        _, error = process.communicate(timeout=10)
    assert process.returncode == 2
    assert error == "authz emulator: --api: orders: the tenant has api://orders already\n"


@pytest.mark.parametrize(
    "url",
    ["login.example", "http://login.example", "https://Login.example", "https://login.example/"],
)
def test_a_bad_authority_is_a_clear_error(tmp_path: Path, url: str) -> None:
    """It is in every token's issuer, so it must be right to the letter."""
    with start("127.0.0.1:0", tmp_path, "--authority", url) as process:
        _, error = process.communicate(timeout=10)
    assert process.returncode == 2
    assert error.startswith(f"authz emulator: --authority {url}: must ")
    assert error.count("\n") == 1


def test_a_missing_certificate_is_a_clear_error(tmp_path: Path) -> None:
    """Exit status 2, and the folder."""
    with start("127.0.0.1:0", tmp_path, "--tls", tmp_path) as process:
        _, error = process.communicate(timeout=10)
    assert process.returncode == 2
    assert error == f"authz emulator: --tls {tmp_path}: No such file or directory\n"


def test_a_missing_issuer_is_a_clear_error(tmp_path: Path) -> None:
    """Exit status 2, and the document that is not there."""
    with start("127.0.0.1:0", tmp_path, "--federate", tmp_path, SUBJECT) as process:
        _, error = process.communicate(timeout=10)
    assert process.returncode == 2
    file = tmp_path / ".well-known/openid-configuration"
    assert error == f"authz emulator: --federate: {file}: No such file or directory\n"


def test_the_same_credential_twice_is_a_clear_error(tmp_path: Path, issuer: Path) -> None:
    """Issuer and subject together are unique in an application, in Entra as well."""
    twice = ("--federate", issuer, SUBJECT) * 2
    with start("127.0.0.1:0", tmp_path / "out", *twice) as process:
        _, error = process.communicate(timeout=10)
    assert process.returncode == 2
    assert "has a credential for it already" in error


def _port(process: subprocess.Popen[str]) -> int:
    """The port it listens on, as the kernel tells."""
    opened = []
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        # The server's thread opens and closes its certificate meanwhile.
        with contextlib.suppress(FileNotFoundError):
            opened.append(link.readlink().name)
    inodes = {
        name.removeprefix("socket:[").removesuffix("]")
        for name in opened
        if name.startswith("socket:[")
    }
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (address,) = [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]
    return int(address.partition(":")[2], 16)


def _peer_names(port: int, authority: Path, name: str) -> list[str]:
    """The DNS names of the certificate that is served, which must be good for one of them."""
    context = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        certificate = connection.getpeercert()
    assert certificate is not None
    names: list[tuple[str, str]] = certificate["subjectAltName"]  # type: ignore[assignment]
    return [value for kind, value in names if kind == "DNS"]
