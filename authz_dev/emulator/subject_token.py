"""The two tokens that say for whom a request is: the OBO assertion (Tc) and the user_fic T2.

Client assertions (T1 among them) are checked in `client_authentication`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from authz_dev.emulator.claims import SignIn
from authz_dev.emulator.entities import TOKEN_EXCHANGE_APP_ID, AgentIdentity, Application
from authz_dev.emulator.errors import TokenError
from authz_dev.emulator.issuer import BadSignature, Issuer, MalformedToken, UnknownKey, in_time


def user_assertion(
    assertion: str, audience: Application, issuer: Issuer, now: float
) -> Mapping[str, Any]:
    """The claims of a user's access token for `audience`, in time and signed by this tenant.

    Raises TokenError 50027, 50013, 500133 or 240002.
    """
    claims = _verified(assertion, issuer)
    tenant_id = audience.tenant_id
    if claims.get("iss") not in issuer.names(tenant_id) or claims.get("tid") != tenant_id:
        raise TokenError(50013, "Its issuer is not this tenant.")
    if claims.get("aud") not in (audience.client_id, *audience.identifier_uris):
        raise TokenError(50013, "Its audience is not the application that presents it.")
    if not in_time(claims, now):
        raise TokenError(500133)
    if "scp" not in claims:
        if "azp" not in claims and "appid" not in claims:
            raise TokenError(240002)
        raise TokenError(50013, "It is an app-only token; a user's token is needed.")
    if claims.get("idtyp", "user") != "user":
        raise TokenError(50013, "It is not a user's token.")
    return claims


def agent_assertion(assertion: str, agent: AgentIdentity, issuer: Issuer, now: float) -> None:
    """Check T2: the token-exchange token that `agent` got for itself.

    Raises TokenError 50027, 50013 or 500133.
    """
    claims = _verified(assertion, issuer)
    if claims.get("iss") != issuer.name(agent.tenant_id, 2):
        raise TokenError(50013, "Its issuer is not this tenant.")
    if claims.get("aud") != TOKEN_EXCHANGE_APP_ID or claims.get("idtyp") != "app":
        raise TokenError(50013, "It is not a token-exchange token of an application.")
    named = {claims.get(name) for name in ("azp", "oid", "sub")}
    if named != {agent.client_id}:
        raise TokenError(50013, "It is of another client chain.")
    if not in_time(claims, now):
        raise TokenError(500133)


def sign_in(claims: Mapping[str, Any]) -> SignIn:
    """How the user of an assertion signed in, as far as its claims tell."""
    return SignIn(
        amr=_texts(claims.get("amr")) or ("pwd",),
        acrs=_texts(claims.get("acrs")),
        acr=str(claims.get("acr", "1")),
        sid=str(claims.get("sid", "")),
    )


def _verified(assertion: str, issuer: Issuer) -> Mapping[str, Any]:
    try:
        return issuer.verify(assertion)
    except MalformedToken as error:
        raise TokenError(50027) from error
    except UnknownKey as error:
        raise TokenError(50013, "Its signature fails: the key was not found.") from error
    except BadSignature as error:
        raise TokenError(50013, "Its signature fails.") from error


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
