"""What a tenant holds: applications, agent identities, users and their credentials, as plain values.

No lookups and no state changes: those are in `directory`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

GRAPH_APP_ID = "00000003-0000-0000-c000-000000000000"
"""Microsoft Graph, the same application id in every tenant."""

GRAPH_URI = "https://graph.microsoft.com"

TOKEN_EXCHANGE_APP_ID = "fb60f99c-7a34-4190-8149-302f77469936"
"""The resource "AAD Token Exchange Endpoint: Public": audience of T1 and T2."""

TOKEN_EXCHANGE_URI = "api://AzureADTokenExchange"

AGENT_CLAIMS = frozenset(
    {
        "idtyp",
        "xms_act_fct",
        "xms_sub_fct",
        "xms_tnt_fct",
        "xms_par_app_azp",
        "xms_idrel",
    }
)
"""Claims that tell an agent from a person; optional claims for every API but Microsoft Graph."""

EXTENDED_CLAIMS = frozenset(
    {
        "acrs",
        "app_displayname",
        "wids",
        "xms_acd",
        "xms_cc",
        "xms_rd",
        "xms_st",
        "xms_tcdt",
    }
)
"""Further claims that only Microsoft Graph gets without asking."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A client secret; `expires_at` in Unix seconds, None for never."""

    value: str = field(repr=False)
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class FederatedCredential:
    """A federated identity credential: which foreign token may act as this application's proof.

    `keys` stands for the foreign issuer's JWKS: key id to public key. It is ignored (and may be
    empty) when the issuer is a tenant of the emulator itself, as with managed identities.
    """

    issuer: str
    subject: str
    audience: str = TOKEN_EXCHANGE_URI
    keys: Mapping[str, RSAPublicKey] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tenant:
    """One directory; `policy_id` is what its claims challenges name."""

    tenant_id: str
    domain: str
    name: str
    policy_id: str


@dataclass(frozen=True, slots=True)
class Application:
    """An application with its principal in one tenant: client, resource, or both.

    `token_version` is Entra's requestedAccessTokenVersion: it decides the claims of every token
    made *for* this application. `inheritable` names the resource applications whose permissions
    the children of a blueprint inherit. `redirect_uris` is where people who signed in are sent; a
    loopback address without port admits every port. `is_public`: a public client (RFC 6749, section
    2.1), which has no credential.
    """

    tenant_id: str
    client_id: str
    principal_id: str
    name: str
    is_blueprint: bool = False
    secrets: tuple[Secret, ...] = ()
    certificates: tuple[x509.Certificate, ...] = ()
    federated_credentials: tuple[FederatedCredential, ...] = ()
    identifier_uris: tuple[str, ...] = ()
    token_version: int = 2
    optional_claims: frozenset[str] = frozenset()
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    assignment_required: bool = False
    inheritable: frozenset[str] = frozenset()
    disabled: bool = False
    redirect_uris: tuple[str, ...] = ()
    is_public: bool = False

    @property
    def object_id(self) -> str:
        """The object id of the application, which Graph's paths take; `client_id` is its app id."""
        return str(uuid.uuid5(uuid.UUID(self.tenant_id), f"application {self.client_id}"))

    @property
    def identifier_uri(self) -> str:
        """The first identifier URI, or the client id when there is none."""
        return self.identifier_uris[0] if self.identifier_uris else self.client_id


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """A child of a blueprint: a service principal without credentials (object id = client id)."""

    tenant_id: str
    client_id: str
    blueprint_id: str
    name: str
    disabled: bool = False

    @property
    def principal_id(self) -> str:
        """The object id, which equals the client id."""
        return self.client_id


@dataclass(frozen=True, slots=True)
class User:
    """A person, or (with `agent_id`) an agent's own user account.

    `mfa_required`: Conditional Access asks for a second factor on every resource.
    `sessions_valid_from`: tokens and refresh tokens issued before it are revoked (Unix seconds).
    """

    tenant_id: str
    object_id: str
    username: str
    name: str
    agent_id: str | None = None
    disabled: bool = False
    mfa_required: bool = False
    sessions_valid_from: float = 0.0


Client = Application | AgentIdentity
