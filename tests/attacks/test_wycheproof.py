"""Project Wycheproof's vectors: keys and signatures that some implementation took and none should.

Each goes through what reads a key set and what opens a token. Only RS256 is taken here, so vectors that
are valid for another algorithm are expected to be refused.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from authz.core import token
from authz.core.errors import InvalidToken
from authz.core.keys import MalformedKeySet, SigningKey, parse_key_set
from authz.core.request import BearerToken
from authz.core.secret import Secret
from authz.core.token import ALGORITHM, signed_payload
from support.fakes.clock import START

FOLDER: Final = Path(__file__).parent.parent / "data" / "wycheproof"
ISSUER: Final = "https://issuer.example/"
JOSE: Final = ["json_web_crypto_test", "json_web_key_test", "json_web_signature_test"]
PKCS1: Final = [f"rsa_signature_{bits}_sha256_test" for bits in (2048, 3072, 4096)]


def _groups(name: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text())["testGroups"]
    return groups


def _keys(published: dict[str, Any]) -> list[SigningKey]:
    document = published if "keys" in published else {"keys": [published]}
    try:
        read = parse_key_set(document, issuer=ISSUER, aliases=(), tenant_id="", now=START)
    except MalformedKeySet:
        return []
    return list(read.keys.values())


def _opens(jws: object, keys: list[SigningKey]) -> bool:
    bearer = BearerToken(Secret(jws if isinstance(jws, str) else json.dumps(jws)))
    for key in keys:
        try:
            signed_payload(bearer, key)
        except InvalidToken:
            continue
        return True
    return False


def _is_ours(vector: dict[str, Any]) -> bool:
    """Whether a vector is valid, and for our one algorithm."""
    if vector["result"] != "valid":
        return False
    header = vector["jws"].split(".")[0]
    stated = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["alg"]
    return bool(stated == ALGORITHM)


@pytest.mark.parametrize("name", JOSE)
def test_only_valid_tokens_of_sound_keys_are_opened(name: str) -> None:
    """Every vector for JSON Web Signatures and Keys, under the key or the key set that it comes with."""
    expected, actual = {}, {}
    for group in _groups(name):
        keys = _keys(group.get("public") or group["private"])
        for vector in group["tests"]:
            if "jws" in vector:
                expected[vector["tcId"], vector["comment"]] = _is_ours(vector)
                actual[vector["tcId"], vector["comment"]] = _opens(vector["jws"], keys)

    assert expected == actual


@pytest.mark.parametrize("name", PKCS1)
def test_a_signature_has_one_padding_and_one_encoding(name: str) -> None:
    """RSASSA-PKCS1-v1_5 with SHA-256 beneath RS256: what is merely acceptable elsewhere is refused."""
    expected, actual = {}, {}
    for group in _groups(name):
        number = int(group["publicKey"]["modulus"], 16)
        (key,) = _keys(_jwk(number, int(group["publicKey"]["publicExponent"], 16)))
        for vector in group["tests"]:
            message, signature = bytes.fromhex(vector["msg"]), bytes.fromhex(vector["sig"])
            expected[vector["tcId"], vector["comment"]] = vector["result"] == "valid"
            actual[vector["tcId"], vector["comment"]] = token._RS256.verify(
                message, key.public_key, signature
            )

    assert expected == actual


def _jwk(modulus: int, exponent: int) -> dict[str, str]:
    def text(number: int) -> str:
        data = number.to_bytes((number.bit_length() + 7) // 8, "big")
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    return {"kty": "RSA", "kid": "key", "n": text(modulus), "e": text(exponent)}


def test_the_vectors_are_those_that_were_taken_over() -> None:
    """Their digests are in the file that says where they come from."""
    stated = dict(re.findall(r"`(\w+\.json)` \| `(\w+)`", (FOLDER / "README.md").read_text()))
    there = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.glob("*.json")
    }

    assert stated == there
    assert {f"{name}.json" for name in JOSE + PKCS1} == set(there)
