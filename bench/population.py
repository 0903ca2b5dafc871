"""Who lives in the bench's Entra: the emulator's own people, and many agents and users besides.

The permissions are given for every user at once, as an administrator would.
"""

import uuid
from typing import Final

from authz_dev.emulator import Directory, default_directory
from authz_dev.emulator.entities import GRAPH_APP_ID, AgentIdentity, Application, User

AGENTS: Final = 200
"""Agents that nobody has used yet, so that both legs of their first exchange are cold."""
USERS: Final = 1000
APIS: Final = {
    "graph": "https://graph.microsoft.com/.default",
    "orders": "api://orders/.default",
    "inventory": "api://inventory/.default",
}
"""The APIs that agents call for users, by route, with the scope to ask for."""

_PERMISSIONS: Final = {
    "graph": ("User.Read", "email", "offline_access", "openid", "profile"),
    "orders": ("Orders.Read",),
    "inventory": ("Stock.Read",),
}


def populated(*, agents: int = AGENTS, users: int = USERS) -> Directory:
    """Return the directory: `cold-N` agents of the first blueprint, and `user-N` people."""
    directory = default_directory()
    tenant = directory.tenants()[0]
    blueprint = next(app for app in directory.applications(tenant.tenant_id) if app.is_blueprint)
    known = directory.agents(tenant.tenant_id, blueprint.client_id)[:1]
    cold = [
        directory.add_agent(
            AgentIdentity(tenant.tenant_id, str(uuid.uuid4()), blueprint.client_id, f"cold-{i}")
        )
        for i in range(agents)
    ]
    resources = _resources(directory, tenant.tenant_id)
    for agent in (*known, *cold):
        for name, resource in resources.items():
            directory.grant_scopes(agent, resource, _PERMISSIONS[name], None)
    for i in range(users):
        name = f"user-{i}"
        directory.add_user(
            User(tenant.tenant_id, str(uuid.uuid4()), f"{name}@{tenant.domain}", name)
        )
    return directory


def _resources(directory: Directory, tenant_id: str) -> dict[str, Application]:
    names = {"graph": GRAPH_APP_ID, "orders": "api://orders", "inventory": "api://inventory"}
    found = {route: directory.resource(tenant_id, name) for route, name in names.items()}
    return {route: resource for route, resource in found.items() if resource is not None}
