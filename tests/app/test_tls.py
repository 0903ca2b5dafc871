"""TLS and mutual TLS of the gRPC door: renewal without restart, and the peer's identity as law."""

import asyncio
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from support.fakes.workload import workload_certificate
from support.programs.stack import Client, Process, World, authorization, claims, problem, until
from support.proxy.secret_stream import SecretStream

Serve = Callable[..., Process]
DESK = "spiffe://cluster.example/ns/agents/sa/desk"
OTHER = "spiffe://cluster.example/ns/agents/sa/other"


class Files:
    """The server's files, and credentials of clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.clients = trustme.CA()
        self.certificate, self.key, self.client_ca = (
            folder / name for name in ("tls.crt", "tls.key", "clients.pem")
        )
        self.renew()
        self.clients.cert_pem.write_to_path(self.client_ca)

    def renew(self) -> bytes:
        """Put a new certificate in place; returns it."""
        leaf = self.authority.issue_cert("localhost", "127.0.0.1")
        leaf.private_key_pem.write_to_path(self.key)
        leaf.cert_chain_pems[0].write_to_path(self.certificate)
        return leaf.cert_chain_pems[0].bytes()

    def client(self, *names: str | x509.GeneralName) -> grpc.ChannelCredentials:
        """Credentials of a client, with a certificate if it is to have names."""
        roots = self.authority.cert_pem.bytes()
        if not names:
            return grpc.ssl_channel_credentials(roots)
        chain, key = workload_certificate(self.clients, *names)
        return grpc.ssl_channel_credentials(roots, key, chain)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Files in a folder of their own."""
    folder = tmp_path / "tls"
    folder.mkdir()
    return Files(folder)


def listen(files: Files, *, mutual: bool) -> dict[str, Any]:
    """Section `listen` with TLS."""
    tls = {"certificate_file": str(files.certificate), "key_file": str(files.key)}
    if mutual:
        tls["client_ca_file"] = str(files.client_ca)
    return {"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0", "tls": tls}


def served(process: Process) -> bytes:
    """The certificate that a new connection is shown."""
    host, _, port = process.event("serving")["grpc"].rpartition(":")
    return ssl.get_server_certificate((host, int(port))).encode()


def test_certificate_is_renewed_without_restart(files: Files, serve: Serve) -> None:
    """New connections see the new certificate; a broken one leaves the old one, loudly."""
    process = serve(listen=listen(files, mutual=False))
    first = served(process)
    renewed = files.renew()
    second = served(process)
    files.key.write_text("no key")
    third = served(process)

    assert first != renewed
    assert renewed.strip() == second.strip() == third.strip()
    process.event("certificate not usable, the previous one stays in use")


@pytest.mark.parametrize("kind", ["gone", "garbage", "another certificate's"])
async def test_a_key_that_cannot_be_used_any_more_is_said_without_a_connection(
    files: Files, serve: Serve, kind: str
) -> None:
    """Log, status and metrics have the file and the cause, and their end."""
    process = serve(listen=listen(files, mutual=False))
    series = 'authz_file_unusable{key="listen.tls.key_file"} '
    key = files.key.read_bytes()
    await until(lambda: series + "0.0" in process.admin("/metrics").text, seconds=30)
    if kind == "gone":
        files.key.unlink()
    elif kind == "garbage":
        files.key.write_text("garbage")
    else:
        files.authority.issue_cert("other").private_key_pem.write_to_path(files.key)
    said = await asyncio.to_thread(process.event, "certificate file not usable", 30.0)
    status = process.admin("/status").json()["files"]
    metrics = process.admin("/metrics").text
    files.key.write_bytes(key)
    await asyncio.to_thread(process.event, "certificate file usable again", 30.0)
    after = process.admin("/status").json()["files"]

    cause = {
        "gone": "No such file or directory",
        "garbage": "expected a private key without a password, PEM",
        "another certificate's": "is not the key of listen.tls.certificate_file",
    }[kind]
    assert status["listen.tls.certificate_file"] is None
    # What is expected is said at more length.
    assert status["listen.tls.key_file"].startswith(f"{files.key}: {cause}")
    assert ("listen.tls.key_file", status["listen.tls.key_file"]) == (said["key"], said["cause"])
    assert series + "1.0" in metrics
    assert after["listen.tls.key_file"] is None


def test_a_certificate_that_cannot_be_used_is_logged_once_and_so_is_its_return(
    files: Files, serve: Serve
) -> None:
    """Not at each connection; a file that is put back to the version in use is a change as well."""
    process = serve(listen=listen(files, mutual=False))
    certificate = files.certificate.read_bytes()
    served(process)
    files.certificate.unlink()
    for _ in range(3):
        served(process)
    files.certificate.write_bytes(certificate)
    for _ in range(2):
        served(process)
    process.event("certificate usable again")

    said = [record["event"] for record in process.events()]
    names = ("certificate not usable, the previous one stays in use", "certificate usable again")
    assert [1, 1] == [said.count(name) for name in names]


@pytest.mark.parametrize("kind", ["a pipe", "a key with a pass phrase"])
async def test_a_file_that_cannot_be_read_keeps_the_old_certificate(
    files: Files, serve: Serve, kind: str
) -> None:
    """Nobody waits: not for whoever would write into a pipe, nor for who would type a pass phrase."""
    process = serve(listen=listen(files, mutual=False))
    first = served(process)
    if kind == "a pipe":
        files.certificate.unlink()
        os.mkfifo(files.certificate)
    else:
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"a pass phrase"),
            )
        )
    during = await asyncio.to_thread(served, process)
    files.certificate.unlink()
    renewed = files.renew()
    after = await asyncio.to_thread(served, process)

    assert first == during
    assert renewed.strip() == after.strip()
    assert 0 == await asyncio.to_thread(process.stop)


async def test_mutual_tls_binds_the_agent_to_the_workload(
    files: Files, world: World, serve: Serve
) -> None:
    """Law 2: only the workload that the configuration names may use its agent; no header helps."""
    document = world.config(listen=listen(files, mutual=True))
    document["agents"]["desk"]["workloads"] = [DESK]
    process = serve(document)
    address = process.event("serving")["grpc"].replace("127.0.0.1", "localhost")
    async with Client(address, files.client(DESK)) as client:
        allowed = await client.check("egress", "autonomous")
    async with Client(address, files.client(OTHER)) as client:
        refused = await client.check("egress", "autonomous")
        unbound = await client.check("egress", "autonomous-clerk")

    assert authorization(allowed)["appid"] == world.agent["client_id"]
    assert problem(refused)["reason"] == "workload_not_allowed"
    assert authorization(unbound)["appid"] == world.sibling["client_id"]


async def test_mutual_tls_binds_references_to_the_workload(
    files: Files, world: World, serve: Serve
) -> None:
    """What one workload's Envoy was given to refer to a user is worth nothing in another's hands.

    Nor is it on the routes of another agent, from the very workload that received it.
    """
    document = world.config(listen=listen(files, mutual=True))
    document["inbound"]["clerk"] = {"agent": "clerk", "scopes": ["access_agent"]}
    for inbound in document["inbound"].values():
        inbound["forward"] = ["placeholder", "handle"]
    for route in ("graph", "graph-clerk"):
        document["egress"][route]["subject"] = ["placeholder", "handle"]
    process = serve(document)
    address = process.event("serving")["grpc"].replace("127.0.0.1", "localhost")
    async with Client(address, files.client(DESK)) as client:
        received = await client.check("inbound", "agent", world.token())
        set_ = {o.header.key: o.header.value for o in received.ok_response.headers}
        held = [{name: set_[name]} for name in ("authorization", "baggage")]
        allowed = [await client.check("egress", "graph", headers=each) for each in held]
        refused = [await client.check("egress", "graph-clerk", headers=each) for each in held]
    async with Client(address, files.client(OTHER)) as client:
        refused += [await client.check("egress", "graph", headers=each) for each in held]

    assert [world.agent["client_id"]] * 2 == [authorization(answer)["appid"] for answer in allowed]
    assert ["foreign_subject"] * 4 == [problem(answer)["reason"] for answer in refused]


async def test_mutual_tls_binds_pushed_tokens_to_the_workload(
    files: Files, world: World, serve: Serve
) -> None:
    """Law 2 for tokens given ahead: named workloads only; who proves no SPIFFE id gets nothing at all."""
    document = world.config(listen=listen(files, mutual=True))
    document["agents"]["desk"]["workloads"] = [DESK]
    process = serve(document)
    address = process.event("serving")["grpc"].replace("127.0.0.1", "localhost")
    async with SecretStream(address, files.client(DESK)) as envoy:
        await envoy.ask("autonomous")
        allowed = await envoy.hear()
    async with SecretStream(address, files.client(OTHER)) as envoy:
        await envoy.ask("autonomous", "autonomous-clerk")
        refused = await envoy.hear()
        if "autonomous-clerk" not in refused:
            refused |= await envoy.hear()
    async with SecretStream(address, files.client("https://no.spiffe.example")) as stranger:
        code, said = await stranger.status()

    assert (
        claims(allowed["autonomous"].removeprefix("Bearer "))["appid"] == (world.agent["client_id"])
    )
    assert "" == refused["autonomous"]
    assert (
        claims(refused["autonomous-clerk"].removeprefix("Bearer "))["appid"]
        == (world.sibling["client_id"])
    )
    assert grpc.StatusCode.PERMISSION_DENIED == code
    assert "listen.tls.client_ca_file" in said


@pytest.mark.parametrize(
    "names",
    [
        (x509.DNSName(DESK),),
        (x509.RFC822Name(f"{DESK}@x"), x509.DNSName(DESK)),
        ("https://elsewhere.example", x509.DNSName(DESK)),
        (DESK, OTHER),
        (DESK, "https://elsewhere.example"),
    ],
    ids=["DNS", "DNS and mail", "DNS and URI", "two ids", "id and URI"],
)
async def test_only_a_certificates_one_uri_name_is_an_identity(
    files: Files, world: World, serve: Serve, names: tuple[str | x509.GeneralName, ...]
) -> None:
    """Law 2: a name of another type is no SPIFFE id, and of several URI names none counts."""
    document = world.config(listen=listen(files, mutual=True))
    document["agents"]["desk"]["workloads"] = [DESK]
    process = serve(document)
    address = process.event("serving")["grpc"].replace("127.0.0.1", "localhost")
    async with Client(address, files.client(*names)) as client:
        refused = await client.check("egress", "autonomous")
    async with asyncio.timeout(20), SecretStream(address, files.client(*names)) as stranger:
        code, _ = await stranger.status()
    async with Client(address, files.client(DESK, x509.DNSName(OTHER))) as client:
        allowed = await client.check("egress", "autonomous")

    assert problem(refused)["reason"] == "workload_not_allowed"
    assert grpc.StatusCode.PERMISSION_DENIED == code
    assert authorization(allowed)["appid"] == world.agent["client_id"]


@pytest.mark.parametrize("tls", [False, True])
async def test_tokens_are_not_given_ahead_without_a_client_certificate(
    files: Files, serve: Serve, tls: bool
) -> None:
    """Plain TCP, or TLS on our side only: whoever connects has proved nothing."""
    plain = {"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    process = serve(listen=listen(files, mutual=False) if tls else plain)
    address = process.event("serving")["grpc"].replace("127.0.0.1", "localhost")
    async with SecretStream(address, files.client() if tls else None) as stranger:
        code, _ = await stranger.status()

    assert grpc.StatusCode.PERMISSION_DENIED == code
    assert {} == process.admin("/status").json()["pushed_secrets"]


async def test_a_client_without_certificate_gets_no_answer(files: Files, serve: Serve) -> None:
    """With `client_ca_file` the handshake itself refuses strangers."""
    process = serve(listen=listen(files, mutual=True))
    address = process.event("serving")["grpc"].replace("127.0.0.1", "localhost")
    async with Client(address, files.client()) as client:
        with pytest.raises((grpc.aio.AioRpcError, asyncio.TimeoutError)):
            await client.check("egress", "autonomous", seconds=1)


def test_unusable_certificate_at_the_start_is_said(
    files: Files, world: World, write: Callable[..., Path]
) -> None:
    """Nothing is served with a certificate that cannot be used."""
    files.key.write_text("no key")
    with Process("serve", "--config", str(write(listen=listen(files, mutual=False)))) as process:
        assert 2 == process.wait()
        assert f"listen.tls.key_file: {files.key}: expected a private key" in process.log()
