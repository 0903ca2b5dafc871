"""Verification of Entra access tokens: one commented line per rule, each citing its source.

The token chooses a key, never an algorithm. `verify` is the only function that builds a `Principal`.
The signature is PyJWT's work. Its parser is not used: it looks at each character in Python, which took a
third of a verification's time. Times are checked here because PyJWT reads the clock itself and this package
has none.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, NamedTuple

from jwt.algorithms import RSAAlgorithm

from authz.core.base64url import decode
from authz.core.difference import difference, wanted
from authz.core.errors import InvalidToken, TokenFault
from authz.core.keys import SigningKey
from authz.core.principal import Actor, Principal, Subject, SubjectType
from authz.core.request import BearerToken
from authz.core.secret import Secret

ALGORITHM: Final = "RS256"
AGENT_IDENTITY_FACET: Final = "11"
AGENT_USER_FACET: Final = "13"
LATEST_TIME: Final = 1e12
_VISIBLE: Final = re.compile(r"[!-~]*")
_PARTS: Final = 3
"""Of a JWS in compact form: header, payload, signature (RFC 7515 section 7.1)."""
_RS256: Final = RSAAlgorithm(RSAAlgorithm.SHA256)
_ISSUER: Final = re.compile(
    r"https://[a-z0-9.-]{1,60}(?:/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})?(?:/v2\.0)?/?",
    re.ASCII,
)
_HALF_PAIR: Final = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a route demands of a token before it looks at permissions.

    Attributes:
        audiences: Accepted `aud` values; never empty.
        issuers: Accepted `iss` values, each with the tenant it belongs to (the allow-list).
        leeway: Seconds of clock difference forgiven on `exp` and `nbf`.
        key: Digest of the above, the expectation's part in the key of the verified-token cache.
    """

    audiences: frozenset[str]
    issuers: Mapping[str, str]
    leeway: float = 60.0
    key: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not self.audiences or not self.issuers:
            raise ValueError("an expectation names at least one audience and one issuer")
        parts = [sorted(self.audiences), sorted(self.issuers.items()), self.leeway]
        object.__setattr__(self, "key", sha256(json.dumps(parts).encode()).digest())


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token as it was read: enough to choose a key. Nothing of it is to be believed.

    Attributes:
        issuer: The issuer that it names.
        key_id: The key that it asks for.
        claims: What it says.
        signature: Its signature.
        token: The token itself, of which all but the last part was signed (RFC 7515 section 5.2).
    """

    issuer: str
    key_id: str
    claims: Mapping[str, Any] = field(repr=False)
    signature: bytes = field(repr=False)
    token: Secret


def read(bearer: BearerToken, expectation: Expectation) -> UnverifiedToken:
    """Read a token, and refuse what could never verify.

    Raises:
        InvalidToken: Not a JWS, not RS256, or not from a trusted issuer.
    """
    parsed = _parsed(bearer)
    header, claims = parsed.header, _object(parsed.payload)
    _check_header(header)
    key_id, issuer = header.get("kid"), claims.get("iss")
    if not isinstance(key_id, str) or not key_id:
        raise InvalidToken(TokenFault.UNKNOWN_KEY, "no kid")
    if not isinstance(issuer, str) or issuer not in expectation.issuers:
        raise InvalidToken(TokenFault.ISSUER, _other_issuer(issuer, expectation))
    return UnverifiedToken(issuer, key_id, claims, parsed.signature, bearer.secret)


def _other_issuer(issuer: object, expectation: Expectation) -> str:
    """Return, for a log, the issuer of a token that nobody has verified and those that would have done.

    Anybody writes such a claim, so it is shown in the form of Entra's issuers only, or not at all.
    """
    if isinstance(issuer, str) and _ISSUER.fullmatch(issuer) is not None:
        return difference([issuer], expectation.issuers)
    return f"found one of another form, {wanted(expectation.issuers)}"


def verify(
    token: UnverifiedToken, key: SigningKey, expectation: Expectation, *, now: float
) -> Principal:
    """Verify a token against a route's expectation and say whom it speaks of.

    Args:
        token: The token.
        key: The key that it asks for, from the token's own issuer.
        expectation: The route's demands.
        now: Epoch seconds.

    Raises:
        InvalidToken: Any rule is not met; the fault is for the log, not for the caller.
    """
    _check_signature(key, token.token, token.signature)
    claims = token.claims
    issuer = _text(claims, "iss")
    # The key vouches for one issuer only (Entra page "access-tokens": validate the signing key issuer).
    if issuer != key.issuer or issuer not in expectation.issuers:
        raise InvalidToken(TokenFault.ISSUER, _other_issuer(issuer, expectation))
    # A tenant's issuer speaks for that tenant only (same page: `tid` must match the issuer).
    tenant_id = expectation.issuers[issuer]
    if (tid := _text(claims, "tid")) != tenant_id:
        raise InvalidToken(TokenFault.TENANT, difference([tid], [tenant_id]))
    # RFC 8725 section 3.9. Entra issues exactly one audience, as text.
    if (audience := _text(claims, "aud")) not in expectation.audiences:
        raise InvalidToken(TokenFault.AUDIENCE, difference([audience], expectation.audiences))
    # RFC 7519 sections 4.1.4 and 4.1.5; both are required here.
    expires_at = _time(claims, "exp")
    if now >= expires_at + expectation.leeway:
        raise InvalidToken(TokenFault.EXPIRED)
    if now < _time(claims, "nbf") - expectation.leeway:
        raise InvalidToken(TokenFault.NOT_YET_VALID)
    return Principal(
        # Many users are remembered at a time. What they have in common is held once.
        subject=_subject(claims, tenant_id),
        actor=_shared_actor(_actor(claims)),
        scopes=_shared_names(frozenset(_optional_text(claims, "scp").split()) - {"/"}),
        roles=_shared_names(frozenset(_texts(claims, "roles"))),
        auth_contexts=_shared_names(frozenset(_texts(claims, "acrs"))),
        expires_at=expires_at,
        issuer=key.issuer,
        key_id=key.key_id,
        token_id=_optional_text(claims, "uti") or _optional_text(claims, "jti"),
    )


def signed_payload(bearer: BearerToken, key: SigningKey) -> bytes:
    """Return what a JWS (RFC 7515) says, once it is proved that the key has signed it.

    Raises:
        InvalidToken: It is no JWS, not RS256, or the key has not signed it.
    """
    parsed = _parsed(bearer)
    _check_header(parsed.header)
    _check_signature(key, bearer.secret, parsed.signature)
    return parsed.payload


class _Parsed(NamedTuple):
    header: Mapping[str, Any]
    payload: bytes
    signature: bytes


def _parsed(bearer: BearerToken) -> _Parsed:
    # Canonical base64url alone: with several spellings of one token, a caller would fill further places of
    # each cache and cause further exchanges.
    try:
        parts = [decode(part) for part in bearer.secret.reveal().split(".", _PARTS)]
    except ValueError:
        parts = []
    if len(parts) != _PARTS:
        raise InvalidToken(TokenFault.MALFORMED, "not three parts of canonical base64url")
    header, payload, signature = parts
    return _Parsed(_object(header), payload, signature)


def _check_header(header: Mapping[str, Any]) -> None:
    # RFC 8725 section 3.1: the verifier fixes the algorithm. Headers that bring or name keys
    # (`jwk`, `jku`, `x5u`, `x5c`) are never looked at; `crit` is refused (RFC 7515 section 4.1.11).
    if header.get("alg") != ALGORITHM:
        raise InvalidToken(TokenFault.ALGORITHM)
    # `b64` changes what is signed, and stands in `crit` where it does (RFC 7797 section 6).
    if found := header.keys() & {"crit", "b64"}:
        raise InvalidToken(TokenFault.MALFORMED, min(found))


def _check_signature(key: SigningKey, token: Secret, signature: bytes) -> None:
    signing_input = token.reveal().rpartition(".")[0].encode()
    if not _RS256.verify(signing_input, key.public_key, signature):
        raise InvalidToken(TokenFault.SIGNATURE)


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidToken(TokenFault.MALFORMED) from error
    if not isinstance(found, dict):
        raise InvalidToken(TokenFault.MALFORMED)
    return found


@lru_cache(maxsize=1024)
def _shared_names(names: frozenset[str]) -> frozenset[str]:
    return names


@lru_cache(maxsize=1024)
def _shared_actor(actor: Actor) -> Actor:
    return actor


def _subject(claims: Mapping[str, Any], tenant_id: str) -> Subject:
    _text(claims, "oid")
    object_id = _identifier(claims, "oid")
    facets = _optional_text(claims, "xms_sub_fct").split()
    # `idtyp` is an optional claim on custom APIs. Without it: delegated permissions (`scp`) are in
    # user tokens only (Entra page "access-token-claims-reference"), and an application's `sub` is
    # its `oid` while a user's is pairwise. What is not surely a user's is treated as an application's.
    identity_type = _optional_text(claims, "idtyp")
    if identity_type:
        delegated = identity_type == "user"
    else:
        scopes = _optional_text(claims, "scp").strip("/ ")
        delegated = bool(scopes) and claims.get("sub") != object_id
    if delegated:
        kind = SubjectType.AGENT_USER if AGENT_USER_FACET in facets else SubjectType.USER
    else:
        is_agent = AGENT_IDENTITY_FACET in facets
        kind = SubjectType.AGENT_IDENTITY if is_agent else SubjectType.APPLICATION
    return Subject(tenant_id=tenant_id, object_id=object_id, type=kind)


def _actor(claims: Mapping[str, Any]) -> Actor:
    # v2 tokens name the client `azp`, v1 tokens `appid`. A token with both that differ is no token
    # of Entra's.
    azp, appid = _identifier(claims, "azp"), _identifier(claims, "appid")
    if not (azp or appid) or (azp and appid and azp != appid):
        raise InvalidToken(TokenFault.MISSING_CLAIM, "azp or appid")
    return Actor(
        client_id=azp or appid,
        is_agent=AGENT_IDENTITY_FACET in _optional_text(claims, "xms_act_fct").split(),
        blueprint=_identifier(claims, "xms_par_app_azp") or None,
    )


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidToken(TokenFault.MISSING_CLAIM, name)
    return value


def _identifier(claims: Mapping[str, Any], name: str) -> str:
    """Read an id. Entra's are GUIDs; whatever else comes must at least be safe in a header."""
    value = _optional_text(claims, name)
    if not _VISIBLE.fullmatch(value):
        raise InvalidToken(TokenFault.MALFORMED, name)
    return value


def _optional_text(claims: Mapping[str, Any], name: str) -> str:
    return _unicode(claims.get(name, ""), name)


def _texts(claims: Mapping[str, Any], name: str) -> list[str]:
    value = claims.get(name, [])
    if not isinstance(value, list):
        raise InvalidToken(TokenFault.MALFORMED, name)
    return [_unicode(item, name) for item in value]


def _unicode(value: object, name: str) -> str:
    # JSON can escape half a surrogate pair, which no encoder takes later on.
    if not isinstance(value, str) or _HALF_PAIR.search(value):
        raise InvalidToken(TokenFault.MALFORMED, name)
    return value


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(TokenFault.MISSING_CLAIM, name)
    # JSON as Python reads it admits NaN and Infinity, with which every comparison lies.
    if not 0 <= value < LATEST_TIME:
        raise InvalidToken(TokenFault.MALFORMED, name)
    return float(value)
