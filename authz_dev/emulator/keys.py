"""The emulator's signing keys: which one signs, which ones are published, and their JWKS form.

One key set serves all tenants, as in production. No tokens are made here: that is `issuer`.
"""

from __future__ import annotations

import base64
import datetime as dt
import threading
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID


def b64url(raw: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class SigningKey:
    """An RSA key with its self-signed certificate; `kid` is the certificate's SHA-1 thumbprint."""

    def __init__(self) -> None:
        self.private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.public_key = self.private_key.public_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "accounts.emulator.example")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1825))
            .sign(self.private_key, hashes.SHA256())
        )
        numbers = self.public_key.public_numbers()
        # SHA-1 is what `x5t` and Entra's key ids are made of; nothing is secured by it.
        self.kid = b64url(certificate.fingerprint(hashes.SHA1()))  # noqa: S303 - as Entra names keys
        self._jwk = {
            "kty": "RSA",
            "use": "sig",
            "kid": self.kid,
            "x5t": self.kid,
            "n": b64url(numbers.n.to_bytes(256, "big")),
            "e": b64url(numbers.e.to_bytes(3, "big")),
            "x5c": [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()],
        }

    def jwk(self, issuer: str) -> dict[str, Any]:
        """The published form (RFC 7517) with Entra's own `issuer` member."""
        return {**self._jwk, "issuer": issuer}


class KeyRing:
    """The current key, the earlier ones still published, and one that never is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._published: tuple[SigningKey, ...] = (SigningKey(),)
        self._old: SigningKey | None = None
        self._foreign: SigningKey | None = None

    @property
    def current(self) -> SigningKey:
        """The key that signs."""
        return self._published[0]

    @property
    def old(self) -> SigningKey | None:
        """The key that signed before the last roll, withdrawn or not; None before the first."""
        return self._old

    @property
    def foreign(self) -> SigningKey:
        """A key that was never published, for forged tokens."""
        with self._lock:
            if self._foreign is None:
                self._foreign = SigningKey()
            return self._foreign

    def roll(self, *, withdraw_old: bool = False) -> None:
        """Sign with a new key from now on; earlier keys stay published unless withdrawn."""
        new = SigningKey()
        with self._lock:
            self._old = self.current
            self._published = (new,) if withdraw_old else (new, *self._published)

    def find(self, kid: str) -> SigningKey | None:
        """The published key of this id."""
        return next((key for key in self._published if key.kid == kid), None)

    def jwks(self, issuer: str) -> dict[str, Any]:
        """The published keys as a JWK Set (RFC 7517, section 5)."""
        return {"keys": [key.jwk(issuer) for key in self._published]}
