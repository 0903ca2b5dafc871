"""Signing keys of an issuer: reading a JWKS (RFC 7517) and deciding when to fetch it again.

Pure: the fetching is `authz.entra.signing_keys`. A key is bound to its issuer: Entra states the issuer
of each key, and a key of another tenant never verifies a token of this one.
"""

import base64
import binascii
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from math import gcd, prod
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.x509 import load_der_x509_certificate

from authz.core.base64url import decode

MINIMUM_RSA_BITS: Final = 2048
MAXIMUM_RSA_BITS: Final = 8192
"""Time to verify a signature grows with the square of this: 65,536 bits take a thousandfold."""
MAXIMUM_EXPONENT: Final = 1 << 32
MAXIMUM_KEYS: Final = 1000
MOST_ABSENT: Final = 1000
"""Absent key ids remembered for an issuer."""
LONGEST_ABSENCE: Final = 300.0
"""Seconds after which a key id that was never there is looked for again, if a token still asks for it."""
_PRIVATE: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
"""Members of private and symmetric keys (RFC 7518 sections 6.3.2 and 6.4.1)."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One RSA key that may verify tokens of one issuer."""

    key_id: str
    issuer: str
    public_key: RSAPublicKey


class KeyFault(StrEnum):
    """Why an entry of a key set verifies nothing of this issuer."""

    FORM = "it is no JSON object"
    ISSUER = "it states another issuer"
    KEY_ID = "it has no kid"
    REPEATED = "its kid is that of another key too"
    TYPE = "kty is not RSA"
    USE = "use is not sig"
    OPERATIONS = "key_ops does not name verify"
    ALGORITHM = "alg is not RS256"
    PRIVATE = "it publishes a private key"
    ENCODING = "n or e is no canonical base64url"
    SIZE = f"the modulus has not {MINIMUM_RSA_BITS} to {MAXIMUM_RSA_BITS} bits"
    EXPONENT = "the exponent is not odd, or not from 3 to 2^32"
    MODULUS = "the modulus has a small factor"
    ROCA = "the modulus can be factored (ROCA, CVE-2017-15361)"
    CERTIFICATE = "x5c is no certificate of this key"


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one issuer as of one fetch.

    Attributes:
        issuer: The `iss` these keys vouch for.
        keys: By `kid`.
        fetched_at: Monotonic second of the fetch.
        refused: The other entries: what each says its `kid` is, in so far as it is text, and why.
    """

    issuer: str
    keys: Mapping[str, SigningKey]
    fetched_at: float
    refused: tuple[tuple[str, KeyFault], ...] = ()


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """When to ask for keys again (Entra page "signing-key-rollover"). Times are monotonic seconds.

    Attributes:
        interval: Seconds between background refreshes.
        retry_interval: Seconds between attempts after a failed one.
        unknown_key_interval: Least seconds between two fetches that unknown key ids cause, for everyone
            together, so that forged key ids cannot be turned into load on Entra. A new key is met after
            that time at the latest, whatever is forged.
    """

    interval: float = 3600.0
    retry_interval: float = 10.0
    unknown_key_interval: float = 5.0

    def next_fetch(self, *, fetched_at: float | None, attempted_at: float | None) -> float:
        """Return the moment at which the background task should fetch next."""
        if attempted_at is None:
            return 0.0
        if fetched_at is None or fetched_at < attempted_at:
            return attempted_at + self.retry_interval
        return fetched_at + self.interval


class UnknownKeys:
    """Key ids that tokens asked for and no key set had: what they may cause, and what is known of them.

    One that was looked for and not found is absent: it is refused without a further fetch for a time that
    doubles with each look. So a client that repeats itself causes less and less, and an id that nobody
    has looked for yet is met by the next fetch that the policy allows.
    """

    def __init__(self, policy: RefreshPolicy) -> None:
        self._policy = policy
        self._asked_at: float | None = None
        self._absent: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    def adopt(self, other: "UnknownKeys", *, asked: bool) -> None:
        """Go on from what another instance knows, and if `asked` from the fetch that it has caused."""
        self._absent = other._absent  # noqa: SLF001 - the same class
        self._asked_at = other._asked_at if asked else None  # noqa: SLF001 - the same class

    def may_ask(self, key_id: str, now: float) -> bool:
        """Whether a token with this unknown `kid` may cause a fetch now."""
        _, due = self._absent.get(_short(key_id), (0, 0.0))
        return now >= max(due, self.next_fetch())

    def next_fetch(self) -> float:
        """Return the moment from which an unknown `kid` may cause a fetch."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else asked_at + self._policy.unknown_key_interval

    def asked(self, now: float) -> None:
        """Note a fetch that an unknown `kid` has caused."""
        self._asked_at = now

    def missed(self, key_id: str, now: float, *, looked_for: bool) -> None:
        """Note that a key set was fetched, and does not have this `kid`.

        Args:
            key_id: The `kid`.
            now: The moment.
            looked_for: Whether the fetch began after a token had asked for it. Otherwise its key may have
                been published in between, and it may be looked for as soon as a fetch is due.
        """
        key = _short(key_id)
        times, due = self._absent.pop(key, (0, 0.0))
        if looked_for:
            interval = self._policy.unknown_key_interval * 2.0 ** min(times, 30)
            times, due = times + 1, now + min(LONGEST_ABSENCE, interval)
        self._absent[key] = (times, due)
        if len(self._absent) > MOST_ABSENT:
            self._absent.popitem(last=False)

    def is_absent(self, key_id: str) -> bool:
        """Whether the `kid` was not in a key set that came after its first token."""
        return _short(key_id) in self._absent


def _short(key_id: str) -> bytes:
    """A `kid` may be as long as a token."""
    return sha256(key_id.encode("utf-8", "surrogatepass")).digest()


class MalformedKeySet(ValueError):
    """A JWKS document that holds no usable key, or is none at all."""


def parse_key_set(
    document: object, *, issuer: str, aliases: Iterable[str], tenant_id: str, now: float
) -> KeySet:
    """Read a JWKS document for one issuer.

    Keys that are not sound RSA signing keys, and keys that state the issuer of somebody else, are left
    out, each with its reason.

    Args:
        document: The parsed JSON.
        issuer: The `iss` of the tokens these keys will verify.
        aliases: The tenant's issuers of either token version; Entra states one of them per key.
        tenant_id: Replaces `{tenantid}` in a key's issuer template.
        now: Monotonic second of the fetch.

    Raises:
        MalformedKeySet: The document is not a JWKS, or no usable key is left.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise MalformedKeySet("not a JSON Web Key Set: no array 'keys'")
    own = {issuer, *aliases}
    read: dict[tuple[str, RSAPublicNumbers], SigningKey] = {}
    refused: list[tuple[str, KeyFault]] = []
    for entry in entries[:MAXIMUM_KEYS]:
        try:
            key_id, numbers = _parse_key(entry, own, issuer, tenant_id)
        except _Refused as refusal:
            refused.append((_told_id(entry), refusal.fault))
        else:
            read[key_id, numbers] = SigningKey(key_id, issuer, numbers.public_key())
    # A kid that stands for two keys chooses neither.
    times = Counter(key_id for key_id, _ in read)
    keys = {key_id: key for (key_id, _), key in read.items() if times[key_id] == 1}
    refused += [(key_id, KeyFault.REPEATED) for key_id, count in times.items() if count > 1]
    if not keys:
        causes = "; ".join(sorted({fault.value for _, fault in refused}))
        raise MalformedKeySet(f"no usable signing key of {issuer}" + (causes and f": {causes}"))
    return KeySet(issuer=issuer, keys=keys, fetched_at=now, refused=tuple(refused))


class _Refused(Exception):
    """An entry that is no key of ours."""

    def __init__(self, fault: KeyFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


def _parse_key(
    entry: object, own: set[str], issuer: str, tenant_id: str
) -> tuple[str, RSAPublicNumbers]:
    if not isinstance(entry, dict):
        raise _Refused(KeyFault.FORM)
    stated = entry.get("issuer", issuer)
    if not isinstance(stated, str) or stated.replace("{tenantid}", tenant_id) not in own:
        raise _Refused(KeyFault.ISSUER)
    key_id, operations = entry.get("kid"), entry.get("key_ops", ["verify"])
    if not isinstance(key_id, str) or not key_id:
        raise _Refused(KeyFault.KEY_ID)
    if entry.get("kty") != "RSA":
        raise _Refused(KeyFault.TYPE)
    # RFC 7517 sections 4.2 to 4.4: what is stated binds; Entra states `use` only.
    if entry.get("use", "sig") != "sig":
        raise _Refused(KeyFault.USE)
    if not isinstance(operations, list) or "verify" not in operations:
        raise _Refused(KeyFault.OPERATIONS)
    if entry.get("alg", "RS256") != "RS256":
        raise _Refused(KeyFault.ALGORITHM)
    # A published private key proves nothing.
    if any(member in entry for member in _PRIVATE):
        raise _Refused(KeyFault.PRIVATE)
    numbers = _sound(_number(entry, "n"), _number(entry, "e"))
    if "x5c" in entry and _certified(entry["x5c"]) != numbers:
        raise _Refused(KeyFault.CERTIFICATE)
    return key_id, numbers


def _told_id(entry: object) -> str:
    key_id = entry.get("kid") if isinstance(entry, dict) else None
    return key_id if isinstance(key_id, str) else ""


def _number(entry: Mapping[str, Any], member: str) -> int:
    """Read a number as RFC 7518 section 2 encodes it."""
    try:
        return int.from_bytes(decode(entry[member]), "big")
    except (KeyError, TypeError, ValueError):
        raise _Refused(KeyFault.ENCODING) from None


def _sound(modulus: int, exponent: int) -> RSAPublicNumbers:
    """Return a public key once it has passed every check that needs no factors (SP 800-89 section 5.3.3)."""
    if not MINIMUM_RSA_BITS <= modulus.bit_length() <= MAXIMUM_RSA_BITS:
        raise _Refused(KeyFault.SIZE)
    if exponent < 3 or exponent >= MAXIMUM_EXPONENT or exponent % 2 == 0:  # noqa: PLR2004 - RFC 8017
        raise _Refused(KeyFault.EXPONENT)
    if gcd(modulus, _SMALL_PRIMES) != 1:
        raise _Refused(KeyFault.MODULUS)
    if all(modulus % prime in powers for prime, powers in _ROCA_REMAINDERS.items()):
        raise _Refused(KeyFault.ROCA)
    return RSAPublicNumbers(exponent, modulus)


def _certified(chain: object) -> RSAPublicNumbers | None:
    """Return the key of the first certificate of `x5c` (RFC 7517 section 4.7), if it has one."""
    if not isinstance(chain, list) or not chain or not isinstance(chain[0], str):
        return None
    try:
        der = base64.b64decode(chain[0], validate=True)
        key = load_der_x509_certificate(der).public_key()
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        return None
    return key.public_numbers() if isinstance(key, RSAPublicKey) else None


def _primes(below: int) -> list[int]:
    return [
        number
        for number in range(2, below)
        if all(number % divisor for divisor in range(2, number))
    ]


def _powers(base: int, modulus: int) -> frozenset[int]:
    power, powers = 1, set()
    while power not in powers:
        powers.add(power)
        power = power * base % modulus
    return frozenset(powers)


_SMALL_PRIMES: Final = prod(_primes(752))
# Infineon's library made primes that are powers of 65537 modulo the product of the first primes (Nemec
# et al., "The Return of Coppersmith's Attack", 2017). So the modulus is one, too, modulo each of them.
# For keys as long as ours the product goes to 701 at least. Of other moduli, one in 2^167 is one as well.
_ROCA_REMAINDERS: Final = {prime: _powers(65537, prime) for prime in _primes(702)[1:]}
