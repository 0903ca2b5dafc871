"""The call a leg answers, and the token response it makes: roles, consent, policy, lifetime.

Which legs there are and what each one checks first is in `grants`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authz_dev.emulator import claims
from authz_dev.emulator.claims import SignIn
from authz_dev.emulator.codes import Codes, DeviceCodes
from authz_dev.emulator.directory import Directory
from authz_dev.emulator.entities import (
    GRAPH_APP_ID,
    AgentIdentity,
    Application,
    Client,
    Tenant,
    User,
)
from authz_dev.emulator.errors import TokenError, policy_claims
from authz_dev.emulator.issuer import Issuer
from authz_dev.emulator.keys import b64url
from authz_dev.emulator.refresh_tokens import RefreshGrant, RefreshTokens
from authz_dev.emulator.request import ScopeRequest, TokenRequest

_SIGN_IN_SCOPES = frozenset({"openid", "profile", "email", "offline_access"})


@dataclass(frozen=True, slots=True)
class Call:
    """An authenticated token request with everything a leg needs to answer it."""

    directory: Directory
    issuer: Issuer
    refresh_tokens: RefreshTokens
    codes: Codes
    devices: DeviceCodes
    now: float
    tenant: Tenant
    request: TokenRequest
    client: Client
    acr: str

    def scope(self, default: str = "") -> ScopeRequest:
        """The scope parameter, or `default` where it is left out, read and resolved."""
        form = {**self.request.form, "scope": self.request.get("scope") or default}
        return ScopeRequest.of(TokenRequest(form), self.directory, self.tenant.tenant_id)

    def blueprint(self) -> Application:
        """The blueprint of the calling agent identity."""
        assert isinstance(self.client, AgentIdentity)
        found = self.directory.application(self.tenant.tenant_id, self.client.blueprint_id)
        assert found is not None
        return found


def app_only_token(call: Call, scope: ScopeRequest) -> dict[str, Any]:
    """A response with a token for the client itself; raises TokenError 50105."""
    roles = call.directory.application_roles(call.client, scope.resource)
    if scope.resource.assignment_required and not roles:
        raise TokenError(50105)
    token = claims.app_only(
        call.issuer,
        call.now,
        call.client,
        scope.resource,
        audience=scope.audience,
        acr=call.acr,
        roles=roles,
    )
    return app_response(call, token)


def app_response(call: Call, token: Mapping[str, Any]) -> dict[str, Any]:
    """The response of a client-credentials grant: never a refresh token (RFC 6749, 4.4.3)."""
    lifetime = _expires_in(call, token)
    return {
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": call.issuer.sign(token),
    }


def delegated_token(
    call: Call,
    scope: ScopeRequest,
    user: User,
    signed_in: SignIn,
    *,
    refreshable: bool,
    not_after: float = float("inf"),
    nonce: str = "",
) -> dict[str, Any]:
    """A response with a token for the client acting for `user`.

    The token ends at `not_after` (Unix seconds) at the latest. Raises TokenError 65001 without
    consent, 50076 without the second factor the user needs, or without the authentication context
    (`acrs`) that the request's `claims` call essential.
    """
    granted = _consented(call, scope, user)
    context = _demanded_context(call.request)
    if context is not None and context not in signed_in.acrs:
        demanded = {"access_token": {"acrs": {"essential": True, "value": context}}}
        raise TokenError(50076, suberror="basic_action", claims=demanded)
    if user.mfa_required and "mfa" not in signed_in.amr and not signed_in.acrs:
        raise TokenError(
            50076, suberror="basic_action", claims=policy_claims(call.tenant.policy_id)
        )
    token = claims.delegated(
        call.issuer,
        call.now,
        # One production sample of a result that ends with the assertion it came from.
        min(call.now + claims.user_lifetime(), not_after),
        call.client,
        scope.resource,
        user,
        audience=scope.audience,
        acr=call.acr,
        scopes=granted - {"offline_access"},
        sign_in=signed_in,
    )
    if scope.resource.client_id == GRAPH_APP_ID and _declares_cp1(call.request):
        token["xms_cc"] = ["cp1"]
    lifetime = _expires_in(call, token)
    response = {
        "token_type": "Bearer",
        "scope": scope.response_scope(granted - _SIGN_IN_SCOPES),
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": call.issuer.sign(token),
    }
    if refreshable:
        response["refresh_token"] = call.refresh_tokens.issue(
            RefreshGrant(
                call.tenant.tenant_id,
                call.client.client_id,
                user.object_id,
                scope.text,
                call.now,
                signed_in,
            )
        )
    if "openid" in scope.openid:
        response["id_token"] = call.issuer.sign(
            claims.id_token(call.issuer, call.now, call.client, user)
            | ({"nonce": nonce} if nonce else {})
        )
    if call.request.get("client_info") == "1":
        info = {"uid": user.object_id, "utid": call.tenant.tenant_id}
        response["client_info"] = b64url(json.dumps(info).encode())
    return response


def lacks_consent(directory: Directory, client: Client, scope: ScopeRequest, user: User) -> bool:
    """Whether the client may not have for the user all that the scope names."""
    consented = directory.delegated_scopes(client, scope.resource, user)
    return not consented if scope.default else not scope.permissions <= consented


def _consented(call: Call, scope: ScopeRequest, user: User) -> frozenset[str]:
    consented = call.directory.delegated_scopes(call.client, scope.resource, user)
    granted = consented if scope.default else scope.permissions & consented
    if lacks_consent(call.directory, call.client, scope, user):
        raise TokenError(
            65001,
            f"The application '{call.client.client_id}' asked for '{scope.resource.client_id}'.",
            suberror="consent_required",
            claims=policy_claims(call.tenant.policy_id),
        )
    if scope.resource.client_id == GRAPH_APP_ID:
        granted |= scope.openid & consented
    return granted


def _demanded_context(request: TokenRequest) -> str | None:
    """Which authentication context must be in the token (Entra page "claims-challenge")."""
    access_token = request.claims().get("access_token")
    acrs = access_token.get("acrs") if isinstance(access_token, dict) else None
    value = acrs.get("value") if isinstance(acrs, dict) and acrs.get("essential") else None
    return value if isinstance(value, str) else None


def _declares_cp1(request: TokenRequest) -> bool:
    access_token = request.claims().get("access_token")
    capabilities = access_token.get("xms_cc") if isinstance(access_token, dict) else None
    values = capabilities.get("values") if isinstance(capabilities, dict) else None
    return isinstance(values, list) and "cp1" in values


def _expires_in(call: Call, token: Mapping[str, Any]) -> int:
    # Entra announces one second less than the token lives.
    return max(0, int(token["exp"]) - int(call.now) - 1)
