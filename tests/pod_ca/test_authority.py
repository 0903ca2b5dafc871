"""The pod's authority vouches for its hosts, and cannot be used for others, even with its key stolen."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from authz.core.secret import Secret
from authz.pod_ca.authority import LIFETIME, IssuedCertificate, PodAuthority, _pem_of
from support.fakes.clock import START

HOSTS: Final = ["graph.microsoft.com", "orders.example"]
NOW: Final = datetime.now(UTC).timestamp()


async def handshake(
    authority: PodAuthority, certificate: IssuedCertificate, name: str, folder: Path
) -> None:
    """Connect by TLS to a server with this certificate, as a client that trusts the authority."""
    file = folder / "server.pem"
    file.write_text(certificate.key.reveal() + certificate.chain)
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(file)
    client_context = ssl.create_default_context(cadata=authority.pem)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
    port = server.sockets[0].getsockname()[1]
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context, server_hostname=name
        )
        writer.close()
    finally:
        server.close()


async def test_clients_that_trust_it_accept_its_certificates(tmp_path: Path) -> None:
    """Each for its own host."""
    authority = PodAuthority.create(HOSTS, now=NOW)
    for host in HOSTS:
        certificate = authority.issue(host, now=NOW, lifetime=3600)
        await handshake(authority, certificate, host, tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(authority, certificate, HOSTS[0], tmp_path)


@pytest.mark.parametrize("name", ["login.microsoftonline.com", "127.0.0.1", "evil.example"])
async def test_a_stolen_key_is_of_no_use_for_other_names(tmp_path: Path, name: str) -> None:
    """What it signs for them is refused by clients that trust it (RFC 5280 section 4.2.1.10)."""
    authority = PodAuthority.create(HOSTS, now=NOW)
    stolen = load_pem_private_key(authority.dump().reveal().encode(), None)
    own = generate_private_key(SECP256R1())
    begin = datetime.now(UTC) - timedelta(minutes=1)
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.load_pem_x509_certificate(authority.pem.encode()).subject)
        .public_key(own.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=True)
        .sign(stolen, hashes.SHA256())  # type: ignore[arg-type]
    )
    chain = forged.public_bytes(Encoding.PEM).decode()
    certificate = IssuedCertificate(chain, Secret(_pem_of(own)), 0)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"(permitted|excluded) subtree"):
        await handshake(authority, certificate, name, tmp_path)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def test_it_signs_for_its_hosts_only() -> None:
    """A subdomain, which the constraint would allow, included."""
    authority = PodAuthority.create(HOSTS, now=START)
    for host in ("evil.example", "x.orders.example", ""):
        with pytest.raises(ValueError, match="not for"):
            authority.issue(host, now=START, lifetime=60)


def test_no_certificate_outlives_the_authority() -> None:
    """Near its end they are shorter."""
    authority = PodAuthority.create(HOSTS, now=START)
    late = START + LIFETIME.total_seconds() - 600
    assert authority.issue(HOSTS[0], now=late, lifetime=86400).expires_at <= late + 600


def test_what_is_dumped_can_be_loaded() -> None:
    """With its hosts; and anything else cannot."""
    authority = PodAuthority.create(HOSTS, now=START)
    again = PodAuthority.load(authority.dump().reveal().encode())
    assert (authority.pem, frozenset(HOSTS)) == (again.pem, again.hosts)
    other = PodAuthority.create(HOSTS, now=START)
    leaf = authority.issue(HOSTS[0], now=START, lifetime=60)
    own_key = authority.dump().reveal().split("-----BEGIN CERT")[0]
    for pem in (
        "",
        "x",
        own_key,
        authority.pem,
        own_key + other.pem,
        leaf.key.reveal() + leaf.chain,
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - of whichever kind
            PodAuthority.load(pem.encode())
