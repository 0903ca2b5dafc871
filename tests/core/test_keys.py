"""Reading a JWKS: only the issuer's own strong RSA signing keys are taken, whatever else it holds."""

from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from hypothesis import example, given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from authz.core.keys import MAXIMUM_KEYS, KeySet, MalformedKeySet, RefreshPolicy, parse_key_set
from support.clock import START, Clock
from support.jws import private_key
from support.properties import JSON, thorough
from support.tenant import ABSENT, OTHER_TENANT, FakeTenant

TENANT: Final = FakeTenant(clock=Clock())
ENTRY: Final = TENANT.jwk()
MEMBERS: Final = st.sampled_from([*ENTRY, "alg", "d", "p", "q", "oth", "x5c", "key_ops"])


def _parse(document: object) -> KeySet:
    return parse_key_set(
        document,
        issuer=TENANT.issuer,
        aliases=(TENANT.issuer_v1,),
        tenant_id=TENANT.tenant_id,
        now=START,
    )


def test_a_published_key_is_read_with_its_issuer() -> None:
    """The set says for whom its keys vouch and when it was fetched."""
    keys = _parse({"keys": [ENTRY]})

    assert (TENANT.issuer, START, ["key-1"]) == (keys.issuer, keys.fetched_at, list(keys.keys))
    assert TENANT.signing_key() == keys.keys["key-1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
        {"issuer": "https://sts.windows.net/{tenantid}/"},
        {"issuer": TENANT.issuer_v1},
        {"issuer": ABSENT},
        {"use": ABSENT},
        {"alg": "RS256"},
    ],
    ids=["v2 template", "v1 template", "v1 issuer", "no issuer", "no use", "stated algorithm"],
)
def test_every_form_in_which_entra_publishes_a_key_is_read(changes: dict[str, object]) -> None:
    """Templates and either version's issuer are the tenant's own; what is left out has its default."""
    assert TENANT.signing_key() == _parse({"keys": [TENANT.jwk(**changes)]}).keys["key-1"]


UNUSABLE: Final[dict[str, Any]] = {
    "another tenant's issuer": TENANT.jwk(issuer=TENANT.issuer.replace(TENANT.tenant_id, OTHER_TENANT)),
    "an issuer that is no text": TENANT.jwk(issuer=[TENANT.issuer]),
    "an encryption key": TENANT.jwk(use="enc"),
    "a key for another algorithm": TENANT.jwk(alg="RS512"),
    "a key for PSS": TENANT.jwk(alg="PS256"),
    "an elliptic curve": {"kty": "EC", "crv": "P-256", "kid": "key-1", "x": "AA", "y": "AA"},
    "a symmetric key": {"kty": "oct", "kid": "key-1", "k": "c2VjcmV0"},
    "no kid": TENANT.jwk(kid=ABSENT),
    "an empty kid": TENANT.jwk(kid=""),
    "a kid that is no text": TENANT.jwk(kid=1),
    "no modulus": TENANT.jwk(n=ABSENT),
    "a modulus that is no text": TENANT.jwk(n=1),
    "a modulus that is no base64": TENANT.jwk(n="%%%"),
    "a text in place of a key": "key-1",
    "a null in place of a key": None,
}  # fmt: skip


@pytest.mark.parametrize("entry", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_key_is_left_out_beside_a_good_one(entry: object) -> None:
    """One odd key neither verifies anything nor takes the others with it."""
    good = TENANT.jwk(kid="good")

    assert ["good"] == list(_parse({"keys": [entry, good]}).keys)


@pytest.mark.parametrize("entry", UNUSABLE.values(), ids=UNUSABLE)
def test_a_set_of_unusable_keys_is_malformed(entry: object) -> None:
    """An empty set would lock everybody out; it must not replace the last good one."""
    with pytest.raises(MalformedKeySet):
        _parse({"keys": [entry]})


def test_a_short_key_is_left_out() -> None:
    """RSA below 2048 bits is refused even when it is published."""
    short = RSAAlgorithm.to_jwk(private_key("short", 1024).public_key(), as_dict=True)

    with pytest.raises(MalformedKeySet):
        _parse({"keys": [TENANT.jwk(n=short["n"])]})


@pytest.mark.parametrize(
    "document", [None, [], "keys", {}, {"keys": None}, {"keys": {}}, {"keys": []}]
)
def test_a_document_that_is_no_key_set_is_malformed(document: object) -> None:
    """An error page or an empty list does not pass for keys."""
    with pytest.raises(MalformedKeySet):
        _parse(document)


def test_a_set_without_end_is_read_to_its_bound() -> None:
    """A hostile answer cannot make us parse keys for ever."""
    entries = [None] * MAXIMUM_KEYS

    assert ["key-1"] == list(_parse({"keys": [*entries[1:], ENTRY]}).keys)
    with pytest.raises(MalformedKeySet):
        _parse({"keys": [*entries, ENTRY]})


@thorough
@given(document=JSON | st.fixed_dictionaries({"keys": JSON}))
def test_any_json_is_a_key_set_or_malformed(document: object) -> None:
    """The reader raises nothing but `MalformedKeySet`, and random JSON is no key."""
    with pytest.raises(MalformedKeySet):
        _parse(document)


@thorough
@given(changes=st.dictionaries(MEMBERS, JSON, min_size=1, max_size=3))
@example(changes={"d": "AQ"})
@example(changes={"n": ""})
@example(changes={"e": "AA"})
@example(changes={"n": "\ud800"})
def test_a_key_with_any_members_is_usable_or_left_out(changes: dict[str, object]) -> None:
    """Whatever stands in a key's members, what comes out is a strong public key or nothing."""
    try:
        keys = _parse({"keys": [TENANT.jwk(**changes)]})
    except MalformedKeySet:
        return

    (key,) = keys.keys.values()
    assert isinstance(key.public_key, RSAPublicKey)
    assert 2048 <= key.public_key.key_size
    assert TENANT.issuer == key.issuer


POLICY: Final = RefreshPolicy(interval=3600.0, retry_interval=10.0, unknown_key_interval=60.0)


@pytest.mark.parametrize(
    ("fetched_at", "attempted_at", "expected"),
    [
        pytest.param(None, None, 0.0, id="never tried: at once"),
        pytest.param(None, 100.0, 110.0, id="never succeeded: after the retry interval"),
        pytest.param(50.0, 100.0, 110.0, id="last try failed: after the retry interval"),
        pytest.param(100.0, 100.0, 3700.0, id="last try succeeded: after the interval"),
    ],
)
def test_keys_are_fetched_ahead(
    fetched_at: float | None, attempted_at: float | None, expected: float
) -> None:
    """Success is followed by the long interval, failure by the short one."""
    assert expected == POLICY.next_fetch(fetched_at=fetched_at, attempted_at=attempted_at)


@pytest.mark.parametrize(
    ("attempted_at", "now", "expected"),
    [
        pytest.param(None, 0.0, True, id="never tried"),
        pytest.param(100.0, 100.0, False, id="just tried"),
        pytest.param(100.0, 159.9, False, id="within the interval"),
        pytest.param(100.0, 160.0, True, id="after the interval"),
    ],
)
def test_unknown_key_ids_cause_one_fetch_per_interval(
    attempted_at: float | None,
    now: float,
    expected: bool,
) -> None:
    """Forged key ids cannot be turned into load on Entra."""
    assert expected is POLICY.may_fetch_for_unknown_key(attempted_at=attempted_at, now=now)
