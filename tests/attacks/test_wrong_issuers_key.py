"""A key vouches for its own issuer only, though the same service trusts both."""

from dataclasses import replace
from typing import Final

import pytest

from authz.core.errors import InvalidToken, TokenFault
from authz.core.keys import SigningKey
from authz.core.request import BearerToken
from authz.core.secret import Secret
from authz.core.token import read, verify
from support.fakes.attack import fault_of
from support.fakes.clock import START, Clock
from support.fakes.jws import rs256
from support.fakes.scene import Scene
from support.fakes.tenant import OTHER_TENANT, FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())
OTHER: Final = FakeTenant(OTHER_TENANT, clock=Clock(), key_id="other-key")


def _scene() -> Scene:
    scene = Scene()
    scene.keys.publish(OTHER.signing_key())
    return scene


async def test_another_trusted_issuers_key_is_not_among_this_ones() -> None:
    """Our tenant's claims under the other tenant's key ask for a key that our issuer lacks."""
    scene = _scene()
    token = ENTRA.mint(ENTRA.user_claims(), headers={"kid": OTHER.key_id}, sign=rs256(OTHER.key))

    assert TokenFault.UNKNOWN_KEY is await fault_of(token, scene)
    assert {(ENTRA.issuer, "other-key")} == set(scene.keys.finds)


async def test_another_tenants_signature_under_this_ones_key_id_is_refused() -> None:
    """Borrowing the `kid` does not lend the key."""
    token = ENTRA.mint(ENTRA.user_claims(), sign=rs256(OTHER.key))

    assert TokenFault.SIGNATURE is await fault_of(token, _scene())


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(ENTRA.signing_key(ENTRA.issuer_v1), id="bound to the other version's issuer"),
        pytest.param(replace(ENTRA.signing_key(), issuer=OTHER.issuer), id="bound to another tenant"),
        pytest.param(replace(ENTRA.signing_key(), issuer=""), id="bound to nobody"),
    ],
)  # fmt: skip
def test_a_signature_is_not_enough_when_the_key_is_bound_elsewhere(key: SigningKey) -> None:
    """Verification asks for whom the key vouches, whoever handed it over."""
    token = read(BearerToken(Secret(ENTRA.user_token())), ENTRA.expectation())

    with pytest.raises(InvalidToken) as raised:
        verify(token, key, ENTRA.expectation(), now=START)
    assert TokenFault.ISSUER is raised.value.fault


def test_a_bound_key_does_not_widen_the_list_of_issuers() -> None:
    """A token and a key that agree on an issuer still need a route that accepts it."""
    token = read(BearerToken(Secret(OTHER.user_token())), OTHER.expectation())

    with pytest.raises(InvalidToken) as raised:
        verify(token, OTHER.signing_key(), ENTRA.expectation(), now=START)
    assert TokenFault.ISSUER is raised.value.fault
