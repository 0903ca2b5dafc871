"""`crit` asks for extensions we do not have: such a token is refused (RFC 7515 section 4.1.11)."""

from typing import Any, Final

import pytest

from authz.core.errors import TokenFault
from support.fakes.attack import fault_of
from support.fakes.clock import Clock
from support.fakes.tenant import FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())


@pytest.mark.parametrize(
    "headers",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": ["alg"]},
        {"crit": ["http://openbanking.org.uk/iat"], "http://openbanking.org.uk/iat": 1},
        {"crit": ["b64"], "b64": True},
        {"crit": ["b64"], "b64": False},
        {"crit": []},
        {"crit": None},
        {"crit": ""},
        {"crit": False},
        {"crit": {}},
        {"b64": False},
        {"b64": True},
    ],
    ids=repr,
)
async def test_a_genuine_token_with_critical_extensions_is_refused(headers: dict[str, Any]) -> None:
    """Whatever `crit` holds, its presence says that we would misunderstand the token."""
    token = ENTRA.mint(ENTRA.user_claims(), headers=headers)

    assert TokenFault.MALFORMED is await fault_of(token)


async def test_a_detached_payload_is_refused() -> None:
    """An unencoded payload that travels elsewhere is no token (RFC 7797)."""
    token = ENTRA.mint(ENTRA.user_claims(), headers={"b64": False, "crit": ["b64"]})
    header, _, signature = token.split(".")

    assert TokenFault.MALFORMED is await fault_of(f"{header}..{signature}")
