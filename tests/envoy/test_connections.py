"""Whom Envoy talks to over a network: the service with mutual TLS, and destinations named by a wildcard."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from authz.config import Config
from authz.config.reading.document import parse
from authz.doors.envoy.grpc_server import ServerSettings, TlsFiles
from authz.envoy_config.settings import AuthzTls
from support.peers.upstream import EchoUpstream
from support.proxy.envoy import envoy_binary
from support.proxy.ext_authz_server import ExtAuthzServer, allow
from support.proxy.sidecar import Authority, Sidecar

CONFIGURATION = """
inbound:
  chat:
    tenants: [11111111-0000-4000-8000-000000000001]
    audiences: [api://chat]
egress:
  internal:
    hosts: ["*"]
    flow: none
"""


@dataclass(frozen=True)
class Pair:
    """A certificate chain and its key, in files."""

    certificate: Path
    key: Path

    @classmethod
    def issue(cls, ca: trustme.CA, directory: Path, name: str) -> "Pair":
        """Let an authority sign a certificate for a name."""
        pair = cls(directory / f"{name}.pem", directory / f"{name}.key")
        issued = ca.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(pair.certificate)
        issued.private_key_pem.write_to_path(pair.key)
        return pair


@pytest.fixture(scope="module")
def secured(short_directory: Path, authority: Authority) -> tuple[Config, ServerSettings]:
    """A service on TCP that shows a certificate and asks for one, configured and listening alike."""
    server = Pair.issue(authority.ca, short_directory, "authz.example")
    config = parse(
        f"""
listen:
  grpc: 127.0.0.1:9901
  tls:
    certificate_file: {server.certificate}
    key_file: {server.key}
    client_ca_file: {authority.file}
{CONFIGURATION}""",
        {},
    )
    files = TlsFiles(server.certificate, server.key, authority.file)
    return config, ServerSettings("127.0.0.1:0", tls=files)


@pytest.fixture(scope="module")
def tls_service(secured: tuple[Config, ServerSettings]) -> Iterator[ExtAuthzServer]:
    """That service, with scripted answers."""
    envoy_binary()
    with ExtAuthzServer(secured[1]) as server:
        yield server


@pytest.fixture(scope="module")
def connected(
    secured: tuple[Config, ServerSettings],
    tls_service: ExtAuthzServer,
    authority: Authority,
    short_directory: Path,
) -> Iterator[Sidecar]:
    """A sidecar that asks it, and whose egress goes anywhere."""
    client = Pair.issue(authority.ca, short_directory, "envoy.example")
    with Sidecar(
        secured[0],
        authz_address=tls_service.address,
        authority=authority,
        certificates={},
        authz_tls=AuthzTls(authority.file, "authz.example", client.certificate, client.key),
    ) as sidecar:
        yield sidecar


def test_service_is_asked_over_mutual_tls(connected: Sidecar, tls_service: ExtAuthzServer) -> None:
    """The rendered cluster and the service's own server agree on certificates and health."""
    tls_service.answer = lambda _: allow(headers={"x-authz-subject": "user-1"})

    answer = connected.caller.get("/chat")

    assert 200 == answer.status_code
    assert ["user-1"] == connected.app.received[-1].values("x-authz-subject")


@pytest.mark.parametrize("server_name", ["authz.example", "other.example"])
def test_service_that_cannot_prove_its_name_is_not_believed(
    secured: tuple[Config, ServerSettings],
    tls_service: ExtAuthzServer,
    authority: Authority,
    short_directory: Path,
    server_name: str,
) -> None:
    """An allowing answer of another server lets nothing pass: the right name does, another does not."""
    tls_service.answer = lambda _: allow()
    client = Pair.issue(authority.ca, short_directory, "second.example")
    with Sidecar(
        secured[0],
        authz_address=tls_service.address,
        authority=authority,
        certificates={},
        authz_tls=AuthzTls(authority.file, server_name, client.certificate, client.key),
    ) as sidecar:
        status = sidecar.caller.get("/chat").status_code

    assert (200 if server_name == "authz.example" else 503) == status


@pytest.mark.parametrize(
    ("certificate", "status", "arrived"),
    [("api.localhost", 200, ["api.localhost"]), ("other.localhost", 503, [])],
)
def test_wildcard_destination_must_prove_the_name_that_was_asked_for(
    connected: Sidecar,
    tls_service: ExtAuthzServer,
    authority: Authority,
    certificate: str,
    status: int,
    arrived: list[str],
) -> None:
    """The request's host is resolved, and the server there needs a certificate for it."""
    tls_service.answer = lambda _: allow()
    with EchoUpstream(authority.server_context(certificate)) as destination:
        answer = connected.agent.get(f"http://api.localhost:{destination.port}/items")

        hosts = [seen.values("host")[0].partition(":")[0] for seen in destination.received]

    assert status == answer.status_code
    assert arrived == hosts
