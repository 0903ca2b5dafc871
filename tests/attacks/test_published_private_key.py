"""A key whose private half was published proves nothing, whoever published it."""

import json
from typing import Final

import pytest
from jwt.algorithms import RSAAlgorithm

from authz.core.errors import TokenFault
from authz.core.keys import MalformedKeySet, parse_key_set
from support.fakes.attack import fault_of
from support.fakes.clock import START, Clock
from support.fakes.jws import rs256
from support.fakes.scene import Scene
from support.fakes.tenant import FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())
LEAKED: Final = FakeTenant(clock=Clock(), key_id="leaked")
PRIVATE: Final = json.loads(RSAAlgorithm.to_jwk(LEAKED.key))


@pytest.mark.parametrize(
    "members", [("d", "p", "q", "dp", "dq", "qi"), ("d",)], ids=["every member", "the exponent alone"]
)  # fmt: skip
async def test_tokens_of_a_published_private_key_are_refused(members: tuple[str, ...]) -> None:
    """The key is left out of the set, so its tokens ask for a key that is not there."""
    private = {name: PRIVATE[name] for name in members}
    keys = parse_key_set(
        {"keys": [LEAKED.jwk(**private), ENTRA.jwk()]},
        issuer=ENTRA.issuer,
        aliases=(),
        tenant_id=ENTRA.tenant_id,
        now=START,
    )
    scene = Scene()
    for key in keys.keys.values():
        scene.keys.publish(key)
    token = ENTRA.mint(ENTRA.user_claims(), headers={"kid": LEAKED.key_id}, sign=rs256(LEAKED.key))

    assert [ENTRA.key_id] == list(keys.keys)
    assert TokenFault.UNKNOWN_KEY is await fault_of(token, scene)


def test_a_set_of_published_private_keys_is_no_key_set() -> None:
    """It does not replace the last good one."""
    with pytest.raises(MalformedKeySet):
        parse_key_set(
            {"keys": [LEAKED.jwk(d=PRIVATE["d"])]},
            issuer=ENTRA.issuer,
            aliases=(),
            tenant_id=ENTRA.tenant_id,
            now=START,
        )
