"""Exactly one bearer value: whatever else `Authorization` holds is refused before it is believed."""

from typing import Final

import pytest

from authz.core.decision import Allow, Deny
from authz.core.errors import Reason
from authz.core.request import Authorization
from support.fakes.clock import Clock
from support.fakes.scene import DELEGATED_FLOWS, INBOUND, Scene
from support.fakes.tenant import FakeTenant

TOKEN: Final = FakeTenant(clock=Clock()).user_token()
DOORS: Final = [("inbound", INBOUND), *(("egress", flow.value) for flow in DELEGATED_FLOWS)]

FORMS: Final[dict[str, tuple[str, Reason]]] = {
    "two tokens that a proxy joined": (f"Bearer {TOKEN}, Bearer {TOKEN}", Reason.MALFORMED_REQUEST),
    "two tokens without a blank": (f"Bearer {TOKEN},Bearer {TOKEN}", Reason.MALFORMED_REQUEST),
    "another scheme first": (f"Basic dTpw, Bearer {TOKEN}", Reason.MALFORMED_REQUEST),
    "another scheme after": (f"Bearer {TOKEN}, Basic dTpw", Reason.MALFORMED_REQUEST),
    "an empty second value": (f"Bearer {TOKEN},", Reason.MALFORMED_REQUEST),
    "two words": (f"Bearer {TOKEN} {TOKEN}", Reason.MALFORMED_REQUEST),
    "the scheme twice": (f"Bearer Bearer {TOKEN}", Reason.MALFORMED_REQUEST),
    "a parameter": (f'Bearer token="{TOKEN}"', Reason.MALFORMED_REQUEST),
    "quotes": (f'Bearer "{TOKEN}"', Reason.MALFORMED_REQUEST),
    "a line break inside": (f"Bearer {TOKEN}\r\nX-Injected: 1", Reason.MALFORMED_REQUEST),
    "a line break at the end": (f"Bearer {TOKEN}\n", Reason.MALFORMED_REQUEST),
    "a NUL at the end": (f"Bearer {TOKEN}\x00", Reason.MALFORMED_REQUEST),
    "a letter that is not ASCII": (f"Bearer {TOKEN}\u00e9", Reason.MALFORMED_REQUEST),
    "a full-width token": ("Bearer \uff41\uff42\uff43", Reason.MALFORMED_REQUEST),
    "a semicolon": (f"Bearer {TOKEN}; charset=utf-8", Reason.MALFORMED_REQUEST),
    "the scheme alone": ("Bearer", Reason.MALFORMED_REQUEST),
    "the scheme and a blank": ("Bearer ", Reason.MALFORMED_REQUEST),
    "padding in the middle": ("Bearer a=b", Reason.MALFORMED_REQUEST),
    "padding alone": ("Bearer =", Reason.MALFORMED_REQUEST),
    "nothing": ("", Reason.MISSING_TOKEN),
    "blanks": ("   ", Reason.MISSING_TOKEN),
    "a blank before the scheme": (f" Bearer {TOKEN}", Reason.MISSING_TOKEN),
    "no scheme": (TOKEN, Reason.MISSING_TOKEN),
    "no blank after the scheme": (f"Bearer{TOKEN}", Reason.MISSING_TOKEN),
    "a tab after the scheme": (f"Bearer\t{TOKEN}", Reason.MISSING_TOKEN),
    "a colon after the scheme": (f"Bearer: {TOKEN}", Reason.MISSING_TOKEN),
    "a longer scheme": (f"BearerX {TOKEN}", Reason.MISSING_TOKEN),
    "another scheme": (f"Token {TOKEN}", Reason.MISSING_TOKEN),
    "Basic": ("Basic dXNlcjpwYXNzd29yZA==", Reason.MISSING_TOKEN),
    "DPoP": (f"DPoP {TOKEN}", Reason.MISSING_TOKEN),
    "PoP": (f"PoP {TOKEN}", Reason.MISSING_TOKEN),
    "a scheme that only looks alike": (f"Be\u0430rer {TOKEN}", Reason.MISSING_TOKEN),
}


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door[1])
@pytest.mark.parametrize(("value", "reason"), FORMS.values(), ids=FORMS)
async def test_an_odd_value_is_refused_though_it_holds_a_good_token(
    value: str, reason: Reason, door: tuple[str, str]
) -> None:
    """Nothing is picked out of a value that is not one bearer token as a whole."""
    scene = Scene()
    record = await scene.check(scene.request(*door, None, authorization=Authorization(value)))

    assert Deny(reason) == record.decision
    assert (None, []) == (record.principal, scene.entra.calls)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door[1])
@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {}", "Bearer {}  "])
async def test_the_forms_that_the_standard_admits_are_accepted(
    form: str, door: tuple[str, str]
) -> None:
    """The scheme's case and the number of blanks do not matter."""
    scene = Scene()
    record = await scene.check(
        scene.request(*door, None, authorization=Authorization(form.format(TOKEN)))
    )

    assert isinstance(record.decision, Allow)
