"""Credentials: each kind against the strict emulator, in order, and rotated without a restart."""

import base64
import datetime as dt
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from authz.core.errors import Reason
from authz.entra.credentials import CLOCK_SKEW, Credential, FederatedToken
from authz.entra.sources import CredentialFault
from authz_dev.emulator.entities import Secret
from support.peers.service_account import Cluster
from support.programs.stack import Stack, World, denied, issued, missing, reload, stack


class Certified:
    """A self-signed certificate with its key."""

    def __init__(self, name: str = "desk", *, days: int = 30) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=days))
            .sign(self.key, hashes.SHA256())
        )

    def pem(self, password: str | None = None) -> bytes:
        """Key and certificate as PEM."""
        protection: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        ) + self.certificate.public_bytes(serialization.Encoding.PEM)

    def pfx(self, password: str) -> bytes:
        """Key and certificate as PKCS #12."""
        return pkcs12.serialize_key_and_certificates(
            b"desk", self.key, self.certificate, None,
            serialization.BestAvailableEncryption(password.encode()),
        )  # fmt: skip


def register(world: World, certified: Certified) -> None:
    """Put the certificate on the blueprint."""
    directory = world.emulator.directory
    blueprint = directory.application(world.tenant_id, world.blueprint["client_id"])
    assert blueprint is not None
    directory.add_certificate(blueprint, certified.certificate)


def with_credentials(world: World, *credentials: dict[str, Any]) -> dict[str, Any]:
    """The configuration with other credentials of the blueprint."""
    document = world.config()
    document["blueprints"]["support"]["credentials"] = list(credentials)
    return document


@pytest.mark.parametrize("x5c", [False, True])
async def test_pem_certificate(world: World, tmp_path: Path, x5c: bool) -> None:
    """A PEM file with key and certificate signs the assertion, with and without its chain."""
    certified = Certified()
    register(world, certified)
    file = tmp_path / "cert.pem"
    file.write_bytes(certified.pem())
    document = with_credentials(world, {"certificate": {"file": str(file), "send_x5c": x5c}})
    async with stack(world, document=document) as service:
        assert issued(await service.egress("autonomous"))["appid"] == world.agent["client_id"]


async def test_pfx_certificate_with_password(world: World, tmp_path: Path) -> None:
    """A PFX file with a password in a file of its own."""
    certified = Certified()
    register(world, certified)
    (tmp_path / "cert.pfx").write_bytes(certified.pfx("pass word"))
    (tmp_path / "password").write_text("pass word\n")
    document = with_credentials(
        world,
        {
            "certificate": {
                "file": str(tmp_path / "cert.pfx"),
                "password_file": str(tmp_path / "password"),
            }
        },
    )
    async with stack(world, document=document) as service:
        assert issued(await service.egress("autonomous"))["appid"] == world.agent["client_id"]


async def test_certificate_from_the_environment(world: World) -> None:
    """PFX in base64 in an environment variable, as the Entra SDK's Base64Encoded source has it."""
    certified = Certified()
    register(world, certified)
    environ = {"CERT": base64.b64encode(certified.pfx("pw")).decode(), "PASSWORD": "pw"}
    document = with_credentials(world, {"certificate": {"env": "CERT", "password_env": "PASSWORD"}})
    async with stack(world, document=document, environ=environ) as service:
        assert issued(await service.egress("autonomous"))["appid"] == world.agent["client_id"]


async def test_secret_from_the_environment(world: World) -> None:
    """A secret that an environment variable holds."""
    document = with_credentials(world, {"client_secret": {"env": "BLUEPRINT_SECRET"}})
    environ = {"BLUEPRINT_SECRET": world.blueprint["client_secret"]}
    async with stack(world, document=document, environ=environ) as service:
        assert issued(await service.egress("autonomous"))["appid"] == world.agent["client_id"]


async def test_federated_token_is_read_at_each_assertion(world: World, tmp_path: Path) -> None:
    """Law 9: the file's present content is what goes out, every time."""
    cluster = Cluster(world)
    file = tmp_path / "token"
    file.write_text(cluster.token(lifetime=-3600))
    document = with_credentials(world, {"federated_token": {"file": str(file)}})
    async with stack(world, document=document) as service:
        expired = await service.egress("autonomous")
        file.write_text(cluster.token())
        service.clock.ahead += 30
        renewed = await service.egress("autonomous")

        assert Reason.EXCHANGE_MISCONFIGURED == denied(expired)
        assert issued(renewed)["appid"] == world.agent["client_id"]


async def test_azure_workload_identity_works_unconfigured(world: World, tmp_path: Path) -> None:
    """With the webhook's variables a blueprint needs no credentials in the configuration."""
    cluster = Cluster(world)
    file = tmp_path / "token"
    file.write_text(cluster.token())
    document = world.config()
    del document["blueprints"]["support"]["credentials"]
    environ = {"AZURE_FEDERATED_TOKEN_FILE": str(file)}
    async with stack(world, document=document, environ=environ) as service:
        assert issued(await service.egress("autonomous"))["appid"] == world.agent["client_id"]


@pytest.fixture
def metadata_service(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An instance metadata service on loopback, whose identity the blueprint trusts."""
    cluster = Cluster(world)
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.headers.get("Metadata") != "true":
                self.send_error(400)
                return
            body = json.dumps(
                {
                    "access_token": cluster.token(lifetime=3600),
                    "expires_in": "3600",
                    "token_type": "Bearer",
                    "resource": "api://AzureADTokenExchange",
                }
            ).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(
        "AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{server.server_port}"
    )
    yield asked
    server.shutdown()
    server.server_close()


async def test_managed_identity(world: World, metadata_service: list[str]) -> None:
    """The host's identity vouches for the blueprint; its token is asked for once and kept."""
    document = with_credentials(world, {"managed_identity": {}})
    async with stack(world, document=document) as service:
        desk = issued(await service.egress("autonomous"))
        clerk = issued(await service.egress("autonomous-clerk"))

        assert [world.agent["client_id"], world.sibling["client_id"]] == [
            desk["appid"],
            clerk["appid"],
        ]
        assert 1 == len(metadata_service)
        assert "AzureADTokenExchange" in metadata_service[0]


def _to_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (Path.unlink, "No such file or directory"),
    "a pipe": (_to_pipe, "is no regular file"),
    "too large": (lambda file: file.write_bytes(b"x" * 70_000), "exceeds 65536 bytes"),
    "garbage": (lambda file: file.write_bytes(b"\x80garbage"), "is neither PEM nor PFX"),
    "empty": (lambda file: file.write_bytes(b""), "is neither PEM nor PFX"),
}
"""What becomes of a certificate's file, and what is said of it."""


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_a_file_that_cannot_be_read_any_more_is_said_once_and_so_is_its_return(
    world: World, tmp_path: Path, kind: str
) -> None:
    """Status and gauge have it for as long as it lasts; the log has its beginning and its end."""
    spoil, cause = UNREADABLE[kind]
    certified = Certified()
    register(world, certified)
    file = tmp_path / "cert.pem"
    file.write_bytes(certified.pem())
    document = with_credentials(world, {"certificate": {"file": str(file)}})
    key = "support", "certificate"
    async with stack(world, document=document) as service:
        engine = service.engine
        before = engine.unreadable_credentials()[key]
        with capture_logs() as logs:
            spoil(file)
            for _ in range(3):
                assert {} == await missing(engine)
            ((meanwhile,), is_unreadable) = (
                engine.credentials()["support"],
                engine.unreadable_credentials()[key],
            )
            if kind == "a pipe":
                file.unlink()
            file.write_bytes(certified.pem())
            for _ in range(3):
                assert {} == await missing(engine)
        ((after,), is_still) = (
            engine.credentials()["support"],
            engine.unreadable_credentials()[key],
        )

    assert (False, True, False) == (before, is_unreadable, is_still)
    assert str(file) in meanwhile["fault"]
    assert cause in meanwhile["fault"]
    assert after["fault"] is None
    assert ["credential not usable", "credential usable again"] == [
        entry["event"] for entry in logs if "usable" in entry["event"]
    ]


async def test_a_fault_behind_a_credential_that_is_usable_again_ends_as_well(
    world: World, tmp_path: Path
) -> None:
    """It is looked at until it is put right, though the one before it serves; then no more is read."""
    first, second = tmp_path / "first", tmp_path / "second"
    document = with_credentials(
        world, *({"client_secret": {"file": str(file)}} for file in (first, second))
    )
    async with stack(world, document=document) as service:
        engine = service.engine
        both = await missing(engine)
        first.write_text(world.blueprint["client_secret"])
        second.write_text("another")
        served = await missing(engine)
        faults = [one["fault"] for one in engine.credentials()["support"]]

    assert (["credentials"], {}) == (list(both), served)
    assert [None, None] == faults


async def test_the_way_back_to_an_earlier_secret_is_logged(world: World) -> None:
    """Like any other change, with what Entra has said of this version."""
    secret = world.secret_file.read_text()
    async with stack(world) as service:
        await service.egress("autonomous")
        with capture_logs() as logs:
            for content in ("wrong", secret, secret):
                world.secret_file.write_text(content)
                await missing(service.engine)

    changes = [entry for entry in logs if entry["event"] == "credential changed"]
    assert ["unproved", "accepted"] == [entry["standing"] for entry in changes]
    assert {f"client_secret {world.secret_file}"} == {entry["credential"] for entry in changes}
    assert secret not in str(logs)


async def test_credentials_are_tried_in_order(world: World, tmp_path: Path) -> None:
    """One that cannot be read and one that Entra refuses are passed over, loudly."""
    wrong = tmp_path / "wrong"
    wrong.write_text("not the secret")
    document = with_credentials(
        world,
        {"certificate": {"file": str(tmp_path / "absent.pem")}},
        {"client_secret": {"file": str(wrong)}},
        {"client_secret": {"file": str(world.secret_file)}},
    )
    with capture_logs() as logs:
        async with stack(world, document=document) as service:
            record = await service.egress("autonomous")

    assert issued(record)["appid"] == world.agent["client_id"]
    assert {"credential not usable", "credential refused"} <= {entry["event"] for entry in logs}
    assert "not the secret" not in str(logs)


async def test_rotated_secret_is_picked_up_without_restart(world: World) -> None:
    """The old secret ends at Entra, the file has the new one: the next T1 uses it."""
    async with stack(world) as service:
        await service.egress("autonomous")
        directory = world.emulator.directory
        blueprint = directory.application(world.tenant_id, world.blueprint["client_id"])
        assert blueprint is not None
        directory.update_application(
            world.tenant_id, blueprint.client_id, secrets=(Secret("the new secret"),)
        )
        world.secret_file.write_text("the new secret\n")

        record = await service.egress("autonomous-clerk")

        assert issued(record)["appid"] == world.sibling["client_id"]


@pytest.mark.parametrize("bad", [b"", b"\xff\xfe"])
async def test_a_bad_new_secret_leaves_the_old_one(world: World, bad: bytes) -> None:
    """Law 9: a version that cannot be used keeps the old one, loudly."""
    async with stack(world) as service:
        await service.egress("autonomous")
        world.secret_file.write_bytes(bad)
        with capture_logs() as logs:
            record = await service.egress("autonomous-clerk")

        assert issued(record)["appid"] == world.sibling["client_id"]
        assert [True] == [
            e["old_one_goes_on"] for e in logs if e["event"] == "credential not usable"
        ]


async def test_a_certificate_in_the_middle_of_its_rotation_leaves_the_old_one(
    world: World, tmp_path: Path
) -> None:
    """A file whose key and certificate do not fit is not a credential."""
    old, new = Certified(), Certified()
    register(world, old)
    register(world, new)
    file = tmp_path / "cert.pem"
    file.write_bytes(old.pem())
    document = with_credentials(world, {"certificate": {"file": str(file)}})
    async with stack(world, document=document) as service:
        await service.egress("autonomous")
        mixed = new.pem().partition(b"-----BEGIN CERTIFICATE")[0]
        file.write_bytes(mixed + old.certificate.public_bytes(serialization.Encoding.PEM))
        meanwhile = await service.egress("autonomous-clerk")
        file.write_bytes(new.pem())
        blueprint = await service.egress("blueprint")

        assert issued(meanwhile)["appid"] == world.sibling["client_id"]
        assert issued(blueprint)["appid"] == world.blueprint["client_id"]


async def test_the_expiry_of_a_certificate_is_told_and_follows_its_rotation(
    world: World, tmp_path: Path
) -> None:
    """Of the version in use: the old one while the new one cannot be used, and then the new one."""
    old, new = Certified(days=30), Certified(days=90)
    register(world, old)
    file = tmp_path / "cert.pem"
    file.write_bytes(old.pem())
    document = with_credentials(world, {"certificate": {"file": str(file)}})
    async with stack(world, document=document) as service:
        told = []
        for content in (old.pem(), b"half a certificate", new.pem()):
            file.write_bytes(content)
            await missing(service.engine)
            told.append(service.engine.credential_expiries())

        assert [{("support", "certificate")}] * 3 == [set(left) for left in told]
        assert [30, 30, 90] == [round(left["support", "certificate"] / 86400) for left in told]


async def test_the_expiries_told_are_of_certificates_that_are_tried(
    world: World, tmp_path: Path
) -> None:
    """One that Entra refuses is tried first each time; those after the one it takes are never read."""
    refused, unread = Certified(days=5), Certified(days=1)
    (tmp_path / "refused.pem").write_bytes(refused.pem())
    (tmp_path / "unread.pem").write_bytes(unread.pem())
    document = with_credentials(
        world,
        {"certificate": {"file": str(tmp_path / "refused.pem")}},
        {"client_secret": {"file": str(world.secret_file)}},
        {"certificate": {"file": str(tmp_path / "unread.pem")}},
    )
    async with stack(world, document=document) as service:
        issued(await service.egress("autonomous"))
        left = service.engine.credential_expiries()

        assert [("support", "certificate")] == list(left)
        assert 5 == round(left["support", "certificate"] / 86400)


async def test_a_certificate_that_stood_in_once_is_told_of_no_more(
    world: World, tmp_path: Path
) -> None:
    """While the first credential is away the second is in use, and counts for as long as it is."""
    standing_in = Certified(days=5)
    register(world, standing_in)
    (tmp_path / "second.pem").write_bytes(standing_in.pem())
    secret = world.secret_file.read_text()
    world.secret_file.unlink()
    document = with_credentials(
        world,
        {"client_secret": {"file": str(world.secret_file)}},
        {"certificate": {"file": str(tmp_path / "second.pem")}},
    )
    async with stack(world, document=document) as service:
        issued(await service.egress("autonomous"))
        meanwhile = service.engine.credential_expiries()
        world.secret_file.write_text(secret)
        issued(await service.egress("blueprint"))

        assert [("support", "certificate")] == list(meanwhile)
        assert {} == service.engine.credential_expiries()


async def test_no_usable_credential_is_not_ready_and_our_configuration(world: World) -> None:
    """Readiness names the blueprint and why; a Check says exchange_misconfigured."""
    world.secret_file.unlink()
    async with stack(world) as service:
        record = await service.egress("autonomous")

        assert ["support"] == list((await missing(service.engine))["credentials"])
        assert Reason.EXCHANGE_MISCONFIGURED == denied(record)


@pytest.mark.parametrize("bad", [b"", None, b"no token", b"e30.e30.sig"])
async def test_a_bad_federated_token_leaves_the_last_good_one(
    world: World, tmp_path: Path, bad: bytes | None
) -> None:
    """Law 9: what is sent is a token that was read whole, for as long as that one is valid."""
    cluster = Cluster(world)
    file = tmp_path / "token"
    file.write_text(cluster.token())
    document = with_credentials(world, {"federated_token": {"file": str(file)}})
    async with stack(world, document=document) as service:
        await service.egress("autonomous")
        file.unlink() if bad is None else file.write_bytes(bad)
        with capture_logs() as logs:
            meanwhile = await service.egress("autonomous-clerk")

    assert world.sibling["client_id"] == issued(meanwhile)["appid"]
    assert [True] == [e["old_one_goes_on"] for e in logs if e["event"] == "credential not usable"]


async def test_a_federated_token_that_has_ended_stands_in_for_nothing(
    world: World, tmp_path: Path
) -> None:
    """A file that went bad is then a fault of the deployment, and Entra is not asked."""
    cluster = Cluster(world)
    file = tmp_path / "token"
    file.write_text(cluster.token(lifetime=-3600))
    document = with_credentials(world, {"federated_token": {"file": str(file)}})
    async with stack(world, document=document) as service:
        record = await service.egress("autonomous")

    assert Reason.EXCHANGE_MISCONFIGURED == denied(record)
    assert "has expired" in str(record.error)


@pytest.mark.parametrize("kind", ["client_secret", "certificate", "federated_token"])
async def test_a_credential_that_went_bad_survives_a_reload(
    world: World, tmp_path: Path, kind: str
) -> None:
    """The last good version is handed over with the credential: readiness and exchanges have it."""
    cluster, certified = Cluster(world), Certified()
    register(world, certified)
    content = {
        "client_secret": world.blueprint["client_secret"].encode(),
        "certificate": certified.pem(),
        "federated_token": cluster.token().encode(),
    }[kind]
    file = tmp_path / "credential"
    file.write_bytes(content)
    document = with_credentials(world, {kind: {"file": str(file)}})
    async with stack(world, document=document) as service:
        await service.egress("autonomous")
        file.unlink()
        document["egress"]["more"] = {"flow": "none"}
        await reload(service.engine, document)
        lacking = await missing(service.engine)
        record = await service.egress("autonomous-clerk")

    assert {} == lacking
    assert world.sibling["client_id"] == issued(record)["appid"]


async def test_another_credential_starts_without_the_old_ones_version(
    world: World, tmp_path: Path
) -> None:
    """Only the same entry of the same client is the same credential."""
    document = with_credentials(world, {"client_secret": {"file": str(tmp_path / "other")}})
    async with stack(world) as service:
        await service.egress("autonomous")
        await reload(service.engine, document)
        lacking = await missing(service.engine)

    assert ["support"] == list(lacking["credentials"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
async def test_a_secret_with_a_byte_order_mark_is_the_secret(world: World, encoding: str) -> None:
    """Editors and PowerShell write one; it is no part of the secret."""
    secret = world.blueprint["client_secret"]
    world.secret_file.write_bytes(f"{secret}\r\n".encode(encoding))
    async with stack(world) as service:
        assert world.agent["client_id"] == issued(await service.egress("autonomous"))["appid"]


async def test_base64_may_have_line_breaks(world: World) -> None:
    """As `base64` prints it."""
    certified = Certified()
    register(world, certified)
    document = with_credentials(world, {"certificate": {"env": "CERT"}})
    document["blueprints"]["support"]["credentials"][0]["certificate"]["password_env"] = "WORD"
    environ = {
        "CERT": base64.encodebytes(certified.pfx("pässword")).decode(),
        "WORD": "\ufeffpässword\n",
    }
    async with stack(world, document=document, environ=environ) as service:
        assert world.agent["client_id"] == issued(await service.egress("autonomous"))["appid"]


class Contents:
    """Contents of a blueprint's credential file: one that Entra takes, another one, and a wrong one.

    Args:
        world: Whose blueprint.
        kind: Kind of the credential.
    """

    def __init__(self, world: World, kind: str) -> None:
        cluster = Cluster(world)
        certificates = [Certified(days=days) for days in (30, 60, 90)]
        for certified in certificates[:2]:
            register(world, certified)
        world.emulator.directory.update_application(
            world.tenant_id,
            world.blueprint["client_id"],
            secrets=(Secret("the first"), Secret("the second")),
        )
        self.taken, self.next, self.wrong = {
            "client_secret": (b"the first", b"the second", b"the thi"),
            "certificate": tuple(certified.pem() for certified in certificates),
            "federated_token": (
                cluster.token().encode(), cluster.token(lifetime=700).encode(),
                cluster.token(subject="somebody else").encode(),
            ),
        }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["client_secret", "certificate", "federated_token"])
async def test_a_version_that_entra_refuses_leaves_the_one_that_it_took(
    world: World, tmp_path: Path, kind: str
) -> None:
    """Law 9: it can be read, and is no credential. As soon as the file is right, its content is used."""
    contents, file = Contents(world, kind), tmp_path / "credential"
    file.write_bytes(contents.taken)
    document = with_credentials(world, {kind: {"file": str(file)}})
    async with stack(world, document=document) as service:
        await service.egress("autonomous")
        file.write_bytes(contents.wrong)
        with capture_logs() as logs:
            meanwhile = await service.egress("autonomous-clerk")
        refused = service.engine.refused_credentials()
        file.write_bytes(contents.next)
        world.emulator.calls.reset()
        after = await service.egress("blueprint")

        assert world.sibling["client_id"] == issued(meanwhile)["appid"]
        assert [True] == [
            e["accepted_one_in_use"] for e in logs if e["event"] == "credential refused"
        ]
        assert {("support", kind)} == refused
        assert world.blueprint["client_id"] == issued(after)["appid"]
        assert {"blueprint": 1} == service.calls
        assert set() == service.engine.refused_credentials()


async def test_the_accepted_version_comes_before_the_next_credential(
    world: World, tmp_path: Path
) -> None:
    """In a list each credential keeps its place; the next one serves when Entra takes neither version."""
    contents, certified = Contents(world, "client_secret"), Certified()
    register(world, certified)
    first, second = tmp_path / "secret", tmp_path / "certificate"
    first.write_bytes(contents.taken)
    second.write_bytes(certified.pem())
    document = with_credentials(
        world, {"client_secret": {"file": str(first)}}, {"certificate": {"file": str(second)}}
    )
    async with stack(world, document=document) as service:
        await service.egress("autonomous")
        first.write_bytes(contents.wrong)
        by_accepted = issued(await service.egress("blueprint"))
        world.emulator.directory.update_application(
            world.tenant_id, world.blueprint["client_id"], secrets=()
        )
        by_next = issued(await service.egress("autonomous-clerk"))
        left = service.engine.credential_expiries()

        # `appidacr` tells how the client proved itself: 1 by a secret, 2 by a certificate.
        assert "1" == by_accepted["appidacr"]
        assert world.sibling["client_id"] == by_next["appid"]
        assert [("support", "certificate")] == list(left)


async def test_the_expiry_told_is_of_the_certificate_that_entra_takes(
    world: World, tmp_path: Path
) -> None:
    """A renewed certificate that is not registered yet does not hide that the old one ends."""
    contents, file = Contents(world, "certificate"), tmp_path / "cert.pem"
    document = with_credentials(world, {"certificate": {"file": str(file)}})
    file.write_bytes(contents.taken)
    async with stack(world, document=document) as service:
        told = []
        for content, route in (
            (contents.taken, "autonomous"), (contents.wrong, "blueprint"),
            (contents.next, "autonomous-clerk"),
        ):  # fmt: skip
            file.write_bytes(content)
            issued(await service.egress(route))
            left = service.engine.credential_expiries()["support", "certificate"]
            told.append(round(left / 86400))

        assert [30, 30, 60] == told


async def test_a_refused_credential_that_is_mended_is_noticed_behind_one_that_serves(
    world: World, tmp_path: Path
) -> None:
    """It is not needed, so Entra is not asked about it; its file alone tells that it has changed."""
    first, second = world.secret_file, tmp_path / "second"
    second.write_text("wrong")
    right = first.read_text()
    document = with_credentials(
        world, {"client_secret": {"file": str(first)}}, {"client_secret": {"file": str(second)}}
    )
    first.write_text("wrong too")
    async with stack(world, document=document) as service:
        await service.egress("autonomous")
        both = [credential.is_refused for credential in credentials_of(service)]
        first.write_text(right)
        issued(await service.egress("blueprint"))
        one = [credential.is_refused for credential in credentials_of(service)]
        second.write_text("mended")
        assert {} == await missing(service.engine)
        none = service.engine.refused_credentials()

        assert [[True, True], [False, True]] == [both, one]
        assert set() == none


def credentials_of(service: Stack) -> Sequence[Credential]:
    """The blueprint's credentials."""
    held = service.engine._version.applications._credentials
    return next(found for client, found in held.items() if client.name == "support")


def test_a_federated_token_that_entra_took_stands_in_until_it_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then Entra would refuse it too, and is not asked."""
    contents = Contents(world, "federated_token")
    held = [contents.taken.decode()]
    credential = FederatedToken(lambda: held[0], "token")
    credential.take(credential.proofs()[0])
    held[0] = contents.next.decode()
    started = time.time()
    versions = []
    for seconds in (0, 600 + CLOCK_SKEW + 1):
        monkeypatch.setattr(time, "time", lambda now=started + seconds: now)
        versions.append(len(credential.proofs()))
    held[0] = "no token"
    unreadable = len(credential.proofs())
    monkeypatch.setattr(time, "time", lambda: started + 700 + CLOCK_SKEW + 1)

    assert ([2, 1], 1) == (versions, unreadable)
    with pytest.raises(CredentialFault, match="no JWT"):
        credential.proofs()
