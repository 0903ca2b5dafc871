"""How a client proves itself: secret, certificate assertion, federated token, or T1 for an agent.

Each way either returns the `azpacr` it leads to (0 public, 1 secret, 2 assertion) or raises TokenError.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from authz_dev.emulator.claims import exchange_subject
from authz_dev.emulator.entities import (
    TOKEN_EXCHANGE_APP_ID,
    TOKEN_EXCHANGE_URI,
    AgentIdentity,
    Application,
    Client,
    FederatedCredential,
    Secret,
    Tenant,
)
from authz_dev.emulator.errors import TokenError
from authz_dev.emulator.issuer import (
    SIGNATURE_ONLY,
    BadSignature,
    Issuer,
    MalformedToken,
    UnknownKey,
    in_time,
)
from authz_dev.emulator.keys import b64url
from authz_dev.emulator.request import JWT_CLIENT_ASSERTION, TokenRequest


def authenticate(
    client: Client, tenant: Tenant, request: TokenRequest, issuer: Issuer, now: float
) -> str:
    """Authenticate `client` and return its `azpacr`; raises TokenError."""
    secret, assertion = request.get("client_secret"), request.get("client_assertion")
    if secret and assertion:
        raise TokenError(9002313, "Both client_secret and client_assertion are given.")
    if isinstance(client, Application) and client.is_public:
        if secret or assertion:
            raise TokenError(700025)
        return "0"
    if assertion:
        if request.required("client_assertion_type") != JWT_CLIENT_ASSERTION:
            raise TokenError(90100, "The parameter is 'client_assertion_type'.")
        if isinstance(client, AgentIdentity):
            _exchange_token(assertion, client, issuer, now)
        else:
            _assertion(assertion, client, tenant, issuer, now)
        return "2"
    if not secret:
        raise TokenError(7000218)
    # An agent identity can have no secret, so every one it presents is wrong.
    _secret(secret, client.secrets if isinstance(client, Application) else (), now)
    return "1"


def _secret(presented: str, secrets: tuple[Secret, ...], now: float) -> None:
    for secret in secrets:
        if hmac.compare_digest(presented.encode(), secret.value.encode()):
            if secret.expires_at is not None and secret.expires_at <= now:
                raise TokenError(7000222)
            return
    raise TokenError(7000215)


def _exchange_token(assertion: str, agent: AgentIdentity, issuer: Issuer, now: float) -> None:
    """Check T1: of this tenant, for token exchange, of the agent's blueprint, naming the agent."""
    claims = _own_token(assertion, issuer)
    if claims.get("iss") != issuer.name(agent.tenant_id, 2):
        raise TokenError(700211)
    if claims.get("aud") != TOKEN_EXCHANGE_APP_ID:
        raise TokenError(700214)
    expected = exchange_subject(agent.tenant_id, agent.blueprint_id, agent.client_id)
    if claims.get("azp") != agent.blueprint_id or claims.get("sub") != expected:
        raise TokenError(700213)
    if not in_time(claims, now):
        raise TokenError(700024)


def _assertion(
    assertion: str, client: Application, tenant: Tenant, issuer: Issuer, now: float
) -> None:
    try:
        parsed = jwt.decode_complete(assertion, options={"verify_signature": False})
    except jwt.InvalidTokenError as error:
        raise TokenError(50027, error="invalid_client", status=401) from error
    header, claims = parsed["header"], parsed["payload"]
    if {"x5t", "x5t#S256", "x5c"} & header.keys() and claims.get("iss") not in issuer.names(
        tenant.tenant_id
    ):
        _certificate_assertion(assertion, header, client, tenant, issuer, now)
    else:
        _federated_token(assertion, header, claims, client, tenant, issuer, now)


def _certificate_assertion(
    assertion: str,
    header: Mapping[str, Any],
    client: Application,
    tenant: Tenant,
    issuer: Issuer,
    now: float,
) -> None:
    certificate = _certificate(header, client)
    public_key = certificate.public_key()
    try:
        claims = jwt.decode(
            assertion,
            public_key,  # type: ignore[arg-type]  # a registered certificate holds an RSA key
            algorithms=["PS256", "RS256"],
            options=SIGNATURE_ONLY,
        )
    except jwt.InvalidTokenError as error:
        raise TokenError(700027) from error
    if certificate.not_valid_after_utc.timestamp() <= now:
        raise TokenError(1000502)
    if claims.get("iss") != claims.get("sub"):
        raise TokenError(50048)
    if claims.get("iss") != client.client_id:
        raise TokenError(700021)
    if claims.get("aud") not in issuer.assertion_audiences(tenant.tenant_id, tenant.domain):
        raise TokenError(50012, "Its audience is not this token endpoint.")
    if not in_time(claims, now):
        raise TokenError(700024)


def _certificate(header: Mapping[str, Any], client: Application) -> x509.Certificate:
    # MSAL Python pads its thumbprints with '=', others do not.
    sha256, sha1 = (str(header.get(name, "")).rstrip("=") for name in ("x5t#S256", "x5t"))
    for certificate in client.certificates:
        if sha256:
            matches = b64url(certificate.fingerprint(hashes.SHA256())) == sha256
        else:
            matches = b64url(certificate.fingerprint(hashes.SHA1())) == sha1  # noqa: S303 - `x5t`
        if matches:
            return certificate
    raise TokenError(700027, "No registered certificate has this thumbprint.")


def _federated_token(
    assertion: str,
    header: Mapping[str, Any],
    claims: Mapping[str, Any],
    client: Application,
    tenant: Tenant,
    issuer: Issuer,
    now: float,
) -> None:
    candidates = client.federated_credentials
    for code, member in ((700211, "issuer"), (700213, "subject")):
        wanted = claims.get("iss" if member == "issuer" else "sub")
        candidates = tuple(c for c in candidates if getattr(c, member) == wanted)
        if not candidates:
            raise TokenError(code)
    [credential] = candidates
    if credential.issuer in issuer.names(tenant.tenant_id):
        _entra_token(_own_token(assertion, issuer), credential)
    else:
        _foreign_token(assertion, header, credential)
        if claims.get("aud") not in (credential.audience, [credential.audience]):
            raise TokenError(700214)
    if not in_time(claims, now):
        raise TokenError(700024)


def _foreign_token(
    assertion: str, header: Mapping[str, Any], credential: FederatedCredential
) -> None:
    key: RSAPublicKey | None = credential.keys.get(str(header.get("kid")))
    if key is None:
        raise TokenError(7000272)
    try:
        jwt.decode(assertion, key, algorithms=["RS256"], options=SIGNATURE_ONLY)
    except jwt.InvalidTokenError as error:
        raise TokenError(700027) from error


def _entra_token(claims: Mapping[str, Any], credential: FederatedCredential) -> None:
    """A managed identity's token: app-only, for token exchange, not itself got by federation."""
    if claims.get("idtyp") != "app":
        raise TokenError(700229)
    if "xms_ficinfo" in claims:
        raise TokenError(700231)
    audience = claims.get("aud")
    if audience == TOKEN_EXCHANGE_APP_ID:
        audience = TOKEN_EXCHANGE_URI
    if audience != credential.audience:
        raise TokenError(700214)


def _own_token(assertion: str, issuer: Issuer) -> Mapping[str, Any]:
    try:
        return issuer.verify(assertion)
    except MalformedToken as error:
        raise TokenError(50027, error="invalid_client", status=401) from error
    except UnknownKey as error:
        raise TokenError(7000274) from error
    except BadSignature as error:
        raise TokenError(700027) from error
