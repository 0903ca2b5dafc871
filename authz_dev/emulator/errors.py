"""What Entra answers when it refuses: AADSTS numbers, their OAuth error, status and meaning.

The `error` and status of codes for which no public sample exists are customary, not proven.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of the table: OAuth `error`, HTTP status, and what the number means."""

    error: str
    status: int
    meaning: str


def _request(meaning: str) -> Refusal:
    return Refusal("invalid_request", 400, meaning)


def _grant(meaning: str) -> Refusal:
    return Refusal("invalid_grant", 400, meaning)


def _client(meaning: str) -> Refusal:
    return Refusal("invalid_client", 401, meaning)


def _unauthorized(meaning: str) -> Refusal:
    return Refusal("unauthorized_client", 400, meaning)


def _scope(meaning: str) -> Refusal:
    return Refusal("invalid_scope", 400, meaning)


def _transient(meaning: str) -> Refusal:
    return Refusal("temporarily_unavailable", 503, meaning)


def _interaction(meaning: str) -> Refusal:
    return Refusal("interaction_required", 400, meaning)


REFUSALS: dict[int, Refusal] = {
    50000: Refusal("server_error", 400, "The token could not be issued."),
    50001: Refusal("invalid_resource", 400, "The resource is disabled or does not exist."),
    50012: _client("The client assertion was not accepted."),
    50011: _request("The redirect URI of the request is none of the application's."),
    50013: _grant("The assertion is not valid here."),
    500133: _grant("The assertion is outside its time range."),
    50027: _request("The JWT is malformed."),
    50034: _grant("The user account does not exist in the tenant."),
    50048: _client("Subject and issuer of the client assertion differ."),
    50057: _grant("The user account is disabled."),
    50058: Refusal("login_required", 400, "Nobody is signed in, and nobody may be asked."),
    50076: _interaction("Multi-factor authentication is required for this resource."),
    50079: _interaction("The user has to enrol in multi-factor authentication."),
    50105: _grant("The client is not assigned to a role of the resource."),
    50173: _grant("The grant was revoked; a fresh sign-in is needed."),
    50194: _request("The application is not multi-tenant, and cannot be used with this endpoint."),
    50196: _grant("The same request came too often: a client loop."),
    53003: _grant("Access is blocked by Conditional Access."),
    530032: _grant("Access is blocked by a security policy."),
    54005: _grant("The authorization code was already redeemed."),
    65001: _grant("The client has no consent for what it asks."),
    65004: Refusal("access_denied", 400, "The user declined to consent."),
    70000: _grant("The grant is not valid."),
    70003: Refusal("unsupported_grant_type", 400, "The grant type is not supported here."),
    70008: _grant("The refresh token has expired."),
    70011: _scope("The scope is not valid."),
    70016: Refusal("authorization_pending", 400, "The user has not signed in yet; ask again."),
    70018: Refusal("bad_verification_code", 400, "The device code or user code is not valid."),
    70020: Refusal("expired_token", 400, "The device code has expired."),
    70021: _client("No federated identity credential matches the assertion."),
    70043: _grant("The sign-in frequency policy has ended this refresh token."),
    90002: _request("The tenant does not exist."),
    90014: _request("A required field is missing."),
    90024: _transient("The request could not be served now."),
    90033: _transient("A transient error occurred."),
    90055: Refusal("temporarily_unavailable", 429, "The tenant sends too many requests."),
    90100: _request("A parameter is empty or not valid."),
    82001: _unauthorized("The agentic application may not ask app-only tokens for this resource."),
    82002: _unauthorized("A blueprint may not act on behalf of a user itself."),
    82018: _unauthorized("An agentic application cannot sign a user in."),
    240002: _grant("An ID token cannot be the assertion of this grant."),
    500112: _grant("The redirect URI is not the one that the code was asked with."),
    501481: _grant("The code verifier does not match the code challenge."),
    501491: _request("The size of the code challenge is not valid."),
    500011: Refusal("invalid_resource", 400, "The tenant has no principal of the resource."),
    700016: _unauthorized("The tenant has no application of this client id."),
    700021: _client("The client assertion names another application than client_id."),
    700022: _scope("The scope names several resources."),
    700023: _scope("The scope names no resource."),
    700024: _client("The client assertion is outside its time range."),
    700025: _client("The client is public and must present neither secret nor assertion."),
    700027: _client("The signature of the client assertion is not valid."),
    700054: Refusal("unsupported_response_type", 400, "The response type is not enabled."),
    700082: _grant("The refresh token has expired because it was not used."),
    700211: _client("No federated identity credential matches the assertion's issuer."),
    700213: _client("No federated identity credential matches the assertion's subject."),
    700214: _client("The audience of the assertion is not the credential's."),
    700229: _client("Only app-only tokens of this issuer can be a federated credential."),
    700231: _client("A token got by federation cannot be a federated credential again."),
    900144: _request("A parameter of the request body is missing."),
    900561: _request("The endpoint accepts only POST requests with a form body."),
    1000502: _client("The certificate is outside its validity."),
    1002012: _scope("Client credentials need a scope that ends in /.default."),
    7000112: _unauthorized("The application is disabled."),
    7000114: _unauthorized("The application may not make on-behalf-of calls."),
    7000215: _client("The client secret is wrong."),
    7000218: _client("The body must contain client_assertion or client_secret."),
    7000222: _client("The client secret has expired."),
    7000272: _client("The assertion's key is not in its issuer's key set."),
    7000274: _client("The assertion's key is not known."),
    9001023: _request("The grant type needs a tenant-specific endpoint."),
    9002313: _request("The request is malformed."),
    9010010: Refusal("invalid_target", 400, "The resource parameter does not match the scopes."),
}


class TokenError(Exception):
    """A refusal of the token endpoint: AADSTS `code`, and what to add to the table's row."""

    def __init__(
        self,
        code: int,
        detail: str = "",
        *,
        error: str | None = None,
        status: int | None = None,
        suberror: str | None = None,
        claims: dict[str, Any] | None = None,
    ) -> None:
        row = REFUSALS.get(code, Refusal("invalid_grant", 400, "The request was refused."))
        self.code = code
        self.error = error or row.error
        self.status = status or row.status
        self.text = f"{row.meaning} {detail}".strip()
        self.suberror = suberror
        self.claims = claims
        super().__init__(f"AADSTS{code}: {self.text}")

    def body(self, *, authority: str, correlation_id: str, now: float) -> dict[str, Any]:
        """The JSON body, with the members and the description format of Entra."""
        timestamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now))
        trace_id = str(uuid.uuid4())
        body: dict[str, Any] = {
            "error": self.error,
            "error_description": (
                f"AADSTS{self.code}: {self.text} Trace ID: {trace_id} "
                f"Correlation ID: {correlation_id} Timestamp: {timestamp}"
            ),
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": f"{authority}/error?code={self.code}",
        }
        if self.suberror is not None:
            body["suberror"] = self.suberror
        if self.claims is not None:
            body["claims"] = json.dumps(self.claims, separators=(",", ":"))
        return body


def policy_claims(policy_id: str) -> dict[str, Any]:
    """The claims challenge that names a Conditional Access policy."""
    return {"access_token": {"capolids": {"essential": True, "values": [policy_id]}}}
