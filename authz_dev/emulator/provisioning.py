"""Microsoft Graph's calls that make a blueprint and its agents: what docs/entra.md has an administrator do.

Each needs the permission that Graph documents, and refuses what Graph refuses; nothing else of the
objects can be read or changed. Objects get the ids that the directory gives them. The checks of the
token are in `graph`.
"""

from __future__ import annotations

import base64
import json
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz_dev.emulator.directory import Directory, new_guid
from authz_dev.emulator.entities import (
    GRAPH_URI,
    AgentIdentity,
    Application,
    Client,
    FederatedCredential,
    Secret,
    User,
)
from authz_dev.emulator.graph import Graph, GraphError, denied, role_id

Claims = Mapping[str, Any]
Body = Mapping[str, Any]
Work = Callable[[str, Claims, Body], dict[str, Any]]

_VERSIONS = ("/v1.0", "/beta")
_TYPE = "microsoft.graph.agentIdentityBlueprint"
_AGENT_CREATORS = ("AgentIdentity.Create.All", "AgentIdentity.ReadWrite.All")
_AS_PARENT = "AgentIdentity.CreateAsManager"
_USER_CREATORS = ("AgentIdUser.ReadWrite.All",)
_OF_CHILDREN = "AgentIdUser.ReadWrite.IdentityParentedBy"


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of Graph: its path, the permissions of which it needs one, and what it does."""

    path: str
    needed: tuple[str, ...]
    work: Work
    status: HTTPStatus
    method: str = "POST"


class Provisioning:
    """Blueprints, their principals, credentials and scopes, agent identities, and permissions.

    Args:
        directory: Gets what is made.
        graph: Checks tokens.
    """

    def __init__(self, directory: Directory, graph: Graph) -> None:
        self._directory = directory
        self._graph = graph
        self._drafts: dict[str, Application] = {}
        """Blueprints without principal, by object id: the tenant knows no client of their id yet."""
        self._scope_ids: dict[str, dict[str, str]] = {}
        """Values of scopes by the scopes' ids, for each blueprint by its object id."""

    def routes(self) -> list[Route]:
        """The routes, relative to the authority."""
        blueprint = "/applications/{id}"
        agent = "/servicePrincipals/microsoft.graph.agentIdentity"
        credentials = ("AgentIdentityBlueprint.AddRemoveCreds.All",)
        created = HTTPStatus.CREATED
        calls = [
            _Call(
                f"/applications/{_TYPE}",
                ("AgentIdentityBlueprint.Create",),
                self._create_blueprint,
                created,
            ),
            _Call(
                f"/servicePrincipals/{_TYPE}Principal",
                ("AgentIdentityBlueprintPrincipal.Create",),
                self._create_principal,
                created,
            ),
            _Call(
                blueprint,
                ("AgentIdentityBlueprint.UpdateAuthProperties.All",),
                self._expose,
                HTTPStatus.NO_CONTENT,
                method="PATCH",
            ),
            _Call(f"{blueprint}/addPassword", credentials, self._add_secret, HTTPStatus.OK),
            _Call(
                f"{blueprint}/federatedIdentityCredentials",
                credentials,
                self._add_federated_credential,
                created,
            ),
            _Call(agent, (*_AGENT_CREATORS, _AS_PARENT), self._create_agent, created),
            _Call("/users", (*_USER_CREATORS, _OF_CHILDREN), self._create_agent_user, created),
            _Call(
                "/oauth2PermissionGrants",
                ("DelegatedPermissionGrant.ReadWrite.All",),
                self._grant_scopes,
                created,
            ),
            _Call(
                "/servicePrincipals/{id}/appRoleAssignments",
                ("AppRoleAssignment.ReadWrite.All",),
                self._grant_role,
                created,
            ),
        ]
        return [
            Route(f"{version}{call.path}", self._handler(call), methods=[call.method])
            for version in _VERSIONS
            for call in calls
        ]

    def _handler(self, call: _Call) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            content = await request.body()

            def answer(claims: Claims) -> dict[str, Any]:
                permissions = {*claims.get("roles", ()), *claims.get("scp", "").split()}
                # Graph refuses tokens that carry it, Azure CLI's among them, whatever else they carry.
                if "Directory.AccessAsUser.All" in permissions or not permissions & {*call.needed}:
                    raise denied()
                return call.work(request.path_params.get("id", ""), claims, _body(content))

            return await self._graph.serve(request, answer, call.status)

        return handle

    def _create_blueprint(self, _: str, claims: Claims, body: Body) -> dict[str, Any]:
        name = _text(body, "displayName")
        self._check_sponsors(claims, body)
        blueprint = Application(claims["tid"], new_guid(), "", name, is_blueprint=True)
        self._drafts[blueprint.object_id] = blueprint
        return {
            "@odata.type": "#microsoft.graph.agentIdentityBlueprint",
            "id": blueprint.object_id,
            "appId": blueprint.client_id,
            "displayName": name,
        }

    def _create_principal(self, _: str, claims: Claims, body: Body) -> dict[str, Any]:
        app_id = _text(body, "appId")
        if self._directory.application(claims["tid"], app_id) is not None:
            raise _bad("The service principal cannot be created: the appId is already in use.")
        drafts = (d for d in self._drafts.values() if d.client_id == app_id.lower())
        draft = next((d for d in drafts if d.tenant_id == claims["tid"]), None)
        if draft is None:
            raise _bad(
                f"The appId '{app_id}' of the service principal does not reference anything."
            )
        del self._drafts[draft.object_id]
        blueprint = self._directory.add_application(replace(draft, principal_id=new_guid()))
        graph = self._directory.resource(claims["tid"], GRAPH_URI)
        assert graph is not None
        # Entra gives every blueprint the permission to create its children.
        self._directory.grant_roles(blueprint, graph, [_AS_PARENT])
        return {
            "@odata.type": "#microsoft.graph.agentIdentityBlueprintPrincipal",
            "id": blueprint.principal_id,
            "appId": blueprint.client_id,
            "displayName": blueprint.name,
        }

    def _expose(self, name: str, claims: Claims, body: Body) -> dict[str, Any]:
        blueprint = self._blueprint(name, claims)
        api = body.get("api", {})
        changes: dict[str, Any] = {}
        if "identifierUris" in body:
            changes["identifier_uris"] = tuple(body["identifierUris"])
        if "oauth2PermissionScopes" in api:
            scopes = [_scope(scope) for scope in api["oauth2PermissionScopes"]]
            changes["scopes"] = tuple(scopes)
            self._scope_ids[blueprint.object_id] = {
                scope["id"].lower(): _text(scope, "value")
                for scope in api["oauth2PermissionScopes"]
            }
        if "preAuthorizedApplications" in api:
            self._pre_authorize(blueprint, api["preAuthorizedApplications"])
            changes["identifier_uris"] = changes.get("identifier_uris", blueprint.identifier_uris)
        if "requestedAccessTokenVersion" in api:
            changes["token_version"] = api["requestedAccessTokenVersion"]
        unknown = [n for n in body if n not in ("identifierUris", "api")]
        if unknown or not changes:
            raise _bad(f"Property '{(unknown or ['body'])[0]}' cannot be changed here.")
        self._change(blueprint, **changes)
        return {}

    def _pre_authorize(self, blueprint: Application, entries: list[Mapping[str, Any]]) -> None:
        """Give clients consent for everybody. One that the tenant does not know yet gets none here."""
        known = self._scope_ids.get(blueprint.object_id, {})
        for entry in entries:
            ids = [identifier.lower() for identifier in entry.get("delegatedPermissionIds", [])]
            client = self._directory.application(blueprint.tenant_id, _text(entry, "appId"))
            if not ids or any(identifier not in known for identifier in ids):
                raise _bad(
                    "Property 'delegatedPermissionIds' must have ids of this application's scopes."
                )
            if client is not None:
                self._directory.grant_scopes(client, blueprint, [known[one] for one in ids], None)

    def _add_secret(self, name: str, claims: Claims, body: Body) -> dict[str, Any]:
        blueprint = self._blueprint(name, claims)
        label = _text(body.get("passwordCredential", {}), "displayName")
        secret = Secret(base64.urlsafe_b64encode(secrets.token_bytes(30)).decode())
        self._change(blueprint, secrets=(*blueprint.secrets, secret))
        return {"keyId": new_guid(), "displayName": label, "secretText": secret.value}

    def _add_federated_credential(self, name: str, claims: Claims, body: Body) -> dict[str, Any]:
        blueprint = self._blueprint(name, claims)
        issuer, subject = _text(body, "issuer"), _text(body, "subject")
        label, audiences = _text(body, "name"), body.get("audiences")
        if not isinstance(audiences, list) or len(audiences) != 1:
            raise _bad("Property 'audiences' must have exactly one value.")
        credentials = blueprint.federated_credentials
        if any((c.issuer, c.subject) == (issuer, subject) for c in credentials):
            raise GraphError(
                409, "Request_MultipleObjectsWithSameKeyValue", "Issuer and subject are in use."
            )
        # Entra asks the issuer; here its keys are those that some other credential has brought.
        known = (
            c.keys
            for application in self._directory.applications(claims["tid"])
            for c in application.federated_credentials
            if c.issuer == issuer
        )
        credential = FederatedCredential(issuer, subject, audiences[0], next(known, {}))
        self._change(blueprint, federated_credentials=(*credentials, credential))
        return {"id": new_guid(), "name": label, "issuer": issuer, "subject": subject}

    def _create_agent(self, _: str, claims: Claims, body: Body) -> dict[str, Any]:
        name, blueprint_id = _text(body, "displayName"), _text(body, "agentIdentityBlueprintId")
        blueprint = self._directory.application(claims["tid"], blueprint_id)
        if blueprint is None or not blueprint.is_blueprint:
            raise _bad("The Agent Blueprint Principal for the Agent Blueprint does not exist.")
        _of_the_family(claims, _AGENT_CREATORS, blueprint.client_id)
        self._check_sponsors(claims, body)
        agent = self._directory.add_agent(
            AgentIdentity(claims["tid"], new_guid(), blueprint.client_id, name)
        )
        return {
            "@odata.type": "#microsoft.graph.agentIdentity",
            "id": agent.client_id,
            "appId": agent.client_id,
            "displayName": name,
            "agentIdentityBlueprintId": blueprint.client_id,
        }

    def _create_agent_user(self, _: str, claims: Claims, body: Body) -> dict[str, Any]:
        if body.get("@odata.type", "").removeprefix("#") != "microsoft.graph.agentUser":
            raise _bad("Property '@odata.type' must be 'microsoft.graph.agentUser'.")
        agent = self._directory.agent(claims["tid"], _text(body, "identityParentId"))
        if agent is None:
            raise _bad("Property 'identityParentId' names no agent identity.")
        _of_the_family(claims, _USER_CREATORS, agent.blueprint_id)
        if self._directory.agent_user(claims["tid"], agent.client_id) is not None:
            raise _bad("The agent identity has a user account already.")
        _text(body, "mailNickname")
        user = self._directory.add_user(
            User(
                claims["tid"],
                new_guid(),
                _text(body, "userPrincipalName"),
                _text(body, "displayName"),
                agent_id=agent.client_id,
                disabled=body.get("accountEnabled") is not True,
            )
        )
        return {"id": user.object_id, "userPrincipalName": user.username}

    def _grant_scopes(self, _: str, claims: Claims, body: Body) -> dict[str, Any]:
        client = self._principal(claims, _text(body, "clientId"), "clientId")
        resource = self._principal(claims, _text(body, "resourceId"), "resourceId")
        user = None
        if (consent := _text(body, "consentType")) == "Principal":
            user = self._directory.user(claims["tid"], _text(body, "principalId"))
            if user is None:
                raise _bad("Property 'principalId' names no user.")
        elif consent != "AllPrincipals":
            raise _bad("Property 'consentType' must be 'AllPrincipals' or 'Principal'.")
        scopes = _text(body, "scope").split()
        if not isinstance(resource, Application) or not {*scopes} <= {*resource.scopes}:
            raise _bad("Property 'scope' names what the resource has not.")
        self._directory.grant_scopes(client, resource, scopes, user)
        return {"id": new_guid(), **body}

    def _grant_role(self, name: str, claims: Claims, body: Body) -> dict[str, Any]:
        client = self._principal(claims, name, "id")
        if _text(body, "principalId") != client.principal_id:
            raise _bad("Property 'principalId' is not the principal of the path.")
        resource = self._principal(claims, _text(body, "resourceId"), "resourceId")
        wanted = _text(body, "appRoleId")
        roles = resource.roles if isinstance(resource, Application) else ()
        found = [r for r in roles if role_id(resource, r) == wanted]
        if not found:
            raise _bad("Property 'appRoleId' names no role of the resource.")
        self._directory.grant_roles(client, resource, found)  # type: ignore[arg-type]
        return {"id": new_guid(), **body}

    def _check_sponsors(self, claims: Claims, body: Body) -> None:
        sponsors = body.get("sponsors@odata.bind")
        if not isinstance(sponsors, list) or not sponsors:
            raise _bad("No sponsor specified.")
        for sponsor in sponsors:
            _, _, name = str(sponsor).rpartition("/users/")
            user = self._directory.user(claims["tid"], name)
            if user is None or user.agent_id is not None:
                raise _bad(f"The sponsor '{sponsor}' is no user.")

    def _blueprint(self, name: str, claims: Claims) -> Application:
        draft = self._drafts.get(name.lower())
        if draft is not None and draft.tenant_id == claims["tid"]:
            return draft
        for application in self._directory.applications(claims["tid"]):
            if application.is_blueprint and application.object_id == name.lower():
                return application
        raise GraphError(404, "Request_ResourceNotFound", f"Resource '{name}' does not exist.")

    def _change(self, blueprint: Application, **changes: Any) -> None:
        name = blueprint.object_id
        if name in self._drafts:
            self._drafts[name] = replace(blueprint, **changes)
        else:
            self._directory.update_application(blueprint.tenant_id, blueprint.client_id, **changes)

    def _principal(self, claims: Claims, name: str, member: str) -> Client:
        found = self._directory.principal(claims["tid"], name)
        if found is None:
            raise _bad(f"Property '{member}' names no service principal.")
        return found


def _of_the_family(claims: Claims, anybody: tuple[str, ...], blueprint_id: str) -> None:
    """Demand a permission for every blueprint, or the blueprint's own token."""
    permissions = {*claims.get("roles", ()), *claims.get("scp", "").split()}
    if not permissions & {*anybody} and claims.get("appid") != blueprint_id:
        raise denied()


def _scope(scope: Mapping[str, Any]) -> str:
    try:
        uuid.UUID(_text(scope, "id"))
    except ValueError as error:
        raise _bad("Property 'oauth2PermissionScopes' has a scope whose id is no GUID.") from error
    _text(scope, "adminConsentDisplayName")
    _text(scope, "adminConsentDescription")
    if scope.get("type") not in ("User", "Admin") or scope.get("isEnabled") is not True:
        raise _bad("Property 'oauth2PermissionScopes' has a scope without type, or a disabled one.")
    return _text(scope, "value")


def _body(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError as error:
        raise _bad("Unable to read JSON request payload.") from error
    if not isinstance(body, dict):
        raise _bad("Unable to read JSON request payload.")
    return body


def _text(body: Mapping[str, Any], member: str) -> str:
    value = body.get(member)
    if not isinstance(value, str) or not value.strip():
        raise _bad(f"Property '{member}' is required.")
    return value


def _bad(message: str) -> GraphError:
    return GraphError(400, "Request_BadRequest", message)
