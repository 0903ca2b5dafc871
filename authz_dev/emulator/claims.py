"""The claims of every kind of token Entra issues to agents, blueprints, apps and users.

Shapes follow decoded production tokens, with their noise: facets in random order among even
numbers that mean nothing. Whether a token may be issued at all is decided in `grants`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from authz_dev.emulator.entities import (
    AGENT_CLAIMS,
    EXTENDED_CLAIMS,
    TOKEN_EXCHANGE_APP_ID,
    AgentIdentity,
    Application,
    Client,
    User,
)
from authz_dev.emulator.issuer import Issuer
from authz_dev.emulator.keys import b64url

AGENT_FACET = 11
AGENT_USER_FACET = 13
_PRINCIPAL_FACETS = (3, 9)
_IDREL_MEMBER = 1
_IDREL_SERVICE_PRINCIPAL = 7
_DIRECTORY_ROLES = ["0997a1d0-0d1d-4acb-b408-d5ca73121e90"]

APP_LIFETIME = 3600
"""Seconds an app-only token lives from its issue."""

BACKDATE = 300
"""Seconds by which `iat` and `nbf` lie before the issue."""

_NOISE = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class SignIn:
    """How a user proved himself: what a delegated token inherits from the token it came from."""

    amr: tuple[str, ...] = ("pwd",)
    acrs: tuple[str, ...] = ()
    acr: str = "1"
    sid: str = ""


def facets(*meaningful: int) -> str:
    """Space-separated facets: the given ones and even noise, in no order."""
    noise = _NOISE.sample(range(2, 40, 2), _NOISE.randint(1, 3))
    values = [*meaningful, *noise]
    _NOISE.shuffle(values)
    return " ".join(map(str, values))


def user_lifetime() -> int:
    """Seconds a user token lives: random between 60 and 90 minutes."""
    return _NOISE.randint(3600, 5399)


def exchange_subject(tenant_id: str, blueprint_id: str, fmi_path: str) -> str:
    """The `sub` of T1: tenant and blueprint as base64url of .NET-ordered GUID bytes."""
    tenant = b64url(uuid.UUID(tenant_id).bytes_le)
    blueprint = b64url(uuid.UUID(blueprint_id).bytes_le)
    return f"/eid1/c/pub/t/{tenant}/a/{blueprint}/{fmi_path}"


def pairwise_subject(user: User, client_id: str) -> str:
    """A `sub` that is stable for one user and one application only."""
    return b64url(hashlib.sha256(f"{user.object_id}{client_id}".encode()).digest())


def exchange_token(
    issuer: Issuer, now: float, blueprint: Application, acr: str, fmi_path: str
) -> dict[str, Any]:
    """T1: the blueprint's token-exchange token that names one of its agents."""
    return {
        **_envelope(issuer, now, now + APP_LIFETIME, blueprint.tenant_id, version=2),
        "aud": TOKEN_EXCHANGE_APP_ID,
        "azp": blueprint.client_id,
        "azpacr": acr,
        "idtyp": "app",
        "oid": blueprint.principal_id,
        "sub": exchange_subject(blueprint.tenant_id, blueprint.client_id, fmi_path),
        "xms_act_fct": facets(*_PRINCIPAL_FACETS),
        "xms_sub_fct": facets(*_PRINCIPAL_FACETS),
        "xms_idrel": facets(_IDREL_SERVICE_PRINCIPAL),
        "xms_ficinfo": "CAAQABgAIAAoAjAA",
    }


def app_only(
    issuer: Issuer,
    now: float,
    client: Client,
    resource: Application,
    *,
    audience: str,
    acr: str,
    roles: Iterable[str],
    version: int | None = None,
) -> dict[str, Any]:
    """A token for the client itself: blueprint, autonomous agent, T2 or ordinary app."""
    version = version or resource.token_version
    own = _actor_facets(client)
    claims = {
        **_envelope(issuer, now, now + APP_LIFETIME, client.tenant_id, version),
        **_actor(client, acr, version),
        "aud": _audience(resource, audience, version),
        "oid": client.principal_id,
        "sub": client.principal_id,
        "idtyp": "app",
        "wids": list(_DIRECTORY_ROLES),
        "xms_act_fct": facets(*own),
        "xms_sub_fct": facets(*own),
        "xms_idrel": facets(_IDREL_SERVICE_PRINCIPAL),
        **_tenant_noise(now),
    }
    if version == 1:
        claims["idp"] = claims["iss"]
    granted = sorted(roles)
    if granted:
        claims["roles"] = granted
    if resource.client_id == TOKEN_EXCHANGE_APP_ID and isinstance(client, AgentIdentity):
        claims["xms_ficinfo"] = "CAAQABgAIAAoAzAAOAE"
    return _as_configured(claims, resource)


def delegated(
    issuer: Issuer,
    now: float,
    expires_at: float,
    client: Client,
    resource: Application,
    user: User,
    *,
    audience: str,
    acr: str,
    scopes: Iterable[str],
    sign_in: SignIn,
    version: int | None = None,
) -> dict[str, Any]:
    """A token for `client` acting for `user`: Tc, agent OBO, agent user, plain OBO."""
    version = version or resource.token_version
    subject = pairwise_subject(user, resource.client_id)
    claims = {
        **_envelope(issuer, now, expires_at, client.tenant_id, version),
        **_actor(client, acr, version),
        "aud": _audience(resource, audience, version),
        "oid": user.object_id,
        "sub": subject,
        "sid": sign_in.sid or str(uuid.uuid4()),
        "name": user.name,
        "scp": " ".join(sorted(scopes)),
        "idtyp": "user",
        "xms_act_fct": facets(*_actor_facets(client)),
        "xms_sub_fct": facets(3, *([AGENT_USER_FACET] if user.agent_id else [])),
        "xms_idrel": facets(_IDREL_MEMBER),
        "xms_st": {"sub": pairwise_subject(user, client.client_id)},
        **_tenant_noise(now),
    }
    if sign_in.acrs:
        claims["acrs"] = list(sign_in.acrs)
    if version == 1:
        claims |= {
            "acr": sign_in.acr,
            "ipaddr": "192.0.2.10",
            "unique_name": user.username,
            "upn": user.username,
        }
        if sign_in.amr:
            claims["amr"] = list(sign_in.amr)
    else:
        claims["preferred_username"] = user.username
    return _as_configured(claims, resource)


def id_token(issuer: Issuer, now: float, client: Client, user: User) -> dict[str, Any]:
    """The ID token (OpenID Connect Core, section 2) that comes along when `openid` was asked."""
    claims = _envelope(issuer, now, now + APP_LIFETIME, client.tenant_id, version=2)
    claims.pop("xms_ftd")
    return {
        **claims,
        "aud": client.client_id,
        "name": user.name,
        "oid": user.object_id,
        "preferred_username": user.username,
        "sub": pairwise_subject(user, client.client_id),
    }


def _envelope(
    issuer: Issuer, now: float, expires_at: float, tenant_id: str, version: int
) -> dict[str, Any]:
    issued_at = int(now) - BACKDATE
    return {
        "iss": issuer.name(tenant_id, version),
        "iat": issued_at,
        "nbf": issued_at,
        "exp": int(expires_at),
        "tid": tenant_id,
        "ver": f"{version}.0",
        "uti": b64url(os.urandom(16)),
        "rh": f"1.A{b64url(os.urandom(20))}.",
        "aio": base64.b64encode(os.urandom(30)).decode(),
        "xms_ftd": b64url(os.urandom(32)),
    }


def _actor(client: Client, acr: str, version: int) -> dict[str, Any]:
    claims: dict[str, Any] = {"app_displayname": client.name}
    if version == 1:
        claims |= {"appid": client.client_id, "appidacr": acr}
    else:
        claims |= {"azp": client.client_id, "azpacr": acr}
    if isinstance(client, AgentIdentity):
        claims["xms_par_app_azp"] = client.blueprint_id
    return claims


def _actor_facets(client: Client) -> tuple[int, ...]:
    agent = isinstance(client, AgentIdentity)
    return (*_PRINCIPAL_FACETS, AGENT_FACET) if agent else _PRINCIPAL_FACETS


def _tenant_noise(now: float) -> dict[str, Any]:
    return {
        "xms_tnt_fct": facets(3),
        "xms_tcdt": int(now) - 86_400 * 365,
        "xms_rd": b64url(os.urandom(12)),
        "xms_acd": int(now) - 86_400 * 30,
    }


def _audience(resource: Application, requested: str, version: int) -> str:
    # v2 tokens name the client id however the scope was written; v1 tokens repeat the request.
    return requested if version == 1 else resource.client_id


def _as_configured(claims: Mapping[str, Any], resource: Application) -> dict[str, Any]:
    withheld = (AGENT_CLAIMS | EXTENDED_CLAIMS) - resource.optional_claims
    return {name: value for name, value in claims.items() if name not in withheld}
