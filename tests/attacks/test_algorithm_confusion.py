"""The public key is not a shared secret: a token signed with it by HMAC is refused."""

import base64
from typing import Final

import pytest
from cryptography.hazmat.primitives import serialization

from authz.core.errors import InvalidToken, TokenFault
from authz.core.request import BearerToken
from authz.core.secret import Secret
from authz.core.token import UnverifiedToken, read, verify
from support.fakes.attack import fault_of
from support.fakes.clock import START, Clock
from support.fakes.jws import hs256, public_pem
from support.fakes.tenant import FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())
SHARED: Final[dict[str, bytes]] = {
    "the PEM": public_pem(ENTRA.key),
    "the PEM without its last line break": public_pem(ENTRA.key).rstrip(),
    "the DER": ENTRA.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ),
    "the modulus of the JWK": ENTRA.jwk()["n"].encode(),
    "nothing": b"",
}


@pytest.mark.parametrize("secret", SHARED.values(), ids=SHARED)
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_an_hmac_with_the_public_key_is_refused_for_its_algorithm(
    secret: bytes, algorithm: str
) -> None:
    """The token chooses a key, never an algorithm."""
    token = ENTRA.mint(ENTRA.user_claims(), headers={"alg": algorithm}, sign=hs256(secret))

    assert TokenFault.ALGORITHM is await fault_of(token)


@pytest.mark.parametrize("secret", SHARED.values(), ids=SHARED)
async def test_an_hmac_that_claims_to_be_rs256_is_refused_for_its_signature(secret: bytes) -> None:
    """Saying RS256 does not make it one."""
    token = ENTRA.mint(ENTRA.user_claims(), sign=hs256(secret))

    assert TokenFault.SIGNATURE is await fault_of(token)


@pytest.mark.parametrize("algorithm", ["HS256", "none", "RS512", "PS256", "ES256", "EdDSA"])
def test_verification_itself_admits_one_algorithm(algorithm: str) -> None:
    """It does not rely on the look at the header: whatever that says, the signature is RS256's or refused."""
    claims = ENTRA.user_claims()
    token = ENTRA.mint(claims, headers={"alg": algorithm}, sign=hs256(SHARED["the PEM"]))
    signature = token.rpartition(".")[2]
    unverified = UnverifiedToken(
        ENTRA.issuer,
        "key-1",
        claims,
        base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)),
        Secret(token),
    )

    with pytest.raises(InvalidToken) as refused:
        read(BearerToken(Secret(token)), ENTRA.expectation())
    with pytest.raises(InvalidToken) as raised:
        verify(unverified, ENTRA.signing_key(), ENTRA.expectation(), now=START)
    assert (TokenFault.ALGORITHM, TokenFault.SIGNATURE) == (refused.value.fault, raised.value.fault)
