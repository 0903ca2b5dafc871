"""A token cannot bring its own key, nor name a place to fetch one from."""

import base64
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from jwt.algorithms import RSAAlgorithm

from authz.core.errors import TokenFault
from support.fakes.attack import accepted, fault_of
from support.fakes.clock import Clock
from support.fakes.jws import private_key, rs256
from support.fakes.scene import Scene
from support.fakes.tenant import FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())
ATTACKER: Final = private_key("attacker")


def _certificate() -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "login.microsoftonline.com")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    builder = builder.not_valid_after(datetime(2090, 1, 1, tzinfo=UTC))
    certificate = builder.public_key(ATTACKER.public_key()).sign(ATTACKER, hashes.SHA256())
    return base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()


INJECTIONS: Final[dict[str, dict[str, Any]]] = {
    "jwk": {"jwk": {**RSAAlgorithm.to_jwk(ATTACKER.public_key(), as_dict=True), "kid": "key-1"}},
    "jku": {"jku": "https://attacker.example/keys"},
    "x5u": {"x5u": "https://attacker.example/certificate.pem"},
    "x5c": {"x5c": [_certificate()]},
    "x5t": {"x5t": "attacker"},
}


@pytest.mark.parametrize("headers", INJECTIONS.values(), ids=INJECTIONS)
async def test_a_key_in_the_header_verifies_nothing(headers: dict[str, Any]) -> None:
    """The token is held to the key that its issuer published under its `kid`."""
    token = ENTRA.mint(ENTRA.user_claims(), headers=headers, sign=rs256(ATTACKER))

    assert TokenFault.SIGNATURE is await fault_of(token)


@pytest.mark.parametrize("headers", INJECTIONS.values(), ids=INJECTIONS)
async def test_a_key_in_the_header_is_not_even_looked_at(headers: dict[str, Any]) -> None:
    """In a token of Entra's own such a header changes nothing, and nothing is fetched for it."""
    scene = Scene()

    assert await accepted(ENTRA.mint(ENTRA.user_claims(), headers=headers), scene)
    assert [] == scene.keys.finds


KEY_IDS: Final = [
    "attacker",
    "../../../../dev/null",
    "/dev/null",
    "https://attacker.example/keys#key-1",
    "key-1\x00",
    "key-1 ",
    "KEY-1",
    "' OR '1'='1",
    "key-1\r\nx-injected: 1",
    "k" * 5000,
]


@pytest.mark.parametrize("key_id", KEY_IDS, ids=lambda key_id: repr(key_id)[:30])
async def test_a_key_id_is_a_name_and_nothing_else(key_id: str) -> None:
    """It selects among the issuer's published keys, as it stands."""
    scene = Scene()
    token = ENTRA.mint(ENTRA.user_claims(), headers={"kid": key_id}, sign=rs256(ATTACKER))

    assert TokenFault.UNKNOWN_KEY is await fault_of(token, scene)
    assert {(ENTRA.issuer, key_id)} == set(scene.keys.finds)


@pytest.mark.parametrize("key_id", ["", None, 1, True, ["key-1"], {"key": 1}], ids=repr)
async def test_a_key_id_is_a_text(key_id: object) -> None:
    """Anything else asks for no key, and nobody looks for one."""
    scene = Scene()
    fault = await fault_of(ENTRA.mint(ENTRA.user_claims(), headers={"kid": key_id}), scene)

    assert fault in {TokenFault.UNKNOWN_KEY, TokenFault.MALFORMED}
    assert [] == scene.keys.finds
