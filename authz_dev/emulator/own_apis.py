"""APIs that the command line adds to the first tenant, beside those of `population`.

Who may call `orders` may call them: the same clients, for the same users.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Final

from authz_dev.emulator.directory import Directory
from authz_dev.emulator.entities import AGENT_CLAIMS, Application, Client

_MODEL: Final = "api://orders"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|(?:api|https)://[^\s/?#]+(?:/[^\s/?#]+)*")
_PERMISSION: Final = re.compile(r"[A-Za-z0-9_][^\s,\"\\]*")


class ApiError(ValueError):
    """An API that cannot be added; the message names it."""


def add_api(directory: Directory, name: str, scopes: str, roles: str) -> Application:
    """Add an API to the first tenant, and give consent and roles as `orders` has them.

    Its ids depend on the tenant and on `name` alone: the same seed gives the same ones.

    Args:
        directory: Gets the API.
        name: Its name; `api://NAME` is then its identifier URI. Or that URI itself.
        scopes: Values of its scopes (delegated permissions), divided by commas; may be empty.
        roles: Values of its app roles (application permissions), likewise.

    Raises:
        ApiError: The name is taken, or one of the values is no name.
    """
    if _NAME.fullmatch(name) is None:
        raise ApiError(f"{name}: must be a name such as billing, or an identifier URI")
    uri = name if "://" in name else f"api://{name}"
    tenant_id = directory.tenants()[0].tenant_id
    if directory.resource(tenant_id, uri) is not None:
        raise ApiError(f"{name}: the tenant has {uri} already")
    client_id, principal_id = (
        str(uuid.uuid5(uuid.UUID(tenant_id), f"{kind} {uri.lower()}"))
        for kind in ("API", "principal")
    )
    api = directory.add_application(
        Application(
            tenant_id,
            client_id,
            principal_id,
            name,
            identifier_uris=(uri,),
            optional_claims=AGENT_CLAIMS,
            scopes=_permissions(name, scopes),
            roles=_permissions(name, roles),
        )
    )
    _grant(directory, api)
    return api


def _permissions(api: str, listed: str) -> tuple[str, ...]:
    values = tuple(dict.fromkeys(value.strip() for value in listed.split(",") if value.strip()))
    for value in values:
        if _PERMISSION.fullmatch(value) is None:
            raise ApiError(f"{api}: {value} is no name of a scope or a role, such as Bills.Read")
    return values


def _grant(directory: Directory, api: Application) -> None:
    model = directory.resource(api.tenant_id, _MODEL)
    assert model is not None
    for client in _clients(directory, api.tenant_id):
        if directory.application_roles(client, model):
            directory.grant_roles(client, api, api.roles)
        for user in directory.users(api.tenant_id):
            if directory.delegated_scopes(client, model, user):
                directory.grant_scopes(client, api, api.scopes, user)


def _clients(directory: Directory, tenant_id: str) -> Iterator[Client]:
    applications: Iterable[Application] = directory.applications(tenant_id)
    for application in applications:
        yield application
        if application.is_blueprint:
            yield from directory.agents(tenant_id, application.client_id)
