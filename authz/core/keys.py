"""Signing keys of an issuer: reading a JWKS (RFC 7517) and deciding when to fetch it again.

Pure: the fetching is `authz.entra.signing_keys`. A key is bound to its issuer: Entra states the issuer
of each key, and a key of another tenant never verifies a token of this one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

MINIMUM_RSA_BITS: Final = 2048
MAXIMUM_KEYS: Final = 1000


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One RSA key that may verify tokens of one issuer."""

    key_id: str
    issuer: str
    public_key: RSAPublicKey


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one issuer as of one fetch.

    Attributes:
        issuer: The `iss` these keys vouch for.
        keys: By `kid`.
        fetched_at: Epoch seconds of the fetch.
    """

    issuer: str
    keys: Mapping[str, SigningKey]
    fetched_at: float


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """When to ask for keys again (Entra page "signing-key-rollover").

    Attributes:
        interval: Seconds between background refreshes.
        retry_interval: Seconds between attempts after a failed one.
        unknown_key_interval: Least seconds between two fetches that an unknown `kid` causes, for
            everyone together, so that forged key ids cannot be turned into load on Entra.
    """

    interval: float = 3600.0
    retry_interval: float = 10.0
    unknown_key_interval: float = 60.0

    def next_fetch(self, *, fetched_at: float | None, attempted_at: float | None) -> float:
        """Return the epoch second at which the background task should fetch next."""
        if attempted_at is None:
            return 0.0
        if fetched_at is None or fetched_at < attempted_at:
            return attempted_at + self.retry_interval
        return fetched_at + self.interval

    def may_fetch_for_unknown_key(self, *, attempted_at: float | None, now: float) -> bool:
        """Whether a token with an unknown `kid` may cause a fetch now."""
        return attempted_at is None or now - attempted_at >= self.unknown_key_interval


class MalformedKeySet(ValueError):
    """A JWKS document that holds no usable key, or is none at all."""


def parse_key_set(
    document: object, *, issuer: str, aliases: Iterable[str], tenant_id: str, now: float
) -> KeySet:
    """Read a JWKS document for one issuer.

    Keys that are not RSA signing keys of at least 2048 bits, and keys that state the issuer of
    somebody else, are left out.

    Args:
        document: The parsed JSON.
        issuer: The `iss` of the tokens these keys will verify.
        aliases: The tenant's issuers of either token version; Entra states one of them per key.
        tenant_id: Replaces `{tenantid}` in a key's issuer template.
        now: Epoch seconds of the fetch.

    Raises:
        MalformedKeySet: The document is not a JWKS, or no usable key is left.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise MalformedKeySet("not a JSON Web Key Set: no array 'keys'")
    own = {issuer, *aliases}
    keys: dict[str, SigningKey] = {}
    for entry in entries[:MAXIMUM_KEYS]:
        key = _parse_key(entry, issuer=issuer)
        if key is not None and _issuer_of(entry, tenant_id, default=issuer) in own:
            keys[key.key_id] = key
    if not keys:
        raise MalformedKeySet(f"no usable signing key of {issuer}")
    return KeySet(issuer=issuer, keys=keys, fetched_at=now)


def _issuer_of(entry: Mapping[str, Any], tenant_id: str, *, default: str) -> str:
    stated = entry.get("issuer", default)
    return stated.replace("{tenantid}", tenant_id) if isinstance(stated, str) else ""


def _parse_key(entry: object, *, issuer: str) -> SigningKey | None:
    if not isinstance(entry, dict) or entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig":
        return None
    key_id = entry.get("kid")
    if not isinstance(key_id, str) or not key_id or entry.get("alg", "RS256") != "RS256":
        return None
    # A published private key proves nothing, and rebuilding its primes would take a tenth of a second.
    if "d" in entry:
        return None
    try:
        public_key = PyJWK(entry, algorithm="RS256").key
    except (PyJWTError, ValueError, TypeError):
        return None
    if not isinstance(public_key, RSAPublicKey) or public_key.key_size < MINIMUM_RSA_BITS:
        return None
    return SigningKey(key_id=key_id, issuer=issuer, public_key=public_key)
