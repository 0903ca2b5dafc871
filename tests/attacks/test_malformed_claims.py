"""Claims of the wrong kind are refused even under a genuine signature: nothing is coerced."""

import json
import math
from typing import Final

import pytest

from authz.core.decision import Allow
from authz.core.errors import TokenFault
from support.fakes.attack import fault_of
from support.fakes.clock import START, Clock
from support.fakes.scene import Scene
from support.fakes.tenant import FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())
NO_TEXT: Final = [0, 1, 1.5, True, [], ["x"], {}, {"x": "y"}]
NO_TIME: Final[list[object]] = ["1800003600", "", None, True, False, [], [1], {}]
NO_MOMENT: Final = [
    math.nan,
    math.inf,
    -math.inf,
    -1,
    -0.5,
    1e12,
    1e300,
    10**12,
    10**400,
    -(10**400),
]


@pytest.mark.parametrize("name", ["tid", "oid"])
@pytest.mark.parametrize("value", [*NO_TEXT, None, ""], ids=repr)
async def test_a_required_claim_is_a_text(name: str, value: object) -> None:
    """A number is no identifier, and neither is a list of one."""
    assert TokenFault.MISSING_CLAIM is await fault_of(ENTRA.user_token(**{name: value}))


@pytest.mark.parametrize(
    "name",
    ["scp", "azp", "appid", "idtyp", "uti", "jti", "xms_sub_fct", "xms_act_fct", "xms_par_app_azp"],
)
@pytest.mark.parametrize("value", [*NO_TEXT, None], ids=repr)
async def test_an_optional_claim_is_a_text_or_absent(name: str, value: object) -> None:
    """A list where a text belongs is not read as absent, and so not as a weaker token."""
    changes = {name: value} if name != "jti" else {"uti": "", "jti": value}

    assert TokenFault.MALFORMED is await fault_of(ENTRA.user_token(**changes))


LISTS: Final = ["roles", "acrs"]


@pytest.mark.parametrize(
    "value", ["Admin", 1, True, None, {}, {"Admin": 1}, [1], [None], ["Admin", 1], [["Admin"]]],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("name", LISTS)
async def test_roles_and_authentication_contexts_are_lists_of_texts(
    name: str, value: object
) -> None:
    """A text is not a list of its letters."""
    assert TokenFault.MALFORMED is await fault_of(ENTRA.user_token(**{name: value}))


HALVES: Final = ["\ud800", "\udfff", "a\udc00b"]


@pytest.mark.parametrize(
    "name",
    ["oid", "scp", "azp", "idtyp", "uti", "xms_sub_fct", "xms_act_fct", "xms_par_app_azp", *LISTS],
)
@pytest.mark.parametrize("value", HALVES, ids=ascii)
async def test_half_a_surrogate_pair_is_no_text(name: str, value: str) -> None:
    """JSON can escape one, and no encoder takes it later on."""
    claim = [value] if name in LISTS else value

    assert TokenFault.MALFORMED is await fault_of(ENTRA.user_token(**{name: claim}))


@pytest.mark.parametrize("name", ["oid", "azp", "xms_par_app_azp"])
@pytest.mark.parametrize(
    "value", ["a b", " a", "a\n", "a\r\nb: c", "a\x00", "\x7f", "\u00e9"], ids=ascii
)
async def test_an_identifier_is_visible_ascii(name: str, value: str) -> None:
    """It is put into a header as it stands, so it must be safe there."""
    assert TokenFault.MALFORMED is await fault_of(ENTRA.user_token(**{name: value}))


@pytest.mark.parametrize("name", ["exp", "nbf"])
@pytest.mark.parametrize("value", NO_TIME, ids=repr)
async def test_a_time_is_a_number(name: str, value: object) -> None:
    """Neither a numeral in quotes nor a truth value is a moment."""
    assert TokenFault.MISSING_CLAIM is await fault_of(ENTRA.user_token(**{name: value}))


@pytest.mark.parametrize("name", ["exp", "nbf"])
@pytest.mark.parametrize("value", NO_MOMENT, ids=lambda value: repr(value)[:20])
async def test_a_time_is_a_moment_within_reach(name: str, value: float) -> None:
    """NaN would make every comparison false, and infinity a token that never ends."""
    assert TokenFault.MALFORMED is await fault_of(ENTRA.user_token(**{name: value}))


@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"[]", b'"text"', b"1", b"NaN", b"{", b"{}x", b"\xff\xfe", b"\x00", b"{'a': 1}"],
)
async def test_a_payload_is_a_json_object(payload: bytes) -> None:
    """Signed bytes that are no claims set are malformed."""
    assert TokenFault.MALFORMED is await fault_of(ENTRA.mint_payload(payload))


@pytest.mark.parametrize("opening", [b"[", b'{"":'])
@pytest.mark.parametrize("depth", [900, 1_500, 2_500])
async def test_deep_nesting_does_not_exhaust_the_stack(opening: bytes, depth: int) -> None:
    """Whether a token nests beyond the parser's depth or just below it, it is refused."""
    fault = await fault_of(ENTRA.mint_payload(opening * depth))

    assert TokenFault.MALFORMED is fault


async def test_deep_nesting_inside_genuine_claims_is_survived() -> None:
    """An unused claim may be as deep as it likes; the outcome is a decision, not a crash."""
    claims = json.dumps(ENTRA.user_claims()).encode()
    token = ENTRA.mint_payload(claims[:-1] + b',"x":' + b"[" * 4_000 + b"]" * 4_000 + b"}")

    assert TokenFault.MALFORMED is await fault_of(token)


async def test_deep_nesting_in_the_header_is_survived() -> None:
    """The header is parsed before anything is known of the token."""
    header = b'{"alg":"RS256","kid":"key-1","x":' + b"[" * 4_000 + b"]" * 4_000 + b"}"
    token = ENTRA.sign_raw(header, json.dumps(ENTRA.user_claims()).encode())

    assert TokenFault.MALFORMED is await fault_of(token)


async def test_a_number_with_thousands_of_digits_is_survived() -> None:
    """Python refuses to read such numbers; so do we."""
    claims = json.dumps(ENTRA.user_claims()).encode()
    token = ENTRA.mint_payload(claims[:-1] + b',"x":' + b"9" * 6_000 + b"}")

    assert TokenFault.MALFORMED is await fault_of(token)


CONTROL: Final = [
    "a\r\nx-authz-subject: root", "a\nb", "a\x00b", "a\x7f", "a b", "a,b", "\u00e9", "\u202e", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", ["oid", "azp", "xms_par_app_azp", "scp", "roles", "uti"])
@pytest.mark.parametrize("value", CONTROL, ids=ascii)
async def test_no_claim_can_break_out_of_an_identity_header(name: str, value: str) -> None:
    """A signed claim with a line break in it is refused or escaped, but never a header of its own."""
    scene = Scene()
    claim = [value] if name == "roles" else value
    decision = (
        await scene.inbound(scene.tenant.user_token(idtyp="user", **{name: claim}))
    ).decision
    headers = decision.headers if isinstance(decision, Allow) else ()

    assert [] == [text for _, text in headers if not (text.isascii() and text.isprintable())]


async def test_times_far_apart_but_within_reach_are_fine() -> None:
    """The refusals above are for what they change: numbers with fractions are moments too."""
    scene = Scene()
    token = scene.tenant.user_token(nbf=0, exp=START + 0.5)

    assert isinstance((await scene.inbound(token)).decision, Allow)
