"""The landscape of the demo: who is in the emulated directory, which hosts there are, `authz.yaml`.

Files are written here; nothing is started.
"""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

from authz_dev.emulator import Emulator
from authz_dev.emulator.entities import AgentIdentity, Application, Client

GRAPH_HOSTS: Final = (
    "graph.microsoft.com",
    "directory.contoso.example",
    "office.contoso.example",
)
"""Names under which the emulator's sliver of Microsoft Graph is reached."""

ORDERS_HOSTS: Final = (
    "orders.contoso.example",
    "nightly.orders.contoso.example",
    "desk.orders.contoso.example",
    "reports.orders.contoso.example",
    "billing.orders.contoso.example",
    "payroll.orders.contoso.example",
    "tools.orders.contoso.example",
)
"""Names of the orders API. One per flow, because an egress route is found by its host."""


@dataclass(frozen=True, slots=True)
class Landscape:
    """Who is who in the emulator's first tenant.

    Attributes:
        tenant_id: The tenant.
        agent: The agent identity of this demo.
        agent_user: User principal name of its own user account.
        blueprint: What the agent is made from, and proves itself with.
        reports: An ordinary application without agent identity.
        orders: The orders API.
        names: What every object id and client id is called.
    """

    tenant_id: str
    agent: AgentIdentity
    agent_user: str
    blueprint: Application
    reports: Application
    orders: Application
    names: dict[str, str]

    @classmethod
    def of(cls, emulator: Emulator) -> "Landscape":
        """Find everybody in the emulator's directory."""
        directory = emulator.directory
        tenant = directory.tenants()[0]
        applications = directory.applications(tenant.tenant_id)
        by_name = {application.name: application for application in applications}
        blueprint = next(one for one in applications if one.is_blueprint)
        agents = directory.agents(tenant.tenant_id, blueprint.client_id)
        account = directory.agent_user(tenant.tenant_id, agents[0].client_id)
        assert account is not None
        clients: list[Client] = [*applications, *agents]
        names = {one.client_id: one.name for one in clients}
        names |= {one.principal_id: one.name for one in clients}
        for user in directory.users(tenant.tenant_id):
            person = user.agent_id is None
            names[user.object_id] = user.username.partition("@")[0] if person else user.username
        return cls(
            tenant_id=tenant.tenant_id,
            agent=agents[0],
            agent_user=account.username,
            blueprint=blueprint,
            reports=by_name["reports"],
            orders=by_name["orders"],
            names=names,
        )

    def consent(self, emulator: Emulator) -> None:
        """Let agents of the blueprint change orders for alice2, too."""
        directory = emulator.directory
        users = {self.names[user.object_id]: user for user in directory.users(self.tenant_id)}
        directory.grant_scopes(self.blueprint, self.orders, ["Orders.Write"], users["alice2"])


@dataclass(frozen=True, slots=True)
class Paths:
    """Files of one run, all in one folder that goes away with it."""

    folder: Path

    @property
    def config(self) -> Path:
        """The service's configuration."""
        return self.folder / "authz.yaml"

    @property
    def socket(self) -> Path:
        """Where Envoy reaches the service."""
        return self.folder / "authz.sock"

    @property
    def checks(self) -> Path:
        """Where Envoy asks the service."""
        return self.folder / "checks.sock"

    @property
    def bootstrap(self) -> Path:
        """Envoy's configuration."""
        return self.folder / "envoy.yaml"

    @property
    def entra_ca(self) -> Path:
        """Authority of the emulator's certificate."""
        return self.folder / "ca.pem"

    @property
    def orders_ca(self) -> Path:
        """Authority of the orders API's certificate."""
        return self.folder / "orders-ca.pem"

    @property
    def orders_certificate(self) -> Path:
        """Certificate and key of the orders API."""
        return self.folder / "orders.pem"

    def secret(self, name: str) -> Path:
        """Where the client secret of an application is."""
        return self.folder / f"{name}.secret"

    def log(self, name: str) -> Path:
        """Where the output of a program goes."""
        return self.folder / f"{name}.log"


def write_certificates(paths: Paths) -> None:
    """Make an authority of the demo's own, and a certificate of it for the orders API."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(paths.orders_ca))
    certificate = authority.issue_cert(*ORDERS_HOSTS, "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(paths.orders_certificate))


def write_configuration(
    landscape: Landscape,
    paths: Paths,
    *,
    authority: str,
    agent_url: str,
    admin_port: int,
    references: bool = False,
) -> None:
    """Write `authz.yaml` and the secrets that it refers to.

    Args:
        landscape: Who is who.
        paths: Where files are.
        authority: Entra's address.
        agent_url: What clients call.
        admin_port: Where the service tells of itself.
        references: Whether the agent receives references to its callers, and no tokens.
    """
    for name, application in (("support", landscape.blueprint), ("reports", landscape.reports)):
        paths.secret(name).write_text(application.secrets[0].value)
    carried = "[placeholder, handle]" if references else "[bearer]"
    text = _configuration(landscape, paths, authority, agent_url, admin_port, carried)
    new = paths.config.with_suffix(".new")
    new.write_text(text)
    # The service may look at it at any time.
    new.replace(paths.config)


def _configuration(
    landscape: Landscape,
    paths: Paths,
    authority: str,
    agent_url: str,
    admin_port: int,
    carried: str,
) -> str:
    tenant, blueprint = landscape.tenant_id, landscape.blueprint.client_id
    reports = landscape.reports.client_id
    orders = f"{landscape.orders.identifier_uri}/.default"
    read, write = (
        f"{landscape.orders.identifier_uri}/Orders.{access}" for access in ("Read", "Write")
    )
    graph = "https://graph.microsoft.com"
    return textwrap.dedent(f"""\
        # Written by `authz demo`. Everything in here is what a real deployment has as well; only the
        # addresses lead to this machine.
        listen:
          grpc: unix:{paths.socket}
          checks: unix:{paths.checks}
          admin: 127.0.0.1:{admin_port}

        entra:
          authority: {authority}
          ca_file: {paths.entra_ca}
          # The calls to Entra that a scenario counts are then its own.
          prove_credentials: false
          keys:
            unknown_key_interval: 1s  # so that keys can be rolled by hand, again and again

        blueprints:
          support:
            tenant_id: {tenant}
            client_id: {blueprint}
            audiences: [{blueprint}, "api://{blueprint}", "{agent_url}"]
            credentials: [{{client_secret: {{file: {paths.secret("support")}}}}}]

        agents:
          support-desk:
            blueprint: support
            agent_identity: {landscape.agent.client_id}
            agent_user: {landscape.agent_user}

        applications:
          reports:  # an ordinary app registration, without agent identity
            tenant_id: {tenant}
            client_id: {reports}
            credentials: [{{client_secret: {{file: {paths.secret("reports")}}}}}]

        inbound:
          agent:
            agent: support-desk
            audiences: [{blueprint}, "api://{blueprint}", {reports}, "api://{reports}", "{agent_url}"]
            scopes: [access_agent, access_as_user]
            forward: {carried}
            resource: {agent_url}  # a client that knows only this URL learns where to sign in

        egress:
          graph:
            hosts: [{GRAPH_HOSTS[0]}]
            flow: on_behalf_of
            agent: support-desk
            scopes: ["{graph}/.default"]
          directory:
            hosts: [{GRAPH_HOSTS[1]}]
            flow: blueprint
            blueprint: support
            scopes: ["{graph}/.default"]
            push: false  # asked for each request, so that the tour can count; so below
          office:  # what no rule allows is denied
            hosts: [{GRAPH_HOSTS[2]}]
            flow: on_behalf_of
            agent: support-desk
            scopes: ["{graph}/User.Read"]
            rules:
              - {{name: profile, methods: [GET], paths: [/v1.0/me]}}
              - {{name: mail, methods: [GET], paths: [/v1.0/me/messages], scopes: ["{graph}/Mail.Read"]}}
          orders:
            hosts: [{ORDERS_HOSTS[0]}]
            flow: on_behalf_of
            agent: support-desk
            scopes: ["{orders}"]
            subject: {carried}
          nightly-orders:
            hosts: [{ORDERS_HOSTS[1]}]
            flow: autonomous
            agent: support-desk
            scopes: ["{orders}"]
            push: false
          desk-orders:
            hosts: [{ORDERS_HOSTS[2]}]
            flow: agent_user
            agent: support-desk
            scopes: ["{orders}"]
            push: false
          reports-orders:
            hosts: [{ORDERS_HOSTS[3]}]
            flow: app_on_behalf_of
            application: reports
            scopes: ["{orders}"]
          billing-orders:
            hosts: [{ORDERS_HOSTS[4]}]
            flow: app
            application: reports
            scopes: ["{orders}"]
            push: false
          payroll-orders:  # Envoy has the token before it is needed, and asks nobody
            hosts: [{ORDERS_HOSTS[5]}]
            flow: app
            application: reports
            scopes: ["{landscape.orders.client_id}/.default"]
          order-tools:  # an MCP server: the message says which tool is called
            hosts: [{ORDERS_HOSTS[6]}]
            flow: on_behalf_of
            agent: support-desk
            scopes: ["{read}"]
            mcp: {{paths: [/mcp]}}
            rules:
              - {{name: look, tools: [list_orders]}}
              - {{name: cancel, tools: [cancel_order], scopes: ["{write}"]}}
        """)
