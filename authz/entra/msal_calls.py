"""The MSAL calls that ask for tokens, one for each grant: which of MSAL's methods, and with what arguments.

Who asks, and in which order, is in `authz.entra.exchange`; whose MSAL client runs a call, in
`authz.entra.clients`.
"""

from collections.abc import Callable
from typing import Any

from authz.core.exchange import AgentUser, Target
from authz.core.secret import Secret
from authz.entra.clients import Acquire


def aimed(call: Callable[..., Any], target: Target) -> Acquire:
    """Return one of the calls below, for the scopes and claims of a target."""
    return lambda application: call(
        application=application, scopes=list(target.scopes), claims=target.claims
    )


def for_client(
    *, application: Any, scopes: list[str], claims: str | None, fmi_path: str | None = None
) -> Any:
    """Client credentials (RFC 6749 section 4.4); with `fmi_path` for an agent's T1."""
    return application.acquire_token_for_client(
        scopes=scopes, claims_challenge=claims, fmi_path=fmi_path
    )


def on_behalf_of(
    subject: Secret, *, application: Any, scopes: list[str], claims: str | None
) -> Any:
    """On behalf of the user of a token (Entra page "v2-oauth2-on-behalf-of-flow")."""
    return application.acquire_token_on_behalf_of(
        user_assertion=subject.reveal(), scopes=scopes, claims_challenge=claims
    )


def user_fic(
    t2: Secret, user: dict[str, str], *, application: Any, scopes: list[str], claims: str | None
) -> Any:
    """As an agent's own user account, by T2 (Entra page "agent-user-oauth-flow")."""
    return application.acquire_token_by_user_federated_identity_credential(
        scopes=scopes, assertion=t2.reveal(), claims_challenge=claims, **user
    )


def user_argument(user: AgentUser) -> dict[str, str]:
    """Return MSAL's keyword for an agent's user account: by name, or by object id."""
    if user.username is not None:
        return {"username": user.username}
    assert user.object_id is not None
    return {"user_object_id": user.object_id}
