"""Certificates and authorities that are rotated under the running program, one file after the other."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from support.programs.stack import Process, World

pytestmark = pytest.mark.thorough


async def test_authorities_that_were_replaced_beside_a_faulty_file_count_when_that_is_mended(
    world: World, write: Callable[..., Path], tmp_path: Path
) -> None:
    """A rotation writes one file after the other, and any look may come in between."""
    file, certificate, key = (tmp_path / name for name in ("ca.pem", "tls.pem", "tls.key"))
    file.write_bytes(trustme.CA().cert_pem.bytes())
    first, second = (trustme.CA().issue_cert("localhost") for _ in range(2))
    certificate.write_bytes(first.cert_chain_pems[0].bytes())
    key.write_bytes(first.private_key_pem.bytes())
    document = world.config(reload_interval="50ms")
    document["entra"]["ca_file"] = str(file)
    tls = {"certificate_file": str(certificate), "key_file": str(key)}
    document["listen"] |= {"grpc": "127.0.0.1:0", "tls": tls}
    with Process("serve", "--config", str(write(document))) as process:
        await asyncio.to_thread(process.event, "signing keys not refreshed")
        certificate.write_bytes(second.cert_chain_pems[0].bytes())
        shutil.copy(world.config()["entra"]["ca_file"], file)
        await asyncio.to_thread(process.event, "certificate file not usable")
        key.write_bytes(second.private_key_pem.bytes())
        changed = await asyncio.to_thread(process.event, "certificate file changed")
        await asyncio.to_thread(process.event, "ready")

    assert ["entra.ca_file"] == changed["keys"]
