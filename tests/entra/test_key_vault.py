"""Credential `key_vault`: the real Azure SDK against a strict vault, which is slow, away or renewed."""

import base64
import importlib
import json
import logging
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from structlog.testing import capture_logs

from authz.config.reading.document import parse
from authz.core.errors import Reason
from authz.entra.key_vault import REFRESH_AFTER, RETRY_AFTER, KeyVaults, fetch
from authz.entra.sources import CredentialAway, CredentialFault
from authz.entra.vault_client import VaultClient
from authz.entra.vault_place import VaultPlace
from authz.process.engine import Engine
from authz_dev.emulator.entities import Secret
from entra.test_credentials import Certified, register, with_credentials
from entra.test_proxy import running
from support.fakes.recorder import Recorder
from support.peers.key_vault import (
    FakeVault,
    add_reader,
    metadata_answer,
    pod_identity,
    service_account_token,
)
from support.programs.stack import World, denied, issued, missing, reload, stack, until

pytestmark = pytest.mark.thorough

PEM, PFX = "application/x-pem-file", "application/x-pkcs12"
# What points at other identities, or other ways, on the machine that runs these tests.
AMBIENT = (
    "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_USERNAME", "AZURE_PASSWORD",
    "AZURE_TOKEN_CREDENTIALS", "IDENTITY_ENDPOINT", "MSI_ENDPOINT", "NO_PROXY", "no_proxy",
)  # fmt: skip


class Timer:
    """Monotonic seconds that a test moves by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return time.monotonic() + self.ahead


@pytest.fixture
def timer() -> Timer:
    """The timer of the certificates."""
    return Timer()


@pytest.fixture
def vaults(timer: Timer) -> KeyVaults:
    """Certificates by the real SDK; the name of the fake vault does not end in the resource."""
    return KeyVaults(VaultClient(checks_resource=False).fetch, timer)


@pytest.fixture
def vault(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVault]:
    """A vault that the pod's workload identity may read. Proxy variables lead to nowhere."""
    key = rsa.generate_private_key(65537, 2048)
    reader = add_reader(world, federated_credentials=(pod_identity(world, key),))
    token = tmp_path / "pod-token"
    token.write_text(service_account_token(key, time.time()))
    for name in AMBIENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_TENANT_ID", world.tenant_id)
    monkeypatch.setenv("AZURE_CLIENT_ID", reader.client_id)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with FakeVault(world, reader.client_id) as vault:
        yield vault


def put(vault: FakeVault, certified: Certified, content_type: str = PEM) -> None:
    """Put a version of the certificate in the vault, as the vault keeps it."""
    value = certified.pem().decode()
    if content_type == PFX:
        content = pkcs12.serialize_key_and_certificates(
            b"desk", certified.key, certified.certificate, None, serialization.NoEncryption()
        )
        value = base64.b64encode(content).decode()
    vault.secrets["desk"] = (content_type, value)


def document_of(world: World, vault: FakeVault, **more: Any) -> dict[str, Any]:
    """The configuration with a blueprint whose certificate is in the vault."""
    credential = {"key_vault": {"url": vault.url, "certificate": "desk", **more}}
    document = with_credentials(world, credential)
    document["entra"]["ca_file"] = str(vault.ca_file)
    return document


def place_of(url: str, **changes: Any) -> VaultPlace:
    """Somewhere, with short times."""
    values: dict[str, Any] = {
        "url": url,
        "certificate": "desk",
        "client_id": None,
        "authority": "https://127.0.0.1:1",
        "ca_file": None,
        "proxy": None,
        "connect_timeout": 1.0,
        "timeout": 5.0,
        **changes,
    }
    return VaultPlace(**values)


def held(vaults: KeyVaults) -> bytes:
    """What the only certificate in use holds."""
    [kept] = vaults._kept.values()
    return kept.look()


@pytest.mark.parametrize("content_type", [PEM, PFX])
async def test_entra_takes_the_certificate_of_the_vault(
    world: World, vault: FakeVault, vaults: KeyVaults, content_type: str
) -> None:
    """Read with the pod's identity; one challenge, one read, for all agents of the blueprint."""
    certified = Certified()
    register(world, certified)
    put(vault, certified, content_type)
    document = document_of(world, vault, send_x5c=content_type == PFX)
    async with stack(world, document=document, vaults=vaults) as service:
        desk = issued(await service.egress("autonomous"))
        clerk = issued(await service.egress("autonomous-clerk"))

        assert {} == await missing(service.engine)
    assert [world.agent["client_id"], world.sibling["client_id"]] == [desk["appid"], clerk["appid"]]
    assert ["challenged", "read"] == vault.requests


def test_a_configuration_fetches_nothing(world: World, vault: FakeVault, vaults: KeyVaults) -> None:
    """Neither does an engine that is built of it: a configuration can be checked anywhere."""
    config = parse(json.dumps(document_of(world, vault)), {})
    Engine(config, environ={}, observer=Recorder(), vaults=vaults)

    assert [] == vault.requests


async def test_a_renewed_certificate_is_noticed(
    world: World, vault: FakeVault, vaults: KeyVaults, timer: Timer
) -> None:
    """Nobody waits for it: the old one is used until the new one is there."""
    old, new = Certified(), Certified(days=60)
    register(world, old)
    put(vault, old)
    async with stack(world, document=document_of(world, vault), vaults=vaults) as service:
        await service.egress("autonomous")
        register(world, new)
        put(vault, new)
        before = held(vaults)
        timer.ahead += REFRESH_AFTER
        meanwhile = issued(await service.egress("autonomous-clerk"))
        await until(lambda: held(vaults) != before)
        # The old one is at its end.
        directory = world.emulator.directory
        directory.update_application(
            world.tenant_id, world.blueprint["client_id"], certificates=(new.certificate,)
        )
        afterwards = issued(await service.egress("blueprint"))
        told = service.engine.credential_expiries()

    assert world.sibling["client_id"] == meanwhile["appid"]
    assert {("support", "key_vault")} == set(told)
    assert 60 == round(told["support", "key_vault"] / 86400)
    assert world.blueprint["client_id"] == afterwards["appid"]


@pytest.mark.parametrize("failure", ["gone", "refuses", "nonsense"])
async def test_an_outage_leaves_the_old_certificate(
    world: World, vault: FakeVault, vaults: KeyVaults, timer: Timer, failure: str
) -> None:
    """Law 9, and said once however often it happens."""
    certified = Certified()
    register(world, certified)
    put(vault, certified)
    async with stack(world, document=document_of(world, vault), vaults=vaults) as service:
        await service.egress("autonomous")
        if failure == "gone":
            vault.stop()
        elif failure == "refuses":
            vault.failure = (403, "denied")
        else:
            vault.secrets["desk"] = (PEM, "-----BEGIN nonsense")
        with capture_logs() as logs:
            for wait in (REFRESH_AFTER, RETRY_AFTER):
                timer.ahead += wait
                assert {} == await missing(service.engine)
                [kept] = vaults._kept.values()
                await until(lambda kept=kept: not kept._is_fetching)
            assert {} == await missing(service.engine)
            clerk = issued(await service.egress("autonomous-clerk"))
        ((stands,), unreadable) = (
            service.engine.credentials()["support"],
            service.engine.unreadable_credentials()["support", "key_vault"],
        )

    assert world.sibling["client_id"] == clerk["appid"]
    assert [True] == [e["old_one_goes_on"] for e in logs if e["event"] == "credential not usable"]
    assert unreadable
    assert "key_vault" in stands["fault"]


async def test_a_new_configuration_need_not_wait_for_the_vault(
    world: World, vault: FakeVault, vaults: KeyVaults
) -> None:
    """What the old one fetched is there; what none uses any more is forgotten."""
    certified = Certified()
    register(world, certified)
    put(vault, certified)
    document = document_of(world, vault)
    async with stack(world, document=document, vaults=vaults) as service:
        await service.egress("autonomous")
        vault.stop()
        document["egress"]["more"] = {"flow": "none"}
        await reload(service.engine, document)
        assert {} == await missing(service.engine)
        clerk = issued(await service.egress("autonomous-clerk"))
        await reload(service.engine, world.config())

    assert world.sibling["client_id"] == clerk["appid"]


class Hanging:
    """A vault that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = threading.Event()

    def fetch(self, place: VaultPlace) -> str:
        """Hang."""
        self.asked += 1
        self.answer.wait(30)
        return Certified().pem().decode()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """Answers at the end, at the latest."""
    hanging = Hanging()
    yield hanging
    hanging.answer.set()


async def test_readiness_does_not_wait_for_the_vault(world: World, hanging: Hanging) -> None:
    """It runs where Checks are answered. It begins the fetch and says that it is under way."""
    vaults = KeyVaults(hanging.fetch)
    document = with_credentials(world, {"key_vault": {"url": "https://v", "certificate": "desk"}})
    async with stack(world, document=document, vaults=vaults) as service:
        said = [await missing(service.engine) for _ in range(3)]
        hanging.answer.set()
        await until(lambda: not service.engine.missing())

    expected = {
        "credentials": {"support": "key_vault https://v desk: the first fetch is under way"}
    }
    assert [expected] * 3 == said
    assert 1 == hanging.asked


async def test_a_request_waits_for_the_first_fetch_but_not_for_long(
    world: World, hanging: Hanging
) -> None:
    """Then the vault is away, which is not the configuration's fault."""
    document = with_credentials(world, {"key_vault": {"url": "https://v", "certificate": "desk"}})
    document["entra"]["timeout"] = "300ms"
    vaults = KeyVaults(hanging.fetch)
    async with stack(world, document=document, vaults=vaults, keys=False) as service:
        assert Reason.EXCHANGE_UNAVAILABLE == denied(await service.egress("autonomous"))


def test_readers_wait_together(hanging: Hanging) -> None:
    """One fetch for all, and all get it."""
    credential = KeyVaults(hanging.fetch).credential(place_of("https://v"), send_x5c=False)
    found: list[bytes] = []
    readers = [
        threading.Thread(target=lambda: found.append(credential.proofs()[0].version))
        for _ in range(8)
    ]
    for reader in readers:
        reader.start()
    hanging.answer.set()
    for reader in readers:
        reader.join()

    assert (8, 1, 1) == (len(found), len(set(found)), hanging.asked)


def test_a_failed_fetch_is_not_repeated_at_once(timer: Timer) -> None:
    """Readiness asks ten times a second; the vault is not to be."""
    asked: list[float] = []

    def refuse(place: VaultPlace) -> str:
        asked.append(timer())
        raise CredentialFault("no")

    credential = KeyVaults(refuse, timer).credential(place_of("https://v"), send_x5c=False)
    for _ in range(5):
        with pytest.raises(CredentialFault, match="no"):
            credential.proofs()[0]
    timer.ahead += RETRY_AFTER
    with pytest.raises(CredentialFault, match="no"):
        credential.proofs()[0]

    assert 2 == len(asked)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_does_not_end_the_fetching(timer: Timer) -> None:
    """What nobody foresaw is a fault like others, and tried again."""
    answers: list[Callable[[], str]] = [lambda: str(1 // 0), lambda: Certified().pem().decode()]
    vaults = KeyVaults(lambda _: answers.pop(0)(), timer)
    credential = vaults.credential(place_of("https://v"), send_x5c=False)
    with pytest.raises(CredentialFault, match="a defect"):
        credential.proofs()[0]
    timer.ahead += RETRY_AFTER

    assert credential.proofs()[0].version


REFUSALS = {
    403: (Reason.EXCHANGE_MISCONFIGURED, "the identity may not read the secret"),
    404: (Reason.EXCHANGE_MISCONFIGURED, "the vault has no such certificate"),
    429: (Reason.EXCHANGE_UNAVAILABLE, "status 429"),
    503: (Reason.EXCHANGE_UNAVAILABLE, "status 503"),
}


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refusal_is_told_without_what_the_vault_said(
    world: World,
    vault: FakeVault,
    vaults: KeyVaults,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The status and what it means; whose fault it is decides between the two reasons."""
    reason, words = REFUSALS[status]
    vault.failure = (status, "hunter2")
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        async with stack(world, document=document_of(world, vault), vaults=vaults) as service:
            record = await service.egress("autonomous")
            lacking = await missing(service.engine)

    assert reason == denied(record)
    assert words in lacking["credentials"]["support"]
    assert f"status {status}" in lacking["credentials"]["support"]
    everything = f"{logs} {lacking} {record} {record.error!r} {caplog.text}"
    assert "hunter2" not in everything
    assert "eyJ" not in everything


async def test_the_private_key_is_printed_nowhere(
    world: World, vault: FakeVault, vaults: KeyVaults, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither from a secret that is no certificate, nor from one that is (law 5)."""
    text = "hunter2" * 20
    certified = Certified()
    caplog.set_level(logging.DEBUG)
    for value in (f"\u00e9{text}", text, f"-----BEGIN {text}", certified.pem().decode()):
        vault.secrets["desk"] = (PEM, value)
        place = place_of(vault.url, ca_file=vault.ca_file, authority=world.emulator.authority)
        certificates = KeyVaults(VaultClient(checks_resource=False).fetch)
        credential = certificates.credential(place, send_x5c=False)
        with capture_logs() as logs:
            try:
                shown = repr(credential.proofs()[0])
            except CredentialFault as fault:
                shown = "".join(traceback.format_exception(fault))
        everything = f"{shown} {credential!r} {vars(credential)} {logs} {caplog.text}"
        assert "hunter2" not in everything
        assert "PRIVATE" not in everything


def test_a_vault_that_asks_for_the_token_of_another_resource_gets_none(
    world: World, vault: FakeVault
) -> None:
    """Its name does not end in `vault.azure.net`, as the name of a real one does."""
    world.emulator.calls.reset()
    place = place_of(vault.url, ca_file=vault.ca_file, authority=world.emulator.authority)
    with pytest.raises(CredentialFault, match="does not fit its name"):
        fetch(place)

    assert ["challenged"] == vault.requests
    assert 0 == world.emulator.calls.snapshot()["total"]


async def test_the_proxy_of_the_configuration_is_used(
    world: World, vault: FakeVault, vaults: KeyVaults
) -> None:
    """For the vault as for Entra; the environment's leads to Envoy, and is not."""
    certified = Certified()
    register(world, certified)
    put(vault, certified)
    async with running() as (proxy, port):
        document = document_of(world, vault)
        document["entra"]["proxy"] = f"http://127.0.0.1:{port}"
        async with stack(world, document=document, vaults=vaults) as service:
            issued(await service.egress("autonomous"))

    assert vault.url.removeprefix("https://") in proxy.connected


async def test_a_vault_that_nobody_vouches_for_is_not_asked(
    world: World, vault: FakeVault, vaults: KeyVaults
) -> None:
    """The authorities are those of the configuration."""
    document = document_of(world, vault)
    document["entra"]["ca_file"] = str(world.emulator.ca_file)
    async with stack(world, document=document, vaults=vaults) as service:
        assert Reason.EXCHANGE_UNAVAILABLE == denied(await service.egress("autonomous"))

    assert [] == vault.requests


async def test_a_user_assigned_identity(
    world: World, vaults: KeyVaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's metadata service is asked for that identity and for the vaults' resource."""
    for name in (*AMBIENT, "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"):
        monkeypatch.delenv(name, raising=False)
    reader = add_reader(world)
    token = world.emulator.mint_user_token(
        user=None, audience="https://vault.azure.net", client_id=reader.client_id
    )
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = metadata_answer(token)
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    certified = Certified()
    register(world, certified)
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as host,
        FakeVault(world, reader.client_id) as vault,
    ):
        threading.Thread(target=host.serve_forever, daemon=True).start()
        monkeypatch.setenv(
            "AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{host.server_port}"
        )
        put(vault, certified)
        document = document_of(world, vault, client_id=reader.client_id)
        async with stack(world, document=document, vaults=vaults) as service:
            token_of_desk = issued(await service.egress("autonomous"))
        host.shutdown()

    assert world.agent["client_id"] == token_of_desk["appid"]
    assert [f"client_id={reader.client_id}" in path for path in asked] == [True] * len(asked)
    assert "resource=https://vault.azure.net" in asked[-1]


def test_a_service_principal_of_the_environment(
    world: World, vault: FakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For hosts outside Azure. It is asked for at the authority of the configuration."""
    reader = add_reader(world, secrets=(Secret("hunter2"),))
    monkeypatch.setenv("AZURE_CLIENT_ID", reader.client_id)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "hunter2")
    place = place_of(vault.url, ca_file=vault.ca_file, authority=world.emulator.authority)
    with FakeVault(world, reader.client_id) as other:
        put(other, Certified())
        found = replace(place, url=other.url, ca_file=other.ca_file)
        assert "PRIVATE KEY" in VaultClient(checks_resource=False).fetch(found)


def test_a_vault_that_redirects_sends_nobody_to_another_server(
    world: World, vault: FakeVault, tmp_path: Path
) -> None:
    """The other one listens, has the certificate, and is not asked: neither token nor trust moves."""
    trusted = tmp_path / "both.pem"
    authorities = vault.ca_file.read_bytes()
    with FakeVault(world, vault.reader) as other:
        trusted.write_bytes(authorities + other.ca_file.read_bytes())
        put(other, Certified())
        vault.redirect = other.url
        place = place_of(vault.url, ca_file=trusted, authority=world.emulator.authority)
        client = VaultClient(checks_resource=False)
        with pytest.raises(CredentialFault, match="status 307"):
            client.fetch(place)
        asked = list(other.requests)

        assert [] == asked
        assert "PRIVATE KEY" in client.fetch(replace(place, url=other.url))


def test_an_identity_that_is_out_of_reach_is_no_fault_of_the_configuration(
    world: World, vault: FakeVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one that is refused, or not complete, is."""
    place = place_of(vault.url, ca_file=vault.ca_file, authority=world.emulator.authority)
    client = VaultClient(checks_resource=False)
    with pytest.raises(CredentialAway, match="no answer"):
        client.fetch(replace(place, authority="https://127.0.0.1:1"))
    with pytest.raises(CredentialFault, match="status 401: the identity gets no token") as refused:
        client.fetch(replace(place, client_id=world.reports["client_id"]))
    monkeypatch.delenv("AZURE_CLIENT_ID")
    with pytest.raises(CredentialFault, match="AZURE_CLIENT_ID is not"):
        client.fetch(place)

    assert not isinstance(refused.value, CredentialAway)


def test_without_the_extra_the_fault_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service runs; the credential is not usable."""
    monkeypatch.delitem(sys.modules, "authz.entra.vault_client")
    monkeypatch.delattr(importlib.import_module("authz.entra"), "vault_client")
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    credential = KeyVaults().credential(place_of("https://v"), send_x5c=False)
    with pytest.raises(CredentialFault) as caught:
        credential.proofs()[0]

    assert not isinstance(caught.value, CredentialAway)
    assert str(caught.value) == (
        "key_vault https://v desk: the Azure SDK is not installed: install the extra key-vault of "
        "entra-authz: pip install '.[key-vault]' in a checkout"
    )


def test_the_sdk_is_not_loaded_until_it_is_needed() -> None:
    """It costs memory that a service without such a credential does not pay."""
    code = "import sys, authz.process.app, authz.config; print([n for n in sys.modules if n.startswith('azure')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.strip()
