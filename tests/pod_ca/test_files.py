"""Files of the pod's authority: trust outlives restarts of the container, and nobody reads the key."""

import ssl
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from authz.pod_ca.authority import LIFETIME
from authz.pod_ca.files import RENEW_BEFORE, open_authority, publish
from support.fakes.clock import START

HOSTS: Final = ["graph.microsoft.com", "orders.example"]


def test_a_container_that_starts_again_has_the_same_authority(tmp_path: Path) -> None:
    """The app read it when it started, and goes on trusting it. Fewer hosts are no reason for another."""
    file = tmp_path / "ca.key"
    first = open_authority(file, HOSTS, now=START)
    assert 0o600 == file.stat().st_mode & 0o777
    for hosts in (HOSTS, HOSTS[:1]):
        assert first.pem == open_authority(file, hosts, now=START + 86400).pem
    assert [file] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("hosts", "later"),
    [([*HOSTS, "new.example"], 0.0), (HOSTS, LIFETIME.total_seconds() - RENEW_BEFORE)],
)
def test_another_one_where_the_first_will_not_do(
    tmp_path: Path, hosts: list[str], later: float, capfd: pytest.CaptureFixture[str]
) -> None:
    """New hosts, or near its end: said aloud, because the app has to be restarted."""
    file = tmp_path / "ca.key"
    first = open_authority(file, HOSTS, now=START)
    second = open_authority(file, hosts, now=START + later)
    assert first.pem != second.pem
    assert frozenset(hosts) == second.hosts
    assert "restart the app" in capfd.readouterr().out


def test_a_file_that_is_none_is_replaced(tmp_path: Path) -> None:
    """Half a file of a container that was killed, for instance."""
    file = tmp_path / "ca.key"
    file.write_text("half a k")
    assert open_authority(file, HOSTS, now=START).pem == open_authority(file, HOSTS, now=START).pem


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Of the operating system, which names it."""
    with pytest.raises(OSError, match="nowhere"):
        open_authority(tmp_path / "nowhere/ca.key", HOSTS, now=START)


def test_what_the_app_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority alone, and with the system's: each for other variables. Everybody may read them."""
    system = open_authority(tmp_path / "other.key", ["system.example"], now=START)
    (tmp_path / "system.pem").write_text(system.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    authority = open_authority(tmp_path / "ca.key", HOSTS, now=START)
    alone, bundle = tmp_path / "ca.pem", tmp_path / "bundle.pem"
    publish(authority, alone, bundle)
    assert authority.pem == alone.read_text()
    assert 0o644 == bundle.stat().st_mode & 0o777
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=bundle)
    assert 2 == len(context.get_ca_certs())
    publish(authority, alone)
    assert "PRIVATE" not in alone.read_text() + bundle.read_text()


def test_java_has_a_form_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same authorities, no key, no password."""
    system = open_authority(tmp_path / "other.key", ["system.example"], now=START)
    (tmp_path / "system.pem").write_text(system.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    authority = open_authority(tmp_path / "ca.key", HOSTS, now=START)
    store = tmp_path / "truststore.p12"
    publish(authority, tmp_path / "ca.pem", truststore_file=store)
    found = load_pkcs12(store.read_bytes(), None)
    assert found.key is None
    assert found.cert is None
    pems = [entry.certificate.public_bytes(Encoding.PEM) for entry in found.additional_certs]
    assert {authority.pem.encode(), system.pem.encode()} == set(pems)
    assert 0o644 == store.stat().st_mode & 0o777
    assert not (tmp_path / "bundle.pem").exists()
