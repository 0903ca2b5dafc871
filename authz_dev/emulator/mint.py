"""Tokens made to order: what a user-facing client would have got, and forgeries for attack tests.

No grant is checked here. This is the emulator's stand-in for an interactive sign-in.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz_dev.emulator import claims
from authz_dev.emulator.directory import Directory
from authz_dev.emulator.entities import AgentIdentity, Application, Client, Tenant, User
from authz_dev.emulator.issuer import Issuer, serialise
from authz_dev.emulator.keys import SigningKey

FIRST = ""
"""Stands for the first one of its kind in the tenant."""

_RSA_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "RS256": hashes.SHA256(),
    "RS384": hashes.SHA384(),
    "RS512": hashes.SHA512(),
    "PS256": hashes.SHA256(),
    "PS384": hashes.SHA384(),
    "PS512": hashes.SHA512(),
}
_HMAC_HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


class MintError(ValueError):
    """An order that cannot be filled; `field` names what is wrong with it."""

    def __init__(self, field: str, detail: str) -> None:
        self.field = field
        self.detail = detail
        super().__init__(f"{field}: {detail}")


class Mint:
    """Makes tokens for anyone, on anyone's behalf."""

    def __init__(self, directory: Directory, issuer: Issuer, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._issuer = issuer
        self._clock = clock

    def token(
        self,
        *,
        tenant_id: str = FIRST,
        user: str | None = FIRST,
        audience: str = FIRST,
        scopes: Sequence[str] | None = None,
        client_id: str = FIRST,
        overrides: Mapping[str, Any] | None = None,
        version: int | None = None,
        lifetime: float | None = None,
        header: Mapping[str, Any] | None = None,
        key: str = "current",
        alg: str = "RS256",
    ) -> str:
        """A signed token; see `Emulator.mint_user_token` for the meaning of the arguments.

        Raises MintError, which names the argument.
        """
        if version not in (None, 1, 2):
            raise MintError("version", "must be 1 or 2")
        tenant = self._tenant(tenant_id)
        resource = self._resource(tenant, audience)
        client = self._client(tenant, client_id)
        if user is None:
            body = self._app_only(client, resource, audience, version)
        else:
            permissions = _default_scopes(resource) if scopes is None else scopes
            person = self._user(tenant, user)
            body = self._delegated(client, resource, audience, person, permissions, version)
        if lifetime is not None:
            body["exp"] = int(self._clock() + lifetime)
        body = _merged(body, overrides or {})
        signing_key = self._key(key)
        full_header = {**self._issuer.header(signing_key, body), "alg": alg}
        return serialise(_merged(full_header, header or {}), body, _signer(alg, signing_key))

    def _app_only(
        self, client: Client, resource: Application, audience: str, version: int | None
    ) -> dict[str, Any]:
        return claims.app_only(
            self._issuer,
            self._clock(),
            client,
            resource,
            audience=audience or resource.client_id,
            acr="2" if isinstance(client, AgentIdentity) else "1",
            roles=self._directory.application_roles(client, resource),
            version=version,
        )

    def _delegated(
        self,
        client: Client,
        resource: Application,
        audience: str,
        user: User,
        scopes: Sequence[str],
        version: int | None,
    ) -> dict[str, Any]:
        now = self._clock()
        return claims.delegated(
            self._issuer,
            now,
            now + claims.user_lifetime(),
            client,
            resource,
            user,
            audience=audience or resource.client_id,
            acr="2" if isinstance(client, AgentIdentity) else "1",
            scopes=scopes,
            sign_in=claims.SignIn(),
            version=version,
        )

    def _tenant(self, name: str) -> Tenant:
        found = self._directory.tenant(name) if name else self._directory.tenants()[0]
        if found is None:
            raise MintError("tenant_id", "names no tenant")
        return found

    def _resource(self, tenant: Tenant, name: str) -> Application:
        if name:
            found = self._directory.resource(tenant.tenant_id, name)
            # A token for a resource that does not exist is a token with a wrong audience.
            return found or Application(tenant.tenant_id, name, name, name)
        applications = self._directory.applications(tenant.tenant_id)
        blueprint = next((a for a in applications if a.is_blueprint), None)
        if blueprint is None:
            raise MintError("audience", "is needed: the tenant has no blueprint")
        return blueprint

    def _client(self, tenant: Tenant, client_id: str) -> Client:
        if client_id:
            found = self._directory.client(tenant.tenant_id, client_id)
            return found or Application(tenant.tenant_id, client_id, client_id, client_id)
        applications = self._directory.applications(tenant.tenant_id)
        portal = next((a for a in applications if a.name == "portal"), None)
        if portal is None:
            raise MintError("client_id", "is needed: the tenant has no application 'portal'")
        return portal

    def _user(self, tenant: Tenant, name: str) -> User:
        if name:
            found = self._directory.user(tenant.tenant_id, name)
        else:
            found = next(iter(self._directory.users(tenant.tenant_id)), None)
        if found is None:
            raise MintError("user", "names no user of the tenant")
        return found

    def _key(self, name: str) -> SigningKey:
        keys = self._issuer.keys
        if name == "current":
            return keys.current
        if name == "foreign":
            return keys.foreign
        if name == "old" and keys.old is not None:
            return keys.old
        raise MintError("key", "must be current, foreign, or (after a roll) old")


def _default_scopes(resource: Application) -> Sequence[str]:
    if "access_agent" in resource.scopes or not resource.scopes:
        return ["access_agent"]
    return resource.scopes


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v for name, v in {**base, **overrides}.items() if v is not None}


def _signer(alg: str, key: SigningKey) -> Callable[[bytes], bytes]:
    """The signature function, for algorithms a verifier must refuse as well."""
    if alg == "none":
        return lambda _: b""
    if alg in _HMAC_HASHES:
        # The classic confusion: the public key's PEM text as the shared secret.
        secret = key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return lambda message: hmac.digest(secret, message, _HMAC_HASHES[alg])
    algorithm = _RSA_HASHES.get(alg)
    if algorithm is None:
        raise MintError("alg", f"must be none, {', '.join((*_HMAC_HASHES, *_RSA_HASHES))}")
    if alg.startswith("PS"):
        pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
        return lambda message: key.private_key.sign(message, pss, algorithm)
    return lambda message: key.private_key.sign(message, padding.PKCS1v15(), algorithm)
