"""Files that are missing, empty, garbage, or hang, under the running program: it serves on, and says why."""

import asyncio
import base64
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.faults.files import BAD_CERTIFICATES, hanging, laid
from support.programs import program
from support.programs.stack import Client, Process, World, authorization

Serve = Callable[..., Process]


def with_file(world: World, section: str, file: Path, **more: Any) -> dict[str, Any]:
    """Return the world's configuration with a file of authorities of one section."""
    document = world.config(reload_interval="50ms", **more)
    document.setdefault(section, {})["ca_file"] = str(file)
    return document


@pytest.mark.parametrize("bad", BAD_CERTIFICATES)
@pytest.mark.parametrize("section", ["entra", "api"])
async def test_a_version_that_names_a_bad_file_is_refused_and_the_old_one_serves(
    world: World, serve: Serve, write: Callable[..., Path], tmp_path: Path, section: str, bad: str
) -> None:
    """With the key and the file. As soon as the file is good, the version is applied."""
    listen = {**world.config()["listen"], "api": "127.0.0.1:0"}
    process = serve(reload_interval="50ms", listen=listen)
    file = laid(tmp_path / "ca.pem", BAD_CERTIFICATES[bad])
    write(with_file(world, section, file, listen=listen))
    refused = await asyncio.to_thread(
        process.event, "configuration refused, the previous one stays in use"
    )
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        served = authorization(await client.check("egress", "autonomous"))
    alive = process.admin("/livez").status_code
    shutil.copy(world.config()["entra"]["ca_file"], file)
    await asyncio.to_thread(process.event, "configuration applied")

    assert f"{section}.ca_file: {file}: " in refused["faults"]
    assert (world.agent["client_id"], 200) == (served["appid"], alive)


async def test_authorities_that_were_replaced_count_without_a_restart(
    world: World, write: Callable[..., Path], tmp_path: Path
) -> None:
    """An authority that was renewed at the same path: the old one would be trusted for ever."""
    file = tmp_path / "ca.pem"
    file.write_bytes(trustme.CA().cert_pem.bytes())
    config = str(write(with_file(world, "entra", file)))
    with Process("serve", "--config", config) as process:
        await asyncio.to_thread(process.event, "signing keys not refreshed")
        before = process.admin("/readyz").status_code
        shutil.copy(world.config()["entra"]["ca_file"], file)
        changed = await asyncio.to_thread(process.event, "certificate file changed")
        await asyncio.to_thread(process.event, "ready")
        async with Client(f"unix:{world.folder}/authz.sock") as client:
            served = authorization(await client.check("egress", "autonomous"))

    assert (503, ["entra.ca_file"]) == (before, changed["keys"])
    assert world.agent["client_id"] == served["appid"]


@pytest.mark.parametrize("verb", ["serve", "check-config"])
@pytest.mark.parametrize("bad", BAD_CERTIFICATES)
@pytest.mark.parametrize("section", ["entra", "api"])
def test_a_first_version_that_names_a_bad_file_is_a_fault(
    world: World, write: Callable[..., Path], tmp_path: Path, section: str, bad: str, verb: str
) -> None:
    """Exit status 2 and one line; no traceback."""
    file = laid(tmp_path / "ca.pem", BAD_CERTIFICATES[bad])
    config = write(with_file(world, section, file))
    done = program.run(verb, "--config", config)

    assert 2 == done.returncode
    assert f"{section}.ca_file: {file}: " in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_credential_that_became_a_fifo_stops_nothing(world: World, serve: Serve) -> None:
    """Known and new exchanges, liveness and readiness: reading it would block, so it is not read."""
    process = serve()
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        await client.check("egress", "autonomous")
        hanging(world.secret_file)
        known = authorization(await client.check("egress", "autonomous"))
        new = authorization(await client.check("egress", "autonomous-clerk"))
    complaint = await asyncio.to_thread(process.event, "credential not usable")

    assert (world.agent["client_id"], world.sibling["client_id"]) == (known["appid"], new["appid"])
    assert (200, 200) == tuple(process.admin(path).status_code for path in ("/livez", "/readyz"))
    assert ("is no regular file", True) == (
        complaint["cause"].rpartition(": ")[2],
        complaint["old_one_goes_on"],
    )


async def test_a_credential_that_is_gone_survives_any_reload(
    world: World, serve: Serve, write: Callable[..., Path]
) -> None:
    """The service stays ready and serves new exchanges with the version that was read last."""
    process = serve(reload_interval="50ms")
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        await client.check("egress", "autonomous")
        world.secret_file.unlink()
        document = world.config(reload_interval="50ms")
        document["egress"]["more"] = {"flow": "none"}
        write(document)
        await asyncio.to_thread(process.event, "configuration applied")
        new = authorization(await client.check("egress", "autonomous-clerk"))

    assert world.sibling["client_id"] == new["appid"]
    assert 200 == process.admin("/readyz").status_code


ENDLESS: Final = base64.urlsafe_b64encode(b'{"exp": 1%s}' % (b"0" * 400)).rstrip(b"=")


@pytest.mark.parametrize("kind", ["certificate", "federated_token"])
async def test_odd_content_of_a_credential_file_ends_nothing(
    world: World, serve: Serve, tmp_path: Path, kind: str
) -> None:
    """A key of an algorithm that nobody knows, an end beyond all time: the next credential serves on."""
    file, odd = tmp_path / kind, tmp_path / "odd"
    if kind == "certificate":
        leaf = trustme.CA().issue_cert("agent", key_type=trustme.KeyType.RSA)
        file.write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
        odd.write_bytes(_key_on_an_unknown_curve())
    else:
        now = int(time.time())
        file.write_text(jwt.encode({"exp": now + 4000}, "k" * 32))
        odd.write_bytes(b"e30.%s.x" % ENDLESS)
    document = world.config()
    document["blueprints"]["support"]["credentials"].insert(0, {kind: {"file": str(file)}})
    process = serve(document)
    odd.replace(file)
    complaint = await asyncio.to_thread(process.event, "credential not usable")
    async with Client(f"unix:{world.folder}/authz.sock") as client:
        served = authorization(await client.check("egress", "autonomous"))

    assert kind in complaint["credential"] or str(file) in complaint["cause"]
    assert world.agent["client_id"] == served["appid"]
    assert 200 == process.admin("/livez").status_code


def _key_on_an_unknown_curve() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    known, unknown = (bytes.fromhex(f"06082a8648ce3d0301{end}") for end in ("07", "6f"))
    encoded = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).replace(known, unknown)
    lines = base64.encodebytes(encoded).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{lines}-----END PRIVATE KEY-----\n".encode()


async def test_a_configuration_that_became_a_fifo_is_a_refused_version(
    world: World, serve: Serve, write: Callable[..., Path]
) -> None:
    """Nobody waits for it, and the next good version is applied."""
    process = serve(reload_interval="100ms")
    file = world.folder / "authz.yaml"
    file.unlink()
    os.mkfifo(file)
    refused = await asyncio.to_thread(
        process.event, "configuration refused, the previous one stays in use"
    )
    document = world.config(reload_interval="100ms")
    document["egress"]["more"] = {"flow": "none"}
    write(document)
    await asyncio.to_thread(process.event, "configuration applied")

    assert "is no regular file" in str(refused)
    assert 0 == await asyncio.to_thread(process.stop)
