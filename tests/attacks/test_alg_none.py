"""A token that says it needs no signature is refused, however it says so."""

from typing import Final

import pytest

from authz.core.errors import TokenFault
from support.fakes.attack import fault_of
from support.fakes.clock import Clock
from support.fakes.jws import rs256, unsigned
from support.fakes.scene import Scene
from support.fakes.tenant import ABSENT, FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())


def named(algorithm: object) -> str:
    """Name a value the same way in every process."""
    return "no alg" if algorithm is ABSENT else repr(algorithm)


NONES: Final = ["none", "None", "NONE", "nOnE", "", " none", "none\x00", ABSENT, None, False, 0, []]


@pytest.mark.parametrize("algorithm", NONES, ids=named)
async def test_an_unsigned_token_is_refused(algorithm: object) -> None:
    """With an empty signature there is nothing to believe."""
    token = ENTRA.mint(ENTRA.user_claims(), headers={"alg": algorithm}, sign=unsigned)

    assert TokenFault.ALGORITHM is await fault_of(token)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "PS256"])
async def test_a_token_of_another_algorithm_causes_no_search_for_its_key(algorithm: str) -> None:
    """It could never verify, so its `kid` is worth no question to Entra."""
    scene = Scene()
    headers = {"alg": algorithm, "kid": "unknown"}
    await fault_of(ENTRA.mint(ENTRA.user_claims(), headers=headers, sign=unsigned), scene)

    assert [] == scene.keys.finds


@pytest.mark.parametrize("algorithm", NONES, ids=named)
async def test_even_a_good_signature_does_not_excuse_the_header(algorithm: object) -> None:
    """The header must say RS256; nothing is guessed from the signature."""
    token = ENTRA.mint(ENTRA.user_claims(), headers={"alg": algorithm}, sign=rs256(ENTRA.key))

    assert TokenFault.ALGORITHM is await fault_of(token)


@pytest.mark.parametrize("algorithm", ["rs256", "Rs256", " RS256", "RS256 ", "RS256\n", ["RS256"]])
async def test_the_algorithm_is_compared_exactly(algorithm: object) -> None:
    """Names are case-sensitive (RFC 7515 section 4.1.1) and a list is no name."""
    token = ENTRA.mint(ENTRA.user_claims(), headers={"alg": algorithm})

    assert TokenFault.ALGORITHM is await fault_of(token)


async def test_a_token_stripped_of_its_signature_is_refused() -> None:
    """Saying RS256 and bringing no signature is a bad signature."""
    token = ENTRA.mint(ENTRA.user_claims(), sign=unsigned)

    assert TokenFault.SIGNATURE is await fault_of(token)


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (b'{"alg":"RS256","alg":"none","kid":"key-1"}', TokenFault.ALGORITHM),
        (b'{"alg":"none","alg":"RS256","kid":"key-1"}', TokenFault.SIGNATURE),
    ],
)
async def test_a_header_that_says_both_is_held_to_what_it_says_last(
    header: bytes, fault: TokenFault
) -> None:
    """Choosing the key and verifying read the header the same way, so nothing slips between."""
    token = ENTRA.sign_raw(header, b"{}", unsigned)
    claims = ENTRA.user_token().split(".")[1]
    first, _, last = token.split(".")

    assert fault is await fault_of(f"{first}.{claims}.{last}")
