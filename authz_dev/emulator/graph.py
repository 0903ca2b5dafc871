"""A sliver of Microsoft Graph: enough to see who calls, with Graph's own checks and errors.

`/v1.0/`, `/v1.0/me`, `/v1.0/me/messages`, `/v1.0/servicePrincipals/...`, and `/v1.0/whoami`, which Graph
has not and which answers with the caller's claims. Calls are remembered by the claims of their tokens,
never the tokens. What makes blueprints and agents is in `provisioning`.
"""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from authz_dev.emulator.claims import BACKDATE
from authz_dev.emulator.directory import Directory
from authz_dev.emulator.entities import (
    GRAPH_APP_ID,
    GRAPH_URI,
    AgentIdentity,
    Application,
    Client,
    User,
)
from authz_dev.emulator.fault_response import Wire, spoil
from authz_dev.emulator.faults import Faults, Occasion
from authz_dev.emulator.issuer import BadSignature, Issuer, MalformedToken, UnknownKey

_IDENTITY_CLAIMS = ("idtyp", "appid", "oid", "upn", "tid", "scp", "roles", "xms_par_app_azp")


class GraphError(Exception):
    """A refusal of Graph: HTTP status, code and message, and perhaps a claims challenge."""

    def __init__(
        self, status: int, code: str, message: str, challenge: dict[str, Any] | None = None
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.challenge = challenge
        super().__init__(code)


class GraphLog:
    """Claims of the valid tokens Graph saw, oldest first; the last thousand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: deque[dict[str, Any]] = deque(maxlen=1000)

    def record(self, claims: Mapping[str, Any]) -> None:
        """Remember one call."""
        with self._lock:
            self._seen.append(dict(claims))

    def snapshot(self) -> list[dict[str, Any]]:
        """The claims of every call remembered."""
        with self._lock:
            return list(self._seen)

    def clear(self) -> None:
        """Forget all calls."""
        with self._lock:
            self._seen.clear()


class Graph:
    """The resource server Microsoft Graph."""

    def __init__(
        self,
        directory: Directory,
        issuer: Issuer,
        log: GraphLog,
        faults: Faults,
        clock: Callable[[], float],
        wire: Wire,
    ) -> None:
        self._directory = directory
        self._issuer = issuer
        self._log = log
        self._faults = faults
        self._clock = clock
        self._wire = wire

    async def document(self, request: Request) -> Response:
        """`GET /v1.0/`: the service document, which lists what there is (OData 4.0, part 1, section 11.1.1).

        Graph shows its own to anybody. Here it needs a token like all the rest, so that the caller is seen.
        """
        return await self.serve(request, lambda _: _service_document(self._issuer.authority))

    async def me(self, request: Request) -> Response:
        """`GET /v1.0/me`: the signed-in user, a person or an agent's user account."""
        return await self.serve(request, self._me)

    async def messages(self, request: Request) -> Response:
        """`GET /v1.0/me/messages`: the signed-in user's mail, one message."""
        return await self.serve(request, self._messages)

    async def service_principal(self, request: Request) -> Response:
        """`GET /v1.0/servicePrincipals/{id}` or `/v1.0/servicePrincipals(appId='{id}')`."""
        return await self.serve(
            request, lambda claims: self._service_principal(claims, request.path_params["name"])
        )

    async def whoami(self, request: Request) -> Response:
        """`GET /v1.0/whoami`: who the token says is calling."""
        return await self.serve(
            request, lambda claims: {n: claims[n] for n in _IDENTITY_CLAIMS if n in claims}
        )

    async def serve(
        self,
        request: Request,
        answer: Callable[[Mapping[str, Any]], dict[str, Any]],
        status: HTTPStatus = HTTPStatus.OK,
    ) -> Response:
        """Answer a call whose token is valid; `answer` gets its claims, and may raise GraphError."""
        request.state.correlation_id = str(uuid.uuid4())
        faulty = await spoil(
            self._faults.take(Occasion("graph")),
            request,
            authority=self._issuer.authority,
            now=self._clock(),
            wire=self._wire,
        )
        if faulty is not None:
            return faulty
        try:
            claims = self._authenticate(request)
            self._log.record(claims)
            content = answer(claims)
            if status == HTTPStatus.NO_CONTENT:
                return Response(status_code=status)
            return JSONResponse(content, status)
        except GraphError as error:
            return self._refuse(error)

    def _authenticate(self, request: Request) -> Mapping[str, Any]:
        values = request.headers.getlist("authorization")
        if not values:
            raise _invalid("Access token is empty.")
        scheme, _, token = values[0].partition(" ")
        if len(values) > 1 or scheme.lower() != "bearer" or not token:
            raise _invalid("The Authorization header is not one bearer token.")
        try:
            claims = self._issuer.verify(token)
        except MalformedToken as error:
            raise _invalid("JWT is not well formed.") from error
        except (UnknownKey, BadSignature) as error:
            raise _invalid("Signature is invalid.") from error
        tenant_id = str(claims.get("tid"))
        if claims.get("iss") not in self._issuer.names(tenant_id):
            raise _invalid("Invalid issuer.")
        if claims.get("aud") not in (GRAPH_APP_ID, GRAPH_URI, f"{GRAPH_URI}/"):
            raise _invalid("Invalid audience.")
        now = self._clock()
        if claims.get("exp", 0) <= now:
            raise _invalid("Lifetime validation failed, the token is expired.")
        if claims.get("nbf", now + 1) > now:
            raise _invalid("Lifetime validation failed, the token is not yet valid.")
        self._check_sessions(claims, tenant_id)
        return claims

    def _check_sessions(self, claims: Mapping[str, Any], tenant_id: str) -> None:
        """Continuous access evaluation, for clients that declared they can handle it."""
        user = self._directory.user(tenant_id, str(claims.get("oid")))
        if user is None or "cp1" not in claims.get("xms_cc", ()):
            return
        if claims["iat"] + BACKDATE < user.sessions_valid_from:
            value = str(int(user.sessions_valid_from))
            raise GraphError(
                401,
                "InvalidAuthenticationToken",
                "Continuous access evaluation resulted in challenge.",
                {"access_token": {"nbf": {"essential": True, "value": value}}},
            )

    def _me(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        return _user(self._signed_in(claims, {"User.Read", "User.Read.All"}))

    def _messages(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        user = self._signed_in(claims, {"Mail.Read"})
        return {"value": [{"id": "1", "subject": f"Welcome, {user.name}"}]}

    def _signed_in(self, claims: Mapping[str, Any], scopes: set[str]) -> User:
        """Return the user of a token that has one of the scopes."""
        if "scp" not in claims:
            raise GraphError(
                400, "BadRequest", "/me request is only valid with delegated authentication flow."
            )
        if not scopes & set(claims["scp"].split()):
            raise denied()
        user = self._directory.user(claims["tid"], claims["oid"])
        if user is None:
            raise GraphError(404, "Request_ResourceNotFound", "The user does not exist.")
        return user

    def _service_principal(self, claims: Mapping[str, Any], name: str) -> dict[str, Any]:
        permissions = {*claims.get("roles", ()), *claims.get("scp", "").split()}
        if not permissions & {"Application.Read.All", "AgentIdentity.CreateAsManager"}:
            raise denied()
        tenant_id = claims["tid"]
        found = self._directory.client(tenant_id, name) or self._directory.principal(
            tenant_id, name
        )
        if found is None:
            raise GraphError(404, "Request_ResourceNotFound", "Resource does not exist.")
        return _principal(found)

    @staticmethod
    def _refuse(error: GraphError) -> Response:
        headers = {}
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers["www-authenticate"] = 'Bearer realm="", authorization_uri="", client_id=""'
        if error.challenge is not None:
            encoded = base64.b64encode(json.dumps(error.challenge).encode()).decode()
            headers["www-authenticate"] += f', error="insufficient_claims", claims="{encoded}"'
        request_id = str(uuid.uuid4())
        body = {
            "error": {
                "code": error.code,
                "message": error.message,
                "innerError": {"request-id": request_id, "client-request-id": request_id},
            }
        }
        return JSONResponse(body, error.status, headers)


def _invalid(message: str) -> GraphError:
    return GraphError(401, "InvalidAuthenticationToken", message)


def denied() -> GraphError:
    """The refusal of a token that has no permission for the call."""
    message = "Insufficient privileges to complete the operation."
    return GraphError(403, "Authorization_RequestDenied", message)


def role_id(resource: Client, role: str) -> str:
    """Return the id of an app role, by which it is assigned."""
    return str(uuid.uuid5(uuid.UUID(resource.client_id), role))


def _service_document(authority: str) -> dict[str, Any]:
    kinds = {"applications": "EntitySet", "me": "Singleton", "servicePrincipals": "EntitySet"}
    return {
        "@odata.context": f"{authority}/v1.0/$metadata",
        "value": [{"name": name, "kind": kind, "url": name} for name, kind in kinds.items()],
    }


def _user(user: User) -> dict[str, Any]:
    kind = "agentUser" if user.agent_id else "user"
    return {
        "@odata.type": f"#microsoft.graph.{kind}",
        "displayName": user.name,
        "id": user.object_id,
        "identityParentId": user.agent_id,
        "userPrincipalName": user.username,
    }


def _principal(client: Client) -> dict[str, Any]:
    kind = "servicePrincipal"
    if isinstance(client, AgentIdentity):
        kind = "agentIdentity"
    elif client.is_blueprint:
        kind = "agentIdentityBlueprintPrincipal"
    blueprint = client.blueprint_id if isinstance(client, AgentIdentity) else None
    roles = client.roles if isinstance(client, Application) else ()
    return {
        "@odata.type": f"#microsoft.graph.{kind}",
        "accountEnabled": not client.disabled,
        "agentIdentityBlueprintId": blueprint,
        "appId": client.client_id,
        "appRoles": [{"id": role_id(client, role), "value": role} for role in roles],
        "displayName": client.name,
        "id": client.principal_id,
    }
