"""JSON Web Signatures made by hand (RFC 7515), so that a test can sign what no library would.

Nothing here verifies, and nothing here uses the library that the code under test verifies with.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

Signer = Callable[[bytes], bytes]
"""From a signing input to the bytes of its signature."""


@cache
def private_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the RSA key of this name: made once, then the same for the whole test run."""
    assert name
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def public_pem(key: rsa.RSAPrivateKey) -> bytes:
    """Return the public half as anyone can download it."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def b64url(data: bytes) -> str:
    """Encode as RFC 7515 section 2 says: URL-safe, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def compact(
    header: Mapping[str, Any] | bytes, payload: Mapping[str, Any] | bytes, sign: Signer
) -> str:
    """Serialize and sign (RFC 7515 section 7.1); bytes go in as they are, valid JSON or not."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    ]
    signing_input = ".".join(b64url(part) for part in parts)
    return f"{signing_input}.{b64url(sign(signing_input.encode('ascii')))}"


def rs256(key: rsa.RSAPrivateKey) -> Signer:
    """Sign with RSASSA-PKCS1-v1_5 over SHA-256: what Entra does."""
    return lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def rs512(key: rsa.RSAPrivateKey) -> Signer:
    """Sign with RSASSA-PKCS1-v1_5 over SHA-512."""
    return lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA512())


def ps256(key: rsa.RSAPrivateKey) -> Signer:
    """Sign with RSASSA-PSS over SHA-256."""
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
    return lambda data: key.sign(data, scheme, hashes.SHA256())


def hs256(secret: bytes) -> Signer:
    """Sign with HMAC over SHA-256."""
    return lambda data: hmac.new(secret, data, hashlib.sha256).digest()


def unsigned(_: bytes) -> bytes:
    """Sign with nothing at all."""
    return b""
