"""The default population of the directory: two tenants with something for every flow.

The first tenant has two blueprints with two agents each (the first agent of each has a user
account), a user-facing client, a web API, two custom APIs, and people who differ in what goes wrong
for them. The second one is there so that tokens can be taken to the wrong tenant.
"""

from __future__ import annotations

import base64
import random
import uuid

from authz_dev.emulator.directory import Directory
from authz_dev.emulator.entities import (
    AGENT_CLAIMS,
    GRAPH_APP_ID,
    GRAPH_URI,
    AgentIdentity,
    Application,
    Client,
    Secret,
    Tenant,
    User,
)

_SIGN_IN_SCOPES = ("email", "offline_access", "openid", "profile")


class _Builder:
    """Adds named things to a directory, taking every GUID and secret from one random source."""

    def __init__(self, directory: Directory, randomness: random.Random) -> None:
        self.directory = directory
        self._randomness = randomness

    def guid(self) -> str:
        return str(uuid.UUID(int=self._randomness.getrandbits(128), version=4))

    def secret(self) -> Secret:
        return Secret(base64.urlsafe_b64encode(self._randomness.randbytes(30)).decode())

    def tenant(self, name: str, domain: str) -> Tenant:
        return self.directory.add_tenant(Tenant(self.guid(), domain, name, self.guid()))

    def user(
        self, tenant: Tenant, name: str, *, mfa_required: bool = False, disabled: bool = False
    ) -> User:
        return self.directory.add_user(
            User(
                tenant.tenant_id,
                self.guid(),
                f"{name}@{tenant.domain}",
                name.capitalize(),
                mfa_required=mfa_required,
                disabled=disabled,
            )
        )

    def blueprint(self, tenant: Tenant, name: str) -> Application:
        client_id = self.guid()
        blueprint = self.directory.add_application(
            Application(
                tenant.tenant_id,
                client_id,
                self.guid(),
                f"{name} blueprint",
                is_blueprint=True,
                secrets=(self.secret(),),
                identifier_uris=(f"api://{client_id}",),
                scopes=("access_agent",),
            )
        )
        # Entra gives every blueprint the permission to create its children.
        graph = self.directory.resource(tenant.tenant_id, GRAPH_URI)
        assert graph is not None
        self.directory.grant_roles(blueprint, graph, ["AgentIdentity.CreateAsManager"])
        return blueprint

    def agent(self, blueprint: Application, name: str) -> AgentIdentity:
        return self.directory.add_agent(
            AgentIdentity(blueprint.tenant_id, self.guid(), blueprint.client_id, name)
        )

    def agent_user(self, agent: AgentIdentity, domain: str) -> User:
        return self.directory.add_user(
            User(
                agent.tenant_id,
                self.guid(),
                f"{agent.name}@{domain}",
                agent.name,
                agent_id=agent.client_id,
            )
        )

    def web_app(self, tenant: Tenant, name: str, scopes: tuple[str, ...] = ()) -> Application:
        client_id = self.guid()
        return self.directory.add_application(
            Application(
                tenant.tenant_id,
                client_id,
                self.guid(),
                name,
                secrets=(self.secret(),),
                identifier_uris=(f"api://{client_id}",),
                scopes=scopes,
            )
        )

    def public_client(self, tenant: Tenant, name: str, redirect_uri: str) -> Application:
        return self.directory.add_application(
            Application(
                tenant.tenant_id,
                self.guid(),
                self.guid(),
                name,
                redirect_uris=(redirect_uri,),
                is_public=True,
            )
        )

    def api(
        self,
        tenant: Tenant,
        name: str,
        *,
        scopes: tuple[str, ...],
        roles: tuple[str, ...],
        token_version: int,
        optional_claims: frozenset[str] = frozenset(),
    ) -> Application:
        return self.directory.add_application(
            Application(
                tenant.tenant_id,
                self.guid(),
                self.guid(),
                name,
                identifier_uris=(f"api://{name}",),
                token_version=token_version,
                optional_claims=optional_claims,
                scopes=scopes,
                roles=roles,
            )
        )


def default_directory(seed: int | None = None) -> Directory:
    """A freshly populated directory; the same `seed` gives the same GUIDs and secrets."""
    directory = Directory()
    randomness = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311 - repeatable on request
    builder = _Builder(directory, randomness)
    _first_tenant(builder)
    _second_tenant(builder)
    return directory


def _first_tenant(builder: _Builder) -> None:
    tenant = builder.tenant("Contoso", "contoso.example")
    directory = builder.directory
    people = [
        builder.user(tenant, "alice"),
        builder.user(tenant, "alice2"),
        builder.user(tenant, "alice3"),
        builder.user(tenant, "carol", mfa_required=True),
        builder.user(tenant, "dave", disabled=True),
    ]
    # No agent and no API may act for Bob. He can sign in.
    bob = builder.user(tenant, "bob")

    portal = builder.web_app(tenant, "portal")
    portal = directory.update_application(
        tenant.tenant_id,
        portal.client_id,
        redirect_uris=("https://portal.contoso.example/signed-in", "http://localhost/signed-in"),
    )
    reports = builder.web_app(tenant, "reports", scopes=("access_as_user",))
    orders = _orders(builder, tenant)
    inventory = builder.api(
        tenant,
        "inventory",
        scopes=("Stock.Read",),
        roles=("Stock.Read.All",),
        token_version=1,
    )
    graph = directory.resource(tenant.tenant_id, GRAPH_APP_ID)
    assert graph is not None

    for name in ("support", "sales"):
        blueprint = builder.blueprint(tenant, name)
        # Orders permissions reach the agents through the blueprint, the others are granted to each.
        blueprint = directory.update_application(
            tenant.tenant_id, blueprint.client_id, inheritable=frozenset({orders.client_id})
        )
        first = builder.agent(blueprint, f"{name}-desk")
        second = builder.agent(blueprint, f"{name}-clerk")
        account = builder.agent_user(first, tenant.domain)
        for user in (*people, account):
            directory.grant_scopes(blueprint, orders, ["Orders.Read"], user)
            for agent in (first, second):
                _consent(directory, agent, graph, ("Mail.Read", "User.Read"), user)
                directory.grant_scopes(agent, inventory, ["Stock.Read"], user)
        directory.grant_roles(blueprint, orders, ["Orders.Read.All"])
        directory.grant_roles(first, graph, ["Application.Read.All", "User.Read.All"])
        directory.grant_roles(first, inventory, ["Stock.Read.All"])

    directory.grant_roles(reports, orders, ["Orders.Read.All"])
    for user in people:
        directory.grant_scopes(reports, orders, ["Orders.Read"], user)
        _consent(directory, reports, graph, ("User.Read",), user)

    # Last, so that a seed gives all others the identifiers that it always gave them.
    terminal = builder.public_client(tenant, "terminal", "http://localhost")
    for application in directory.applications(tenant.tenant_id):
        if application.is_blueprint:
            for user in (*people, bob):
                for client in (portal, terminal):
                    directory.grant_scopes(client, application, ["access_agent"], user)


def _second_tenant(builder: _Builder) -> None:
    tenant = builder.tenant("Fabrikam", "fabrikam.example")
    directory = builder.directory
    erin = builder.user(tenant, "erin")
    builder.web_app(tenant, "portal")
    orders = _orders(builder, tenant)
    graph = directory.resource(tenant.tenant_id, GRAPH_APP_ID)
    assert graph is not None
    blueprint = builder.blueprint(tenant, "support")
    agent = builder.agent(blueprint, "support-desk")
    account = builder.agent_user(agent, tenant.domain)
    for user in (erin, account):
        directory.grant_scopes(agent, orders, ["Orders.Read"], user)
        _consent(directory, agent, graph, ("User.Read",), user)
    directory.grant_roles(agent, graph, ["Application.Read.All"])
    directory.grant_roles(agent, orders, ["Orders.Read.All"])


def _orders(builder: _Builder, tenant: Tenant) -> Application:
    return builder.api(
        tenant,
        "orders",
        scopes=("Orders.Read", "Orders.Write"),
        roles=("Orders.Read.All",),
        token_version=2,
        optional_claims=AGENT_CLAIMS,
    )


def _consent(
    directory: Directory,
    client: Client,
    graph: Application,
    permissions: tuple[str, ...],
    user: User,
) -> None:
    directory.grant_scopes(client, graph, (*permissions, *_SIGN_IN_SCOPES), user)
