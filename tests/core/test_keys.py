"""Reading a JWKS: only the issuer's own strong RSA signing keys are taken, whatever else it holds."""

import base64
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from authz.core.keys import (
    LONGEST_ABSENCE,
    MAXIMUM_KEYS,
    MOST_ABSENT,
    KeyFault,
    KeySet,
    MalformedKeySet,
    RefreshPolicy,
    UnknownKeys,
    parse_key_set,
)
from support.fakes.clock import START, Clock
from support.fakes.jws import b64url, private_key
from support.fakes.properties import JSON, thorough
from support.fakes.tenant import ABSENT, OTHER_TENANT, FakeTenant

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


OTHER: Final = FakeTenant(OTHER_TENANT, clock=Clock())
NUMBERS: Final = TENANT.key.public_key().public_numbers()


def _number(number: int) -> str:
    return b64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _factored(bits: int, factor: int) -> str:
    """Return an odd modulus of so many bits that the factor divides."""
    least = (1 << (bits - 1)) // factor + 1
    return _number(factor * (least | 1))


def _certificate(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signing")])
    start = datetime.fromtimestamp(START, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


def _of_powers(bits: int) -> str:
    """Return a modulus made the way of the library that ROCA found: primes that are powers of 65537."""
    product = math.prod(
        prime for prime in range(2, 702) if all(prime % other for other in range(2, prime))
    )
    half = [pow(65537, exponent, product) for exponent in (12345, 67891)]
    missing = [bits // 2 - product.bit_length() + 1] * 2
    first, second = ((1 << more) * product + part for more, part in zip(missing, half, strict=True))
    return _number(first * second)


UNUSABLE: Final[dict[str, tuple[KeyFault, Any]]] = {
    "another tenant's issuer": (KeyFault.ISSUER, TENANT.jwk(issuer=OTHER.issuer)),
    "an issuer that is no text": (KeyFault.ISSUER, TENANT.jwk(issuer=[TENANT.issuer])),
    "an encryption key": (KeyFault.USE, TENANT.jwk(use="enc")),
    "a use that is no text": (KeyFault.USE, TENANT.jwk(use=None)),
    "a key to encrypt with, without use": (KeyFault.OPERATIONS, TENANT.jwk(use=ABSENT, key_ops=["encrypt"])),
    "a key to encrypt with, in spite of use": (KeyFault.OPERATIONS, TENANT.jwk(key_ops=["encrypt"])),
    "a key for no operation": (KeyFault.OPERATIONS, TENANT.jwk(key_ops=[])),
    "operations that are no list": (KeyFault.OPERATIONS, TENANT.jwk(key_ops="verify")),
    "a key for another algorithm": (KeyFault.ALGORITHM, TENANT.jwk(alg="RS512")),
    "a key for PSS": (KeyFault.ALGORITHM, TENANT.jwk(alg="PS256")),
    "an RSA key that says it is a curve": (KeyFault.TYPE, TENANT.jwk(kty="EC")),
    "an elliptic curve": (KeyFault.TYPE, {"kty": "EC", "crv": "P-256", "kid": "key-1", "x": "AA", "y": "AA"}),
    "a curve that says it is an RSA key": (KeyFault.ENCODING, {"kty": "RSA", "crv": "P-256", "kid": "key-1", "x": "AA", "y": "AA"}),
    "a symmetric key": (KeyFault.TYPE, {"kty": "oct", "kid": "key-1", "k": "c2VjcmV0"}),
    "a symmetric key beside the public one": (KeyFault.PRIVATE, TENANT.jwk(k="c2VjcmV0")),
    "a private exponent": (KeyFault.PRIVATE, TENANT.jwk(d="AQ")),
    "a prime": (KeyFault.PRIVATE, TENANT.jwk(p="AQ")),
    "no kid": (KeyFault.KEY_ID, TENANT.jwk(kid=ABSENT)),
    "an empty kid": (KeyFault.KEY_ID, TENANT.jwk(kid="")),
    "a kid that is no text": (KeyFault.KEY_ID, TENANT.jwk(kid=1)),
    "no modulus": (KeyFault.ENCODING, TENANT.jwk(n=ABSENT)),
    "a modulus that is no text": (KeyFault.ENCODING, TENANT.jwk(n=1)),
    "a modulus that is no base64": (KeyFault.ENCODING, TENANT.jwk(n="%%%")),
    "a modulus with padding": (KeyFault.ENCODING, TENANT.jwk(n=ENTRY["n"] + "==")),
    "no exponent": (KeyFault.ENCODING, TENANT.jwk(e=ABSENT)),
    "an empty modulus": (KeyFault.SIZE, TENANT.jwk(n="")),
    "a modulus of 1024 bits": (KeyFault.SIZE, TENANT.jwk(n=_number(private_key("short", 1024).public_key().public_numbers().n))),
    "a modulus of 2047 bits": (KeyFault.SIZE, TENANT.jwk(n=_number(NUMBERS.n >> 1 | 1))),
    "a modulus of 8193 bits": (KeyFault.SIZE, TENANT.jwk(n=_number((1 << 8192) + 1))),
    "a modulus of 65,536 bits": (KeyFault.SIZE, TENANT.jwk(n=_number((1 << 65535) + 1))),
    "an even modulus": (KeyFault.MODULUS, TENANT.jwk(n=_number(NUMBERS.n ^ 1))),
    "a modulus that 3 divides": (KeyFault.MODULUS, TENANT.jwk(n=_factored(2048, 3))),
    "a modulus that 751 divides": (KeyFault.MODULUS, TENANT.jwk(n=_factored(2048, 751))),
    "a modulus of 2048 bits by the library of ROCA": (KeyFault.ROCA, TENANT.jwk(n=_of_powers(2048))),
    "a modulus of 4096 bits by the library of ROCA": (KeyFault.ROCA, TENANT.jwk(n=_of_powers(4096))),
    "exponent 0": (KeyFault.EXPONENT, TENANT.jwk(e="AA")),
    "exponent 1": (KeyFault.EXPONENT, TENANT.jwk(e="AQ")),
    "exponent 2": (KeyFault.EXPONENT, TENANT.jwk(e="Ag")),
    "an even exponent": (KeyFault.EXPONENT, TENANT.jwk(e=_number(65536))),
    "an exponent of 33 bits": (KeyFault.EXPONENT, TENANT.jwk(e=_number((1 << 32) + 1))),
    "an exponent as long as the modulus": (KeyFault.EXPONENT, TENANT.jwk(e=ENTRY["n"])),
    "another key's certificate": (KeyFault.CERTIFICATE, TENANT.jwk(x5c=[_certificate(OTHER.key)])),
    "a certificate of a curve": (KeyFault.CERTIFICATE, TENANT.jwk(x5c=[_certificate(ec.generate_private_key(ec.SECP256R1()))])),
    "a certificate that is none": (KeyFault.CERTIFICATE, TENANT.jwk(x5c=["AAAA"])),
    "a certificate that is no base64": (KeyFault.CERTIFICATE, TENANT.jwk(x5c=["%"])),
    "no certificate in the chain": (KeyFault.CERTIFICATE, TENANT.jwk(x5c=[])),
    "a chain that is no list": (KeyFault.CERTIFICATE, TENANT.jwk(x5c=None)),
    "a chain of no text": (KeyFault.CERTIFICATE, TENANT.jwk(x5c=[1])),
    "a text in place of a key": (KeyFault.FORM, "key-1"),
    "a null in place of a key": (KeyFault.FORM, None),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "entry"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_key_is_left_out_beside_a_good_one(fault: KeyFault, entry: object) -> None:
    """One odd key neither verifies anything nor takes the others with it, and its reason is told."""
    read = _parse({"keys": [entry, TENANT.jwk(kid="good")]})

    assert ["good"] == list(read.keys)
    assert [fault] == [told for _, told in read.refused]


@pytest.mark.parametrize(("fault", "entry"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_set_of_unusable_keys_is_malformed(fault: KeyFault, entry: object) -> None:
    """An empty set would lock everybody out; it must not replace the last good one."""
    with pytest.raises(MalformedKeySet, match=re.escape(fault.value)):
        _parse({"keys": [entry]})


SOUND: Final[dict[str, dict[str, object]]] = {
    "the certificate of the key": {"x5c": [_certificate(TENANT.key)]},
    "a certificate of another behind it": {"x5c": [_certificate(TENANT.key), _certificate(OTHER.key)]},
    "a key to verify with": {"use": ABSENT, "key_ops": ["verify"]},
    "several operations": {"key_ops": ["encrypt", "verify"]},
    "exponent 3": {"e": "Aw"},
    "the largest exponent": {"e": _number((1 << 32) - 1)},
    "a modulus of nearly 8192 bits": {"n": _number(NUMBERS.n**4)},
}  # fmt: skip


@pytest.mark.parametrize("changes", SOUND.values(), ids=SOUND)
def test_a_sound_key_in_an_unusual_form_is_read(changes: dict[str, object]) -> None:
    """The rules end where keys are good."""
    assert ["key-1"] == list(_parse({"keys": [TENANT.jwk(**changes)]}).keys)


def test_a_kid_of_two_keys_stands_for_neither() -> None:
    """Which of them was meant cannot be told; the same key given twice is one."""
    twin = TENANT.jwk(n=OTHER.jwk()["n"])
    read = _parse({"keys": [ENTRY, twin, TENANT.jwk(kid="good"), TENANT.jwk(kid="good")]})

    assert ["good"] == list(read.keys)
    assert (("key-1", KeyFault.REPEATED),) == read.refused


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


def test_unknown_key_ids_cause_one_fetch_per_interval() -> None:
    """Forged key ids cannot be turned into load on Entra, however many there are."""
    unknown, asked = UnknownKeys(POLICY), []
    for second in range(200):
        for kid in range(3):
            if unknown.may_ask(f"forged-{second}-{kid}", float(second)):
                unknown.asked(float(second))
                asked.append(second)

    assert [0, 60, 120, 180] == asked


def test_an_absent_key_id_is_looked_for_less_and_less() -> None:
    """The pause doubles up to its bound; others of its kind are not held up by it."""
    unknown, now, pauses = UnknownKeys(RefreshPolicy(unknown_key_interval=30.0)), 1000.0, []
    for _ in range(6):
        unknown.asked(now)
        unknown.missed("absent", now, looked_for=True)
        end = next(t for t in range(1, 400) if unknown.may_ask("absent", now + t))
        pauses.append(end)
        now += end

    assert [30, 60, 120, 240, LONGEST_ABSENCE, LONGEST_ABSENCE] == pauses
    assert unknown.may_ask("new", now)


def test_a_fetch_that_was_under_way_holds_up_nobody() -> None:
    """It may be older than the key: the id is absent for now, and may be looked for at once."""
    unknown = UnknownKeys(POLICY)
    unknown.missed("new", 100.0, looked_for=False)

    assert (True, True) == (unknown.is_absent("new"), unknown.may_ask("new", 100.0))


def test_a_key_id_is_absent_once_it_was_looked_for() -> None:
    """Nothing is said of an id that nobody has looked for; the oldest are forgotten for new ones."""
    unknown = UnknownKeys(POLICY)
    unknown.missed("first", 0.0, looked_for=True)
    unknown.missed("\ud800", 0.0, looked_for=True)
    seen = [unknown.is_absent(kid) for kid in ("first", "\ud800", "other")]
    for number in range(MOST_ABSENT):
        unknown.missed(f"forged-{number}", 0.0, looked_for=False)

    assert [True, True, False] == seen
    assert (False, True) == (unknown.is_absent("first"), unknown.is_absent("forged-0"))


def test_another_instance_goes_on_from_what_was_known() -> None:
    """A reload is no way to have Entra asked again, but for what is being asked at that moment."""
    before, after = UnknownKeys(POLICY), UnknownKeys(POLICY)
    before.asked(100.0)
    before.missed("absent", 100.0, looked_for=True)
    after.adopt(before, asked=True)

    assert (False, True) == (after.may_ask("new", 159.9), after.may_ask("new", 160.0))
    assert after.is_absent("absent")
    after.adopt(before, asked=False)
    assert (True, False) == (after.may_ask("new", 100.0), after.may_ask("absent", 100.0))
