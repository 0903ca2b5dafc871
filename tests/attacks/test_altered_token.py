"""Nothing can be added to, taken from or moved between signed tokens."""

import base64
import json
import string
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.errors import InvalidToken, TokenFault
from authz.core.principal import Principal
from authz.core.request import BearerToken
from authz.core.secret import Secret
from authz.core.token import read, verify
from support.fakes.attack import accepted, fault_of
from support.fakes.clock import START, Clock
from support.fakes.jws import b64url
from support.fakes.properties import thorough
from support.fakes.tenant import FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())
TOKEN: Final = ENTRA.user_token()
HEADER, PAYLOAD, SIGNATURE = TOKEN.split(".")
ALPHABET: Final = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


def _neighbour(character: str, bits: int) -> str:
    """Return the character that differs in these of the four bits that belong to no byte."""
    return ALPHABET[ALPHABET.index(character) ^ bits]


ROOT: Final = b64url(json.dumps(ENTRA.user_claims() | {"oid": "root"}).encode())


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(f"{TOKEN}.", id="a trailing dot"),
        pytest.param(f"{TOKEN}.{SIGNATURE}", id="a fourth part"),
        pytest.param(f"{TOKEN}.{ROOT}", id="further claims behind the signature"),
        pytest.param(f"{HEADER}.{ROOT}.{PAYLOAD}.{SIGNATURE}", id="further claims before the others"),
        pytest.param(f".{TOKEN}", id="a leading dot"),
        pytest.param(f"{HEADER}.{PAYLOAD}", id="two parts"),
        pytest.param(HEADER, id="one part"),
        pytest.param("..", id="nothing but dots"),
        pytest.param(f"{HEADER}..{SIGNATURE}", id="no payload"),
        pytest.param(f".{PAYLOAD}.{SIGNATURE}", id="no header"),
        pytest.param(f"{HEADER}.{PAYLOAD}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}", id="a JWE's five parts"),
        pytest.param(f"{TOKEN}=", id="padding that does not fit"),
        pytest.param(f"{TOKEN}==", id="padding that fits"),
        pytest.param(f"{HEADER}.{PAYLOAD}+/.{SIGNATURE}", id="the other base64 alphabet"),
        pytest.param(f"{HEADER}~.{PAYLOAD}.{SIGNATURE}", id="a character of no alphabet"),
    ],
)  # fmt: skip
async def test_a_token_has_three_parts_and_nothing_else(token: str) -> None:
    """RFC 7515: three parts, base64url without padding; what is not signed is not there."""
    assert TokenFault.MALFORMED is await fault_of(token)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(f"{HEADER}.{ROOT}.{SIGNATURE}", id="other claims"),
        pytest.param(
            ".".join([*ENTRA.user_token(oid="root").split(".")[:2], SIGNATURE]),
            id="another token's signature",
        ),
        pytest.param(f"{HEADER}.{PAYLOAD}.{b64url(bytes(256))}", id="a signature of zeros"),
        pytest.param(f"{HEADER}.{PAYLOAD}.{b64url(bytes(255) + b'1')}", id="a signature of one"),
        pytest.param(f"{HEADER}.{PAYLOAD}.", id="no signature"),
        pytest.param(f"{TOKEN}A", id="one character more"),
        pytest.param(f"{HEADER}.{PAYLOAD}.{b64url(b'x' * 512)}", id="a longer signature"),
        pytest.param(f"{HEADER}.{PAYLOAD}.{HEADER}", id="the header as signature"),
    ],
)
async def test_a_signature_belongs_to_its_token(token: str) -> None:
    """Nothing but the key's own signature over these very parts will do."""
    assert TokenFault.SIGNATURE is await fault_of(token)


SPELLINGS: Final = {
    "one unused bit of the signature": TOKEN[:-1] + _neighbour(TOKEN[-1], 1),
    "every unused bit of the signature": TOKEN[:-1] + _neighbour(TOKEN[-1], 15),
    "padding": f"{TOKEN}==",
    "padding in the middle": f"{HEADER}=.{PAYLOAD}.{SIGNATURE}",
    "a space": f"{TOKEN} ",
    "a line break": f"{TOKEN}\n",
    "a tab inside": f"{TOKEN[:-7]}\t{TOKEN[-7:]}",
    "a character of no alphabet": f"{TOKEN}!!!!",
    "the other base64 alphabet": f"{HEADER}.{PAYLOAD}.{SIGNATURE.translate(str.maketrans('-_', '+/'))}/",
    "a letter of another script": f"{TOKEN}\u00e9",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_token_has_one_spelling(spelling: str) -> None:
    """Other texts of the same bytes would each be a new key of every cache, and an exchange of their own.

    The detail says that it was our own rule that refused, whatever the library below takes.
    """
    with pytest.raises(InvalidToken) as refused:
        read(BearerToken(Secret(spelling)), ENTRA.expectation())

    assert "malformed: not three parts of canonical base64url" == str(refused.value)


@thorough
@given(parts=st.lists(st.binary(max_size=9), min_size=3, max_size=3), data=st.data())
def test_the_rule_of_spelling_agrees_with_an_encoder(
    parts: list[bytes], data: st.DataObject
) -> None:
    """What an encoder writes passes; with any character replaced it passes only if encoders write that."""
    canonical = ".".join(map(b64url, parts))
    position = data.draw(st.integers(0, len(canonical) - 1))
    character = data.draw(st.sampled_from("ABQRabgw01-_.=+/ \né"))
    altered = canonical[:position] + character + canonical[position + 1 :]

    assert _is_refused_for_spelling(canonical) is False
    assert _is_refused_for_spelling(altered) is not _is_written_by_an_encoder(altered)


def _is_refused_for_spelling(token: str) -> bool:
    try:
        read(BearerToken(Secret(token)), ENTRA.expectation())
    except InvalidToken as refused:
        return "canonical" in str(refused)
    return False


def _is_written_by_an_encoder(token: str) -> bool:
    parts = token.split(".")
    try:
        decoded = [
            base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True) for part in parts
        ]
    except ValueError:
        return False
    return len(parts) == 3 and parts == [b64url(part) for part in decoded]


@thorough
@given(position=st.integers(0, len(TOKEN) - 1), character=st.sampled_from("ABab01-_.=+/~ \n\x00é"))
def test_a_token_with_any_character_changed_is_refused(position: int, character: str) -> None:
    """There is no bit in a token that does not count."""
    altered = TOKEN[:position] + character + TOKEN[position + 1 :]
    if altered == TOKEN:
        return
    bearer = BearerToken(Secret(altered))

    with pytest.raises(InvalidToken):
        _verified(bearer)


def _verified(bearer: BearerToken) -> Principal:
    token = read(bearer, ENTRA.expectation())
    return verify(token, ENTRA.signing_key(token.issuer), ENTRA.expectation(), now=START)


async def test_the_unaltered_token_is_accepted() -> None:
    """The attacks above fail for what they change and for nothing else."""
    assert await accepted(TOKEN)
