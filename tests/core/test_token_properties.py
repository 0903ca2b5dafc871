"""Verification is total: whatever a token holds, the outcome is a principal or an `AuthzError`."""

import json
from typing import Any, Final

from hypothesis import example, given
from hypothesis import strategies as st

from authz.core.errors import AuthzError
from authz.core.principal import Principal
from authz.core.request import BearerToken
from authz.core.secret import Secret
from authz.core.token import read, signed_payload, verify
from support.fakes.clock import START, Clock
from support.fakes.jws import b64url
from support.fakes.properties import JSON, brief, thorough
from support.fakes.tenant import TENANT, FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())
EXPECTATION: Final = ENTRA.expectation()
CLAIMS: Final = ENTRA.user_claims()
NAMES: Final = st.sampled_from(
    [
        *CLAIMS,
        "appid",
        "idtyp",
        "roles",
        "acrs",
        "jti",
        "xms_sub_fct",
        "xms_act_fct",
        "xms_par_app_azp",
    ]
)
HEADERS: Final = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "x5c", "zip", "cty"])


def _outcome(token: str) -> Principal | AuthzError:
    bearer = BearerToken(Secret(token))
    try:
        unverified = read(bearer, EXPECTATION)
        return verify(unverified, ENTRA.signing_key(unverified.issuer), EXPECTATION, now=START)
    except AuthzError as error:
        return error


@thorough
@given(text=st.text() | st.lists(st.text(max_size=8), min_size=3, max_size=3).map(".".join))
@example(text="")
@example(text="..")
@example(text="\ud800.a.b")
def test_arbitrary_text_is_refused(text: str) -> None:
    """Nothing that was not signed is a principal, and nothing makes the parser fall over."""
    assert isinstance(_outcome(text), AuthzError)


@thorough
@given(text=st.text())
def test_arbitrary_text_does_not_upset_verification_itself(text: str) -> None:
    """It is refused before a key is asked, and raises nothing of a library's."""
    try:
        signed_payload(BearerToken(Secret(text)), ENTRA.signing_key())
    except AuthzError:
        return

    raise AssertionError("text without a signature was verified")


@thorough
@given(header=JSON, payload=JSON, signature=st.binary(max_size=8))
def test_arbitrary_json_in_the_parts_is_refused(
    header: object, payload: object, signature: bytes
) -> None:
    """A compact serialization of nonsense is refused like other nonsense."""
    parts = [json.dumps(part).encode() for part in (header, payload)]
    token = ".".join([*map(b64url, parts), b64url(signature)])

    assert isinstance(_outcome(token), AuthzError)


@brief
@given(changes=st.dictionaries(NAMES, JSON, min_size=1, max_size=3))
@example(changes={"exp": 10**400})
@example(changes={"tid": "\ud800"})
@example(changes={"idtyp": "user", "scp": "\ud800"})
def test_properly_signed_nonsense_is_a_principal_of_the_tenant_or_refused(
    changes: dict[str, Any],
) -> None:
    """Even Entra's own signature gives no claim a meaning that its rules do not."""
    outcome = _outcome(ENTRA.mint(CLAIMS, changes))

    assert isinstance(outcome, Principal | AuthzError)
    if isinstance(outcome, Principal):
        assert TENANT == outcome.subject.tenant_id
        assert START < outcome.expires_at + EXPECTATION.leeway
        names = outcome.scopes | outcome.roles | outcome.auth_contexts
        assert all(isinstance(name, str) for name in names)
        assert isinstance(outcome.subject.object_id, str)


@brief
@given(headers=st.dictionaries(HEADERS, JSON, min_size=1, max_size=3))
def test_a_properly_signed_token_with_any_header_is_a_principal_or_refused(
    headers: dict[str, Any],
) -> None:
    """Header members are refused or ignored; none raises anything else."""
    assert isinstance(_outcome(ENTRA.mint(CLAIMS, headers=headers)), Principal | AuthzError)


@brief
@given(payload=st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()))
def test_a_properly_signed_payload_that_is_no_claim_set_is_refused(payload: bytes) -> None:
    """A signature over bytes makes them no claims."""
    assert isinstance(_outcome(ENTRA.mint_payload(payload)), AuthzError)
