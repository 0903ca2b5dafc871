"""TLS and mutual TLS of the gRPC door: renewal without restart, and the peer's identity as law."""

import asyncio
import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.stack import Client, Process, World, authorization, problem

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

    def client(self, spiffe_id: str | None = None) -> grpc.ChannelCredentials:
        """Credentials of a client, with a certificate if it is to have one."""
        roots = self.authority.cert_pem.bytes()
        if spiffe_id is None:
            return grpc.ssl_channel_credentials(roots)
        chain, key = workload_certificate(self.clients, spiffe_id)
        return grpc.ssl_channel_credentials(roots, key, chain)


def workload_certificate(authority: trustme.CA, spiffe_id: str) -> tuple[bytes, bytes]:
    """A certificate whose only name is a SPIFFE id, as a mesh issues them, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    now = dt.datetime.now(dt.UTC)
    signing_key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)]), critical=True
        )
        .sign(signing_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


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
    assert "the old one goes on" in process.log()


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
        assert 1 == process.wait()
        assert "listen.tls" in process.log()
