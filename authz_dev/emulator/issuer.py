"""The security token service's names and seal: issuers, endpoints, signing and verifying tokens.

What goes into a token is in `claims`; which keys there are is in `keys`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from jwt.types import Options

from authz_dev.emulator.keys import KeyRing, SigningKey, b64url

V1_ISSUER = "https://sts.windows.net/{tenantid}/"
"""The issuer of v1 tokens, the same as in production whatever the emulator's own address is."""

SIGNATURE_ONLY: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""Options for `jwt.decode`: the emulator judges the claims itself, by its own clock and errors."""

CLOCK_SKEW = 300
"""Seconds by which `nbf` may lie ahead; `exp` is taken at its word."""


class MalformedToken(Exception):
    """The text is not a JWT."""


class UnknownKey(Exception):
    """No published key has the token's `kid`."""


class BadSignature(Exception):
    """The signature or the algorithm is wrong."""


def peek(token: str) -> dict[str, Any]:
    """The unverified claims of a JWT; empty when it is none."""
    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return {}
    return claims


def in_time(claims: Mapping[str, Any], now: float) -> bool:
    """Whether `exp` (required) and `nbf` allow the token now; fractions of a second are fine."""
    expires, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(expires, int | float) or not isinstance(begins, int | float):
        return False
    return expires > now and begins <= now + CLOCK_SKEW


def serialise(
    header: Mapping[str, Any], claims: Mapping[str, Any], sign: Callable[[bytes], bytes]
) -> str:
    """A JWS in compact form (RFC 7515, section 7.1) of any header and claims, forged ones too."""
    signing_input = ".".join(
        b64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)
    )
    return f"{signing_input}.{b64url(sign(signing_input.encode()))}"


def rs256(key: SigningKey) -> Callable[[bytes], bytes]:
    """The RS256 signature function of a key (RFC 7518, section 3.3)."""

    def sign(message: bytes) -> bytes:
        return key.private_key.sign(message, padding.PKCS1v15(), hashes.SHA256())

    return sign


class Issuer:
    """Endpoint and issuer names for one authority, and tokens signed with its current key."""

    def __init__(self, authority: str, aliases: tuple[str, ...], keys: KeyRing) -> None:
        self.authority = authority
        self.aliases = aliases
        self.keys = keys

    def name(self, tenant_id: str, version: int) -> str:
        """The `iss` of tokens of that version; `tenant_id` may be the `{tenantid}` template."""
        if version == 1:
            return V1_ISSUER.format(tenantid=tenant_id)
        return f"{self.authority}/{tenant_id}/v2.0"

    def names(self, tenant_id: str) -> tuple[str, str]:
        """Both issuers of a tenant."""
        return self.name(tenant_id, 1), self.name(tenant_id, 2)

    def assertion_audiences(self, tenant_id: str, tenant_name: str) -> frozenset[str]:
        """What a client assertion for this tenant may name as `aud`."""
        return frozenset(
            f"{authority}/{tenant}{path}"
            for authority in (self.authority, *self.aliases)
            for tenant in (tenant_id, tenant_name)
            for path in ("/oauth2/v2.0/token", "/oauth2/token", "/v2.0")
        )

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A token with these claims; v1 tokens carry `x5t` in the header as well."""
        key = self.keys.current
        return serialise(self.header(key, claims), claims, rs256(key))

    def header(self, key: SigningKey, claims: Mapping[str, Any]) -> dict[str, Any]:
        """The JOSE header Entra gives such a token."""
        header = {"typ": "JWT", "alg": "RS256", "kid": key.kid}
        if claims.get("ver") == "1.0":
            header["x5t"] = key.kid
        return header

    def verify(self, token: str) -> Mapping[str, Any]:
        """The claims of a token this issuer signed with a key it still publishes.

        Raises MalformedToken, UnknownKey or BadSignature. Audience, issuer and times are the
        caller's to judge.
        """
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.InvalidTokenError as error:
            raise MalformedToken from error
        key = self.keys.find(kid) if isinstance(kid, str) else None
        if key is None:
            raise UnknownKey
        try:
            claims: dict[str, Any] = jwt.decode(
                token, key.public_key, algorithms=["RS256"], options=SIGNATURE_ONLY
            )
        except jwt.InvalidTokenError as error:
            raise BadSignature from error
        return claims
