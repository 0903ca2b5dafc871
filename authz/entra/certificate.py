"""A certificate as a credential: how PEM and PFX are read, and the assertion that it signs.

How versions of a credential follow one another is in `authz.entra.credentials`; where content comes from, in
`authz.entra.sources` and `authz.entra.key_vault`.
"""

import base64
import hashlib
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import pkcs12

from authz.entra.credentials import Credential, Proof
from authz.entra.sources import CredentialFault

ASSERTION_LIFETIME: Final = 300
"""Seconds; Entra accepts five to ten minutes."""


class Certificate(Credential):
    """A certificate with its private key: PEM, or PFX (PKCS#12) with an optional password.

    Args:
        read: Reads the file.
        described_as: For the log.
        password: Reads the password of the key; None if there is none.
        send_x5c: Send the chain (`x5c`), for subject-name and issuer authentication.
    """

    kind = "certificate"

    def __init__(
        self,
        read: Callable[[], bytes],
        described_as: str,
        *,
        password: Callable[[], str] | None = None,
        send_x5c: bool = False,
    ) -> None:
        super().__init__(described_as)
        self._content = read
        self._password = password
        self._send_x5c = send_x5c

    def _read(self) -> Proof:
        content = self._content()
        password = self._password().strip().encode() if self._password else None
        version = hashlib.sha256(content + b"\0" + (password or b"")).digest()
        if self._last is not None and self._last.version == version:
            return self._last
        try:
            key, chain = (
                _parse_pem(content, password) if _is_pem(content) else _parse_pfx(content, password)
            )
        except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm) as error:
            raise CredentialFault(
                f"{self.described_as} is neither PEM nor PFX with a private key and a certificate, "
                "or its password is wrong"
            ) from error
        headers: dict[str, Any] = {"x5t#S256": _base64url(chain[0].fingerprint(hashes.SHA256()))}
        if self._send_x5c:
            headers["x5c"] = [
                base64.b64encode(link.public_bytes(serialization.Encoding.DER)).decode()
                for link in chain
            ]
        # Signed here, not by MSAL: MSAL knows the SHA-256 thumbprint only together with `x5c`, and
        # repeats one assertion for nine minutes, which a strict server takes for a replay.
        return Proof(
            version=version,
            client_credential={"client_assertion": lambda context: _sign(key, headers, context)},
            expires_at=chain[0].not_valid_after_utc.timestamp(),
        )


def _sign(key: RSAPrivateKey, headers: Mapping[str, Any], context: Mapping[str, str]) -> str:
    """Make one client assertion (RFC 7523 section 2.2; Entra page "certificate-credentials")."""
    now = int(time.time())
    claims = {
        "aud": context["token_endpoint"],
        "iss": context["client_id"],
        "sub": context["client_id"],
        "jti": str(uuid.uuid4()),
        "iat": now,
        "nbf": now,
        "exp": now + ASSERTION_LIFETIME,
    }
    return jwt.encode(claims, key, algorithm="PS256", headers=dict(headers))


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _is_pem(content: bytes) -> bool:
    return b"-----BEGIN " in content


def _parse_pem(
    content: bytes, password: bytes | None
) -> tuple[RSAPrivateKey, list[x509.Certificate]]:
    key = serialization.load_pem_private_key(content, password)
    return _fitting(key, x509.load_pem_x509_certificates(content))


def _parse_pfx(
    content: bytes, password: bytes | None
) -> tuple[RSAPrivateKey, list[x509.Certificate]]:
    key, certificate, others = pkcs12.load_key_and_certificates(content, password)
    return _fitting(key, [*([certificate] if certificate else []), *others])


def _fitting(
    key: object, chain: list[x509.Certificate]
) -> tuple[RSAPrivateKey, list[x509.Certificate]]:
    """Put the key's own certificate first; a file in the middle of a rotation has none that fits."""
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("Entra takes RSA keys only")  # noqa: TRY004 - the content is wrong
    own = [certificate for certificate in chain if certificate.public_key() == key.public_key()]
    if not own:
        raise ValueError("no certificate fits the private key")
    return key, own[:1] + [certificate for certificate in chain if certificate is not own[0]]
