"""The directory as `emulator.json` lists it, secrets included: they are worth nothing elsewhere.

Ids have the names of the walk through Graph (docs/entra.md): `client_id` is the app id, `object_id` the
object id of the application, agent identity or user, and `principal_id` the object id of an application's
service principal, which permissions are granted to and at.
"""

from __future__ import annotations

from typing import Any

from authz_dev.emulator.directory import Directory
from authz_dev.emulator.entities import TOKEN_EXCHANGE_APP_ID, AgentIdentity, Application, Tenant


def describe_tenants(directory: Directory) -> list[dict[str, Any]]:
    """Every tenant with its blueprints, agents, users, applications and APIs."""
    return [_tenant(directory, tenant) for tenant in directory.tenants()]


def _tenant(directory: Directory, tenant: Tenant) -> dict[str, Any]:
    applications = directory.applications(tenant.tenant_id)
    ordinary = [a for a in applications if not a.is_blueprint]
    return {
        "tenant_id": tenant.tenant_id,
        "name": tenant.name,
        "domain": tenant.domain,
        "blueprints": [_blueprint(directory, a) for a in applications if a.is_blueprint],
        "users": [
            {"object_id": user.object_id, "username": user.username}
            for user in directory.users(tenant.tenant_id)
            if user.agent_id is None
        ],
        "apps": [
            {
                **_ids(a),
                "client_secret": a.secrets[0].value,
                "name": a.name,
                "identifier_uri": a.identifier_uri,
            }
            for a in ordinary
            if a.secrets
        ],
        "public_clients": [
            {**_ids(a), "name": a.name, "redirect_uris": list(a.redirect_uris)}
            for a in ordinary
            if a.is_public
        ],
        "apis": [
            {
                **_ids(a),
                "identifier_uri": a.identifier_uri,
                "name": a.name,
                "token_version": a.token_version,
                "scopes": list(a.scopes),
                "roles": list(a.roles),
            }
            for a in ordinary
            if not a.secrets and not a.is_public and a.client_id != TOKEN_EXCHANGE_APP_ID
        ],
    }


def _blueprint(directory: Directory, blueprint: Application) -> dict[str, Any]:
    return {
        **_ids(blueprint),
        "client_secret": blueprint.secrets[0].value if blueprint.secrets else None,
        "name": blueprint.name,
        "identifier_uri": blueprint.identifier_uri,
        "federated_credentials": [
            {"issuer": one.issuer, "subject": one.subject, "audiences": [one.audience]}
            for one in blueprint.federated_credentials
        ],
        "agents": [
            _agent(directory, agent)
            for agent in directory.agents(blueprint.tenant_id, blueprint.client_id)
        ],
    }


def _agent(directory: Directory, agent: AgentIdentity) -> dict[str, Any]:
    user = directory.agent_user(agent.tenant_id, agent.client_id)
    return {
        "client_id": agent.client_id,
        "object_id": agent.principal_id,
        "name": agent.name,
        "agent_user": None if user is None else user.username,
    }


def _ids(application: Application) -> dict[str, str]:
    return {
        "client_id": application.client_id,
        "object_id": application.object_id,
        "principal_id": application.principal_id,
    }
