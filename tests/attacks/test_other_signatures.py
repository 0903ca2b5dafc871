"""RS256 only: stronger or newer signatures of the right key are refused as well."""

from typing import Final

import pytest

from authz.core.errors import TokenFault
from support.fakes.attack import accepted, fault_of
from support.fakes.clock import Clock
from support.fakes.jws import Signer, ps256, rs256, rs512
from support.fakes.tenant import FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())
SIGNERS: Final = {"PS256": ps256(ENTRA.key), "RS512": rs512(ENTRA.key)}


@pytest.mark.parametrize(("algorithm", "sign"), SIGNERS.items(), ids=SIGNERS)
async def test_the_right_key_with_another_algorithm_is_refused(
    algorithm: str, sign: Signer
) -> None:
    """Entra signs with RS256; whoever else holds a signature of this key got it elsewhere."""
    token = ENTRA.mint(ENTRA.user_claims(), headers={"alg": algorithm}, sign=sign)

    assert TokenFault.ALGORITHM is await fault_of(token)


@pytest.mark.parametrize("sign", SIGNERS.values(), ids=SIGNERS)
async def test_another_algorithm_under_the_name_of_rs256_is_refused(sign: Signer) -> None:
    """The signature is checked as what the header must say."""
    token = ENTRA.mint(ENTRA.user_claims(), sign=sign)

    assert TokenFault.SIGNATURE is await fault_of(token)


@pytest.mark.parametrize(
    "algorithm", ["RS384", "PS512", "ES256", "ES512", "EdDSA", "RSA1_5", "dir"]
)
async def test_a_true_rs256_signature_under_another_name_is_refused(algorithm: str) -> None:
    """Neither part alone is enough."""
    token = ENTRA.mint(ENTRA.user_claims(), headers={"alg": algorithm}, sign=rs256(ENTRA.key))

    assert TokenFault.ALGORITHM is await fault_of(token)


async def test_rs256_of_the_right_key_is_accepted() -> None:
    """The attacks above fail for what they change and for nothing else."""
    assert await accepted(ENTRA.user_token())
