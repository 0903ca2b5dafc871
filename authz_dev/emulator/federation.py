"""Foreign issuers whose tokens prove a blueprint: their two documents, read from a folder.

The folder stands for the address at which Entra would fetch them, with the same paths below it. Whether a
token may act as the credential is decided in `client_authentication`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from authz_dev.emulator.entities import FederatedCredential

METADATA: Final = Path(".well-known/openid-configuration")
"""OpenID Connect Discovery, section 4; the API server of Kubernetes publishes it under this path."""

KEYS: Final = Path("openid/v1/jwks")
"""Where the API server of Kubernetes publishes its keys."""

_LONGEST = 600
"""Characters of an issuer or a subject, as Entra counts them."""


class FederationError(ValueError):
    """The documents cannot be those of an issuer that Entra would trust."""


class PublishedKeys(Mapping[str, RSAPublicKey]):
    """An issuer's RSA keys by their id, read from its key set each time: a new one counts at once.

    Args:
        file: A JWK Set (RFC 7517, section 5). While it cannot be read, the issuer has no keys.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def __getitem__(self, kid: str) -> RSAPublicKey:
        return self._read()[kid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> dict[str, RSAPublicKey]:
        try:
            keys = _document(self._file).get("keys")
        except FederationError:
            return {}
        listed = keys if isinstance(keys, list) else []
        found = ((_text(key, "kid"), _rsa_key(key)) for key in listed)
        return {kid: key for kid, key in found if kid and key is not None}


def trust(folder: Path, subject: str) -> FederatedCredential:
    """The credential for one subject of the issuer whose documents are in `folder`.

    Raises FederationError, which names the document or member at fault.
    """
    file = folder / METADATA
    issuer = _text(_document(file), "issuer")
    if not issuer.startswith("https://"):
        raise FederationError(f"{file}: issuer: must be an https address")
    for name, value in (("issuer", issuer), ("subject", subject)):
        if not value or value != value.strip() or len(value) > _LONGEST:
            raise FederationError(
                f"{name}: must have 1 to {_LONGEST} characters, none at its ends blank"
            )
    keys = PublishedKeys(folder / KEYS)
    if not keys:
        raise FederationError(f"{folder / KEYS}: has no RSA key for RS256")
    return FederatedCredential(issuer, subject, keys=keys)


def _document(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise FederationError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise FederationError(f"{file}: is not JSON") from error
    if not isinstance(document, dict):
        raise FederationError(f"{file}: is not a JSON object")
    return document


def _text(document: object, member: str) -> str:
    value = document.get(member) if isinstance(document, dict) else None
    return value if isinstance(value, str) else ""


def _rsa_key(key: object) -> RSAPublicKey | None:
    """The key, if RS256 tokens may be signed with it."""
    if not isinstance(key, dict) or key.get("use", "sig") != "sig":
        return None
    try:
        loaded = jwt.PyJWK(key, "RS256").key if key.get("alg", "RS256") == "RS256" else None
    except jwt.PyJWTError:
        return None
    return loaded if isinstance(loaded, RSAPublicKey) else None
