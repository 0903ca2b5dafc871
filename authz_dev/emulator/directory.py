"""The emulator's directory: who and what exists, who may do what, and the changes tests make.

Reads and writes are safe from any thread. What the things look like is in `entities`; the default
population is in `population`.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cryptography import x509

from authz_dev.emulator.entities import (
    AGENT_CLAIMS,
    EXTENDED_CLAIMS,
    GRAPH_APP_ID,
    GRAPH_URI,
    TOKEN_EXCHANGE_APP_ID,
    TOKEN_EXCHANGE_URI,
    AgentIdentity,
    Application,
    Client,
    FederatedCredential,
    Secret,
    Tenant,
    User,
)

_GRAPH_SCOPES = ("Application.Read.All", "Mail.Read", "Mail.Send", "User.Read", "User.Read.All")
_GRAPH_ROLES = (
    "AgentIdUser.ReadWrite.IdentityParentedBy",
    "AgentIdentity.CreateAsManager",
    "Application.Read.All",
    "Mail.Read",
    "User.Read.All",
)


def new_guid() -> str:
    """A random GUID in the form Entra prints it."""
    return str(uuid.uuid4())


class Directory:
    """Tenants with their applications, agent identities, users and permission grants.

    Look-ups answer None for what does not exist; changes raise KeyError.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tenants: dict[str, Tenant] = {}
        self._applications: dict[tuple[str, str], Application] = {}
        self._resources: dict[tuple[str, str], str] = {}
        self._agents: dict[tuple[str, str], AgentIdentity] = {}
        self._users: dict[tuple[str, str], User] = {}
        self._scopes: dict[tuple[str, str, str, str | None], frozenset[str]] = {}
        self._roles: dict[tuple[str, str, str], frozenset[str]] = {}

    # Additions

    def add_tenant(self, tenant: Tenant) -> Tenant:
        """Add a tenant; Microsoft Graph and the token-exchange resource come with it."""
        self._tenants[tenant.tenant_id] = tenant
        self.add_application(
            Application(
                tenant.tenant_id,
                GRAPH_APP_ID,
                str(uuid.uuid5(uuid.UUID(tenant.tenant_id), GRAPH_APP_ID)),
                "Microsoft Graph",
                identifier_uris=(GRAPH_URI,),
                token_version=1,
                optional_claims=AGENT_CLAIMS | EXTENDED_CLAIMS,
                scopes=_GRAPH_SCOPES,
                roles=_GRAPH_ROLES,
            )
        )
        self.add_application(
            Application(
                tenant.tenant_id,
                TOKEN_EXCHANGE_APP_ID,
                str(uuid.uuid5(uuid.UUID(tenant.tenant_id), TOKEN_EXCHANGE_APP_ID)),
                "AAD Token Exchange Endpoint: Public",
                identifier_uris=(TOKEN_EXCHANGE_URI,),
                optional_claims=AGENT_CLAIMS - {"xms_tnt_fct"},
            )
        )
        return tenant

    def add_application(self, application: Application) -> Application:
        """Add (or replace) an application: client, API or blueprint."""
        with self._lock:
            self._applications[application.tenant_id, application.client_id] = application
            for name in (application.client_id, *application.identifier_uris):
                key = application.tenant_id, name.lower()
                self._resources[key] = application.client_id
        return application

    def add_agent(self, agent: AgentIdentity) -> AgentIdentity:
        """Add (or replace) an agent identity; its blueprint must be there."""
        blueprint = self._applications[agent.tenant_id, agent.blueprint_id]
        if not blueprint.is_blueprint:
            raise KeyError(agent.blueprint_id)
        self._agents[agent.tenant_id, agent.client_id] = agent
        return agent

    def add_user(self, user: User) -> User:
        """Add (or replace) a user, or an agent's user account (`agent_id`)."""
        with self._lock:
            self._users[user.tenant_id, user.object_id] = user
            self._users[user.tenant_id, user.username.lower()] = user
        return user

    # Look-ups

    def tenants(self) -> tuple[Tenant, ...]:
        """All tenants, in the order of their addition."""
        return tuple(self._tenants.values())

    def tenant(self, name: str) -> Tenant | None:
        """The tenant of this GUID or verified domain."""
        found = self._tenants.get(name.lower())
        if found is None:
            found = next((t for t in self.tenants() if t.domain == name.lower()), None)
        return found

    def applications(self, tenant_id: str) -> tuple[Application, ...]:
        """All applications of a tenant: clients, APIs and blueprints."""
        with self._lock:
            return tuple(a for a in self._applications.values() if a.tenant_id == tenant_id)

    def agents(self, tenant_id: str, blueprint_id: str) -> tuple[AgentIdentity, ...]:
        """The agent identities of a blueprint."""
        with self._lock:
            found = tuple(self._agents.values())
        return tuple(a for a in found if (a.tenant_id, a.blueprint_id) == (tenant_id, blueprint_id))

    def users(self, tenant_id: str) -> tuple[User, ...]:
        """All users of a tenant, agents' user accounts included."""
        with self._lock:
            found = dict.fromkeys(self._users.values())
        return tuple(u for u in found if u.tenant_id == tenant_id)

    def application(self, tenant_id: str, client_id: str) -> Application | None:
        """The application of this client id."""
        return self._applications.get((tenant_id, client_id.lower()))

    def agent(self, tenant_id: str, client_id: str) -> AgentIdentity | None:
        """The agent identity of this client id."""
        return self._agents.get((tenant_id, client_id.lower()))

    def client(self, tenant_id: str, client_id: str) -> Client | None:
        """The application or agent identity of this client id."""
        return self.agent(tenant_id, client_id) or self.application(tenant_id, client_id)

    def principal(self, tenant_id: str, object_id: str) -> Client | None:
        """The application or agent identity whose service principal has this object id."""
        applications = self.applications(tenant_id)
        found = (a for a in applications if a.principal_id == object_id.lower())
        return self.agent(tenant_id, object_id) or next(found, None)

    def resource(self, tenant_id: str, name: str) -> Application | None:
        """The application that `name` (client id or identifier URI, any case) stands for."""
        client_id = self._resources.get((tenant_id, name.rstrip("/").lower()))
        return None if client_id is None else self._applications.get((tenant_id, client_id))

    def user(self, tenant_id: str, name: str) -> User | None:
        """The user of this object id or user principal name."""
        return self._users.get((tenant_id, name.lower()))

    def agent_user(self, tenant_id: str, agent_id: str) -> User | None:
        """The user account of an agent identity."""
        return next((u for u in self.users(tenant_id) if u.agent_id == agent_id), None)

    def delegated_scopes(self, client: Client, resource: Application, user: User) -> frozenset[str]:
        """What `client` may do at `resource` for `user`: own, all-principals' and inherited."""
        holders = [client.client_id]
        if isinstance(client, AgentIdentity):
            blueprint = self._applications[client.tenant_id, client.blueprint_id]
            if resource.client_id in blueprint.inheritable:
                holders.append(blueprint.client_id)
        nothing: frozenset[str] = frozenset()
        granted = (
            self._scopes.get((client.tenant_id, holder, resource.client_id, principal), nothing)
            for holder in holders
            for principal in (user.object_id, None)
        )
        return nothing.union(*granted)

    def application_roles(self, client: Client, resource: Application) -> frozenset[str]:
        """App roles of `client` at `resource`: own and inherited."""
        own = self._roles.get(
            (client.tenant_id, client.client_id, resource.client_id), frozenset[str]()
        )
        if isinstance(client, AgentIdentity):
            blueprint = self._applications[client.tenant_id, client.blueprint_id]
            if resource.client_id in blueprint.inheritable:
                own |= self.application_roles(blueprint, resource)
        return own

    # Changes

    def grant_scopes(
        self, client: Client, resource: Application, scopes: Iterable[str], user: User | None
    ) -> None:
        """Consent: `client` may use `scopes` of `resource` for `user` (None: every principal)."""
        key = self._scope_key(client, resource, user)
        with self._lock:
            self._scopes[key] = self._scopes.get(key, frozenset()) | frozenset(scopes)

    def revoke_scopes(
        self, client: Client, resource: Application, scopes: Iterable[str], user: User | None
    ) -> None:
        """Take back consent that was given to a user; without one, everybody's: nobody's is left."""
        key = self._scope_key(client, resource, user)
        with self._lock:
            keys = (
                [key]
                if user is not None
                else [each for each in self._scopes if each[:-1] == key[:-1]]
            )
            for each in keys:
                self._scopes[each] = self._scopes.get(each, frozenset()) - frozenset(scopes)

    def grant_roles(self, client: Client, resource: Application, roles: Iterable[str]) -> None:
        """Assign app roles of `resource` to `client`."""
        key = client.tenant_id, client.client_id, resource.client_id
        with self._lock:
            self._roles[key] = self._roles.get(key, frozenset()) | frozenset(roles)

    def update_user(self, tenant_id: str, name: str, **changes: Any) -> User:
        """Change fields of a user, e.g. `disabled=True`; `name` is a UPN or object id."""
        with self._lock:
            return self.add_user(replace(self._users[tenant_id, name.lower()], **changes))

    def update_application(self, tenant_id: str, client_id: str, **changes: Any) -> Application:
        """Change fields of an application, e.g. `disabled=True` or `secrets=(...)`."""
        with self._lock:
            return self.add_application(
                replace(self._applications[tenant_id, client_id], **changes)
            )

    def update_agent(self, tenant_id: str, client_id: str, **changes: Any) -> AgentIdentity:
        """Change fields of an agent identity, e.g. `disabled=True`."""
        with self._lock:
            return self.add_agent(replace(self._agents[tenant_id, client_id], **changes))

    def add_secret(self, application: Application, secret: Secret) -> Application:
        """Let one more secret prove the application."""
        now = self._applications[application.tenant_id, application.client_id]
        return self.update_application(now.tenant_id, now.client_id, secrets=(*now.secrets, secret))

    def add_certificate(
        self, application: Application, certificate: x509.Certificate
    ) -> Application:
        """Let assertions signed with this certificate's key prove the application."""
        now = self._applications[application.tenant_id, application.client_id]
        return self.update_application(
            now.tenant_id, now.client_id, certificates=(*now.certificates, certificate)
        )

    def add_federated_credential(
        self, application: Application, credential: FederatedCredential
    ) -> Application:
        """Let tokens of a foreign issuer prove the application."""
        now = self._applications[application.tenant_id, application.client_id]
        return self.update_application(
            now.tenant_id,
            now.client_id,
            federated_credentials=(*now.federated_credentials, credential),
        )

    @staticmethod
    def _scope_key(
        client: Client, resource: Application, user: User | None
    ) -> tuple[str, str, str, str | None]:
        principal = None if user is None else user.object_id
        return client.tenant_id, client.client_id, resource.client_id, principal
