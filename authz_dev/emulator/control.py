"""The emulator's own endpoints, which Entra has not: mint, calls, faults, keys, secrets, users, consent.

The HTTP face only; each one calls the object that does the work. Paths and bodies are described in
the package's docstring.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authz_dev.emulator.calls import Calls
from authz_dev.emulator.directory import Directory
from authz_dev.emulator.entities import Application, Secret, Tenant, User
from authz_dev.emulator.faults import Fault, Faults
from authz_dev.emulator.graph import GraphLog
from authz_dev.emulator.keys import KeyRing
from authz_dev.emulator.mint import FIRST, Mint, MintError

_MINT_FIELDS: dict[str, Any] = {
    "tenant_id": str,
    "user": str | None,
    "audience": str,
    "scopes": list,
    "client_id": str,
    "claims": dict,
    "version": int,
    "lifetime": int | float,
    "header": dict,
    "key": str,
    "alg": str,
}


class _Problem(Exception):
    """A request the control endpoint cannot follow; `field` names the member at fault."""

    def __init__(self, field: str, detail: str, status: int = 400) -> None:
        self.field = field
        self.detail = detail
        self.status = status
        super().__init__(detail)


class Control:
    """Endpoints below the control URL."""

    def __init__(
        self,
        directory: Directory,
        keys: KeyRing,
        mint: Mint,
        calls: Calls,
        faults: Faults,
        graph_log: GraphLog,
        clock: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._keys = keys
        self._mint = mint
        self._calls = calls
        self._faults = faults
        self._graph_log = graph_log
        self._clock = clock

    def routes(self) -> list[Route]:
        """The routes, relative to the control URL."""
        return [
            Route("/mint", _problems(self.mint), methods=["POST"]),
            Route("/calls", self.calls, methods=["GET", "DELETE"]),
            Route("/calls/reset", self.reset_calls, methods=["POST", "DELETE"]),
            Route("/faults", _problems(self.faults), methods=["GET", "POST", "DELETE"]),
            Route("/faults/{id}", self.clear_fault, methods=["DELETE"]),
            Route("/keys/roll", _problems(self.roll_keys), methods=["POST"]),
            Route("/secrets/roll", _problems(self.roll_secret), methods=["POST"]),
            Route("/users/{name}", _problems(self.change_user), methods=["POST"]),
            Route("/consent", _problems(self.change_consent), methods=["POST"]),
            Route("/graph", self.graph, methods=["GET", "DELETE"]),
        ]

    async def mint(self, request: Request) -> Response:
        """A token made to order."""
        order = await _members(request, _MINT_FIELDS)
        order["overrides"] = order.pop("claims", None)
        if not all(isinstance(scope, str) for scope in order.get("scopes") or ()):
            raise _Problem("scopes", "must be a list of texts")
        try:
            token = self._mint.token(**order)
        except MintError as error:
            raise _Problem(error.field, error.detail) from error
        return JSONResponse({"access_token": token}, headers={"cache-control": "no-store"})

    async def calls(self, request: Request) -> Response:
        """Token calls by leg, or their reset."""
        if request.method == "DELETE":
            return await self.reset_calls(request)
        return JSONResponse(self._calls.snapshot())

    async def reset_calls(self, _: Request) -> Response:
        """All counts to zero."""
        self._calls.reset()
        return Response(status_code=204)

    async def faults(self, request: Request) -> Response:
        """The faults in force: list, add, or clear all."""
        if request.method == "DELETE":
            self._faults.clear()
            return Response(status_code=204)
        if request.method == "POST":
            try:
                fault = self._faults.add(Fault.from_json(await _object(request)))
            except ValueError as error:
                field, _, detail = str(error).partition(": ")
                raise _Problem(field, detail) from error
            return JSONResponse(fault.as_json(), 201)
        return JSONResponse([fault.as_json() for fault in self._faults.active()])

    async def clear_fault(self, request: Request) -> Response:
        """End one fault."""
        self._faults.clear(request.path_params["id"])
        return Response(status_code=204)

    async def roll_keys(self, request: Request) -> Response:
        """A new signing key."""
        members = await _members(request, {"withdraw_old": bool})
        self._keys.roll(**members)
        return JSONResponse({"kid": self._keys.current.kid})

    async def roll_secret(self, request: Request) -> Response:
        """A new client secret, beside those before or in their place."""
        members = await _members(
            request, {"tenant_id": str, "client_id": str, "withdraw_old": bool}
        )
        tenant = self._tenant(members.get("tenant_id", FIRST))
        client = self._directory.client(tenant.tenant_id, members.get("client_id", ""))
        if not isinstance(client, Application):
            raise _Problem("client_id", "names no application of the tenant")
        secret = Secret(secrets.token_urlsafe(30))
        before = () if members.get("withdraw_old", False) else client.secrets
        self._directory.update_application(
            client.tenant_id, client.client_id, secrets=(*before, secret)
        )
        headers = {"cache-control": "no-store"}
        return JSONResponse({"client_secret": secret.value}, headers=headers)

    async def change_user(self, request: Request) -> Response:
        """Disable a user, ask the user for MFA, or revoke the user's sessions."""
        members = await _members(
            request,
            {"tenant_id": str, "disabled": bool, "mfa_required": bool, "revoke_sessions": bool},
        )
        tenant = self._tenant(members.pop("tenant_id", FIRST))
        user = self._user(tenant, request.path_params["name"], status=404)
        if members.pop("revoke_sessions", False):
            members["sessions_valid_from"] = self._clock()
        changed = self._directory.update_user(tenant.tenant_id, user.object_id, **members)
        return JSONResponse(
            {
                "object_id": changed.object_id,
                "username": changed.username,
                "disabled": changed.disabled,
                "mfa_required": changed.mfa_required,
            }
        )

    async def change_consent(self, request: Request) -> Response:
        """Give or take back delegated permissions."""
        members = await _members(
            request,
            {
                "tenant_id": str,
                "client_id": str,
                "resource": str,
                "scopes": list,
                "user": str | None,
                "granted": bool,
            },
        )
        tenant = self._tenant(members.get("tenant_id", FIRST))
        client = self._directory.client(tenant.tenant_id, members.get("client_id", ""))
        if client is None:
            raise _Problem("client_id", "names no client of the tenant")
        resource = self._directory.resource(tenant.tenant_id, members.get("resource", ""))
        if resource is None:
            raise _Problem("resource", "names no resource of the tenant")
        name = members.get("user")
        user = None if name is None else self._user(tenant, name)
        scopes = members.get("scopes", [])
        if not scopes:
            raise _Problem("scopes", "is missing: expected a list of one scope at least")
        if not all(isinstance(scope, str) for scope in scopes):
            raise _Problem("scopes", "must be a list of texts")
        if members.get("granted", True):
            self._directory.grant_scopes(client, resource, scopes, user)
        else:
            self._directory.revoke_scopes(client, resource, scopes, user)
        return Response(status_code=204)

    async def graph(self, request: Request) -> Response:
        """The claims of the tokens Graph saw, or their removal."""
        if request.method == "DELETE":
            self._graph_log.clear()
            return Response(status_code=204)
        return JSONResponse(self._graph_log.snapshot())

    def _tenant(self, name: str) -> Tenant:
        found = self._directory.tenant(name) if name else self._directory.tenants()[0]
        if found is None:
            raise _Problem("tenant_id", "names no tenant")
        return found

    def _user(self, tenant: Tenant, name: str, *, status: int = 400) -> User:
        found = self._directory.user(tenant.tenant_id, name)
        if found is None:
            raise _Problem("user", "names no user of the tenant", status)
        return found


Handler = Callable[[Request], Awaitable[Response]]


def _problems(handler: Handler) -> Handler:
    """Answer with a problem document (RFC 9457) where the handler found a fault in the request."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except _Problem as problem:
            body = {
                "title": HTTPStatus(problem.status).phrase,
                "status": problem.status,
                "detail": f"{problem.field}: {problem.detail}",
                "field": problem.field,
            }
            return JSONResponse(body, problem.status, media_type="application/problem+json")

    return handle


async def _object(request: Request) -> dict[str, Any]:
    body = await request.body()
    try:
        document = json.loads(body or b"{}")
    except ValueError as error:
        raise _Problem("body", "is not JSON") from error
    if not isinstance(document, dict):
        raise _Problem("body", "is not a JSON object")
    return document


async def _members(request: Request, types: dict[str, Any]) -> dict[str, Any]:
    document = await _object(request)
    for name, value in document.items():
        if name not in types:
            raise _Problem(name, "is not known")
        if not isinstance(value, types[name]):
            raise _Problem(name, "has the wrong type")
    return document
