"""The legs of Agent ID and of ordinary applications: one function each, from call to response.

A leg checks what its grant needs (the client has been authenticated before) and builds the token
response, or raises TokenError. `leg_of` names the leg a request belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from authz_dev.emulator import claims
from authz_dev.emulator.claims import SignIn
from authz_dev.emulator.entities import (
    GRAPH_APP_ID,
    TOKEN_EXCHANGE_APP_ID,
    TOKEN_EXCHANGE_URI,
    AgentIdentity,
    Application,
    Client,
    User,
)
from authz_dev.emulator.errors import TokenError
from authz_dev.emulator.issuance import Call, app_only_token, app_response, delegated_token
from authz_dev.emulator.refresh_tokens import LIFETIME
from authz_dev.emulator.request import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    JWT_BEARER,
    REFRESH_TOKEN,
    USER_FIC,
    ScopeRequest,
    TokenRequest,
    default_scope_only,
)
from authz_dev.emulator.subject_token import agent_assertion, sign_in, user_assertion

_EXCHANGE_SCOPES = (TOKEN_EXCHANGE_URI.lower(), TOKEN_EXCHANGE_APP_ID)
_FMI_PATH_MISPLACED = "The parameter 'fmi_path' belongs to a blueprint's T1 only."


Leg = Callable[[Call], dict[str, Any]]


def leg_of(client: Client | None, request: TokenRequest) -> str | None:
    """The name of the leg a request is meant to be; None when its grant type is of no leg."""
    grant = request.get("grant_type")
    agent = isinstance(client, AgentIdentity)
    exchange = request.get("scope").lower().startswith(_EXCHANGE_SCOPES)
    if grant == CLIENT_CREDENTIALS:
        if agent:
            return "t2" if exchange else "autonomous"
        if isinstance(client, Application) and client.is_blueprint:
            return "t1" if exchange else "blueprint"
        return "app"
    names = {
        JWT_BEARER: "agent_obo" if agent else "app_obo",
        REFRESH_TOKEN: "agent_refresh",
        USER_FIC: "user_fic",
        AUTHORIZATION_CODE: "authorization_code",
        DEVICE_CODE: "device_code",
    }
    return names.get(grant)


def answer(call: Call) -> dict[str, Any]:
    """Run the leg that fits who calls and which grant is asked; raises TokenError."""
    grant = call.request.required("grant_type")
    call.request.claims()
    if isinstance(call.client, AgentIdentity):
        legs: Mapping[str, Leg] = _AGENT_LEGS
    elif call.client.is_blueprint:
        legs = _BLUEPRINT_LEGS
    elif call.client.is_public:
        legs = _PUBLIC_LEGS
        if grant in _APP_LEGS and grant not in legs:
            # Such a grant needs a credential, and a public client has none.
            raise TokenError(7000218)
    else:
        legs = _APP_LEGS
    leg = legs.get(grant)
    if leg is None:
        raise TokenError(70003, f"The grant type is '{grant}'.")
    if call.request.get("fmi_path") and leg is not blueprint_client_credentials:
        raise TokenError(90100, _FMI_PATH_MISPLACED)
    return leg(call)


def blueprint_client_credentials(call: Call) -> dict[str, Any]:
    """A blueprint's own app token (Microsoft Graph only), or T1 for one of its agents."""
    scope = _default_scope(call)
    assert isinstance(call.client, Application)
    if scope.resource.client_id == TOKEN_EXCHANGE_APP_ID:
        fmi_path = call.request.required("fmi_path")
        agent = call.directory.agent(call.tenant.tenant_id, fmi_path)
        if agent is None or agent.blueprint_id != call.client.client_id:
            raise TokenError(90100, "'fmi_path' names no agent identity of this blueprint.")
        token = claims.exchange_token(
            call.issuer, call.now, call.client, call.acr, call.request.get("fmi_path")
        )
        return app_response(call, token)
    if call.request.get("fmi_path"):
        raise TokenError(90100, _FMI_PATH_MISPLACED)
    if scope.resource.client_id != GRAPH_APP_ID:
        raise TokenError(
            82001,
            f"Agentic application '{call.client.client_id}' is not permitted to request "
            f"app-only tokens for resource '{scope.resource.client_id}'.",
        )
    return app_only_token(call, scope)


def app_only(call: Call) -> dict[str, Any]:
    """The client itself: autonomous agent, T2 (for the exchange resource), ordinary app."""
    return app_only_token(call, _default_scope(call))


def agent_on_behalf_of(call: Call) -> dict[str, Any]:
    """An agent acting for the user whose token was meant for its blueprint."""
    return _on_behalf_of(call, call.blueprint())


def app_on_behalf_of(call: Call) -> dict[str, Any]:
    """An ordinary application acting for the user whose token was meant for it."""
    assert isinstance(call.client, Application)
    return _on_behalf_of(call, call.client)


def blueprint_on_behalf_of(call: Call) -> dict[str, Any]:
    """Always refused: only the agent identities of a blueprint act for users."""
    raise TokenError(82002, f"The application is '{call.client.client_id}'.")


def refresh(call: Call) -> dict[str, Any]:
    """A new token, and a new refresh token, for a user a client acted for before."""
    grant = call.refresh_tokens.find(call.request.required("refresh_token"))
    scope = call.scope("" if grant is None else grant.scope)
    if grant is None or (grant.tenant_id, grant.client_id) != (
        call.tenant.tenant_id,
        call.client.client_id,
    ):
        raise TokenError(70000, "The refresh token was not issued to this client.")
    if call.now >= grant.issued_at + LIFETIME:
        raise TokenError(700082)
    user = _user(call, grant.user_id)
    if grant.issued_at < user.sessions_valid_from:
        raise TokenError(50173)
    return delegated_token(call, scope, user, grant.sign_in, refreshable=True)


def authorization_code(call: Call) -> dict[str, Any]:
    """A token for the user who has signed in at `/authorize`."""
    redirect_uri = call.request.required("redirect_uri")
    found = call.codes.redeem(call.request.required("code"), call.now)
    if (found.tenant_id, found.client_id) != (call.tenant.tenant_id, call.client.client_id):
        raise TokenError(70000, "The authorization code was not issued to this client.")
    if redirect_uri != found.redirect_uri:
        raise TokenError(500112)
    found.check_verifier(call.request.get("code_verifier"))
    scope = call.scope(found.scope)
    user = _user(call, found.user_id)
    if found.issued_at < user.sessions_valid_from:
        raise TokenError(50173)
    refreshable = "offline_access" in scope.openid
    return delegated_token(
        call, scope, user, found.sign_in, refreshable=refreshable, nonce=found.nonce
    )


def device_code(call: Call) -> dict[str, Any]:
    """A token for the user who has typed the device's code in."""
    found = call.devices.redeem(
        call.request.required("device_code"), call.tenant.tenant_id, call.client.client_id, call.now
    )
    scope = ScopeRequest.parse(found.scope, call.directory, call.tenant.tenant_id)
    refreshable = "offline_access" in scope.openid
    user = _user(call, found.user_id)
    return delegated_token(call, scope, user, found.sign_in, refreshable=refreshable)


def agent_user(call: Call) -> dict[str, Any]:
    """An agent acting as its own user account (`user_fic`)."""
    assert isinstance(call.client, AgentIdentity)
    agent_assertion(
        call.request.required("user_federated_identity_credential"),
        call.client,
        call.issuer,
        call.now,
    )
    use = call.request.get("requested_token_use")
    if use not in ("", "on_behalf_of"):
        raise TokenError(90100, "The parameter is 'requested_token_use'.")
    scope = call.scope()
    user = _agent_user(call)
    if user.agent_id != call.client.client_id:
        raise TokenError(
            700213, "The user is not this agent's account.", error="invalid_grant", status=400
        )
    signed_in = SignIn(amr=(), acrs=("p1", "urn:user:registersecurityinfo"), acr="0")
    return delegated_token(
        call, scope, user, signed_in, refreshable="offline_access" in scope.openid
    )


def _agent_user(call: Call) -> User:
    username, user_id = call.request.get("username"), call.request.get("user_id")
    if username and user_id:
        raise TokenError(90100, "Only one of 'username' and 'user_id' may be given.")
    if user_id:
        if "@" in user_id:
            raise TokenError(50000, "'user_id' is not an object id.")
        return _user(call, user_id)
    name = call.request.required("username")
    if "@" not in name:
        raise TokenError(50034, "'username' is not a user principal name.")
    return _user(call, name)


def _on_behalf_of(call: Call, audience: Application) -> dict[str, Any]:
    if call.request.required("requested_token_use") != "on_behalf_of":
        raise TokenError(90100, "The parameter is 'requested_token_use'.")
    assertion = call.request.required("assertion")
    scope = call.scope()
    subject = user_assertion(assertion, audience, call.issuer, call.now)
    user = _user(call, str(subject.get("oid")))
    return delegated_token(
        call,
        scope,
        user,
        sign_in(subject),
        refreshable=True,
        not_after=float(subject["exp"]),
    )


def _user(call: Call, name: str) -> User:
    user = call.directory.user(call.tenant.tenant_id, name)
    if user is None:
        raise TokenError(50034)
    if user.disabled:
        raise TokenError(50057)
    return user


def _default_scope(call: Call) -> ScopeRequest:
    default_scope_only(call.request.required("scope"))
    return call.scope()


_AGENT_LEGS: Mapping[str, Leg] = {
    CLIENT_CREDENTIALS: app_only,
    JWT_BEARER: agent_on_behalf_of,
    REFRESH_TOKEN: refresh,
    USER_FIC: agent_user,
}
_BLUEPRINT_LEGS: Mapping[str, Leg] = {
    CLIENT_CREDENTIALS: blueprint_client_credentials,
    JWT_BEARER: blueprint_on_behalf_of,
    REFRESH_TOKEN: refresh,
}
_PUBLIC_LEGS: Mapping[str, Leg] = {
    AUTHORIZATION_CODE: authorization_code,
    DEVICE_CODE: device_code,
    REFRESH_TOKEN: refresh,
}
_APP_LEGS: Mapping[str, Leg] = {
    CLIENT_CREDENTIALS: app_only,
    JWT_BEARER: app_on_behalf_of,
    **_PUBLIC_LEGS,
}
