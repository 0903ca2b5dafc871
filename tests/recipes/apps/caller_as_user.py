"""The caller that authz verified, as the user that SDKs bind sessions and tasks to."""

from collections.abc import Callable

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import BaseUser, SimpleUser
from starlette.types import ASGIApp, Receive, Scope, Send


class CallerAsUser:
    """Middleware: puts the caller into `scope["user"]`. Without authz in front every request fails."""

    def __init__(self, app: ASGIApp, user_of: Callable[[str, str], BaseUser]) -> None:
        self.app, self.user_of = app, user_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its user."""
        if scope["type"] == "http":
            said = {name: value.decode() for name, value in scope["headers"]}
            scope["user"] = self.user_of(said[b"x-authz-tenant"], said[b"x-authz-subject"])
        await self.app(scope, receive, send)


def mcp_user(tenant: str, subject: str) -> BaseUser:
    """Return whom the MCP SDK binds a session to: issuer and subject count."""
    claims = {"iss": tenant}
    user = AccessToken(token="", client_id="authz", scopes=[], subject=subject, claims=claims)
    return AuthenticatedUser(user)


def a2a_user(tenant: str, subject: str) -> BaseUser:
    """Return whom a2a-sdk binds a task to: the name counts."""
    return SimpleUser(f"{tenant}/{subject}")
