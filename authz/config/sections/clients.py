"""Sections `blueprints`, `applications` and `agents`, and the credentials that clients hold.

Credentials are references: a file, the name of an environment variable, a certificate in a vault. No key
takes a secret. What they refer to is read by `authz.entra`.
"""

from typing import Annotated, Any, ClassVar, Final

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from authz.config.sections.section import Section, environ_of
from authz.config.sections.values import (
    GUID,
    USER_PRINCIPAL_NAME,
    Audience,
    EnvironmentName,
    Expected,
    File,
    Guid,
    Name,
    Scalar,
    SpiffeId,
    Switch,
    VaultName,
    VaultUrl,
)
from authz.core.exchange import AgentUser

FEDERATED_TOKEN_FILE: Final = "AZURE_FEDERATED_TOKEN_FILE"
CERTIFICATE_FILE: Final = "AUTHZ_CERTIFICATE_FILE"
CLIENT_SECRET_FILE: Final = "AUTHZ_CLIENT_SECRET_FILE"


class _CredentialSection(Section):
    kind: ClassVar[str]

    @model_serializer(mode="wrap")
    def _under_its_key(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {self.kind: dump(self)}


class ClientSecret(_CredentialSection):
    """A client secret. For development; a federated token leaves no secret to keep."""

    kind = "client_secret"
    file: File | None = Field(default=None, description="File that holds the secret.")
    env: EnvironmentName | None = Field(
        default=None, description="Environment variable that holds the secret."
    )

    @model_validator(mode="after")
    def _name_one_source(self) -> "ClientSecret":
        if (self.file is None) == (self.env is None):
            raise Expected("expected one of file and env; the secret itself is never written here")
        return self


class Certificate(_CredentialSection):
    """A certificate with its private key, which signs the client assertion."""

    kind = "certificate"
    file: File | None = Field(
        default=None, description="Certificate and private key: PEM, or PKCS #12 (`.pfx`)."
    )
    env: EnvironmentName | None = Field(
        default=None,
        description="Environment variable that holds them: PEM text, or PKCS #12 in base64.",
    )
    password_file: File | None = Field(
        default=None, description="File that holds the password of the private key."
    )
    password_env: EnvironmentName | None = Field(
        default=None, description="Environment variable that holds that password."
    )
    send_x5c: Switch = Field(
        default=False,
        description="Send the certificate chain along (subject name and issuer authentication).",
    )

    @model_validator(mode="after")
    def _name_one_source(self) -> "Certificate":
        if (self.file is None) == (self.env is None):
            raise Expected("expected one of file and env")
        if self.password_file is not None and self.password_env is not None:
            raise Expected("expected at most one of password_file and password_env")
        return self


class KeyVault(_CredentialSection):
    """A certificate with its private key that Azure Key Vault holds. Needs the extra `key-vault`.

    The host's managed identity, the pod's workload identity or a client of the `AZURE_…` variables reads
    it, and needs the role Key Vault Secrets User. The key has to be RSA and exportable.
    """

    kind = "key_vault"
    url: VaultUrl = Field(description="The vault, such as `https://NAME.vault.azure.net`.")
    certificate: VaultName = Field(
        description="Name of the certificate. Its newest version is fetched when it is first needed, "
        "and again every ten minutes."
    )
    client_id: Guid | None = Field(
        default=None,
        description="Client id of the user-assigned identity that reads it. Default: the value of the "
        "environment variable `AZURE_CLIENT_ID`, else the system-assigned identity.",
    )
    send_x5c: Switch = Field(
        default=False,
        description="Send the certificate chain along (subject name and issuer authentication).",
    )


class FederatedToken(_CredentialSection):
    """A token of another issuer that Entra trusts, read again for each assertion."""

    kind = "federated_token"
    file: File = Field(
        description="File that holds the token, such as a projected service account token. "
        f"Default: the value of the environment variable `{FEDERATED_TOKEN_FILE}`.",
        json_schema_extra={"x-default": f"`${FEDERATED_TOKEN_FILE}`"},
    )

    @model_validator(mode="before")
    @classmethod
    def _take_file_from_environment(cls, data: Any, info: ValidationInfo) -> Any:
        file = environ_of(info).get(FEDERATED_TOKEN_FILE)
        if file and isinstance(data, dict) and data.get("file") is None:
            return {**data, "file": file}
        return data


class ManagedIdentity(_CredentialSection):
    """A token of the host's managed identity, as client assertion."""

    kind = "managed_identity"
    client_id: Guid | None = Field(
        default=None,
        description="Client id of a user-assigned identity. Default: the system-assigned one.",
    )


Credential = ClientSecret | Certificate | KeyVault | FederatedToken | ManagedIdentity
CREDENTIAL_KINDS: Final = tuple(
    credential.kind
    for credential in (ClientSecret, Certificate, KeyVault, FederatedToken, ManagedIdentity)
)


def _kind_of(value: Any) -> str | None:
    if isinstance(value, _CredentialSection):
        return value.kind
    return next(iter(value)) if isinstance(value, dict) else None


def _one_key(value: Any) -> Any:
    if isinstance(value, _CredentialSection):
        return value
    if not isinstance(value, dict) or len(value) != 1 or _kind_of(value) not in CREDENTIAL_KINDS:
        raise Expected(f"expected a mapping with one key, one of {', '.join(CREDENTIAL_KINDS)}")
    return value


def _body(value: Any) -> Any:
    if isinstance(value, _CredentialSection):
        return value
    (kind, body), *_ = value.items()
    if kind == ClientSecret.kind and not isinstance(body, dict):
        raise Expected("a secret is never written here: expected {file: PATH} or {env: NAME}")
    return {} if body is None else body


class _OneKeyForm:
    """Describes the union in JSON Schema as it is written: a mapping with one key."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        options = handler(schema)["oneOf"]
        return {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
            "properties": dict(zip(CREDENTIAL_KINDS, options, strict=True)),
            "x-kind": "credential",
        }


CredentialEntry = Annotated[
    Annotated[ClientSecret, BeforeValidator(_body), Tag(ClientSecret.kind)]
    | Annotated[Certificate, BeforeValidator(_body), Tag(Certificate.kind)]
    | Annotated[KeyVault, BeforeValidator(_body), Tag(KeyVault.kind)]
    | Annotated[FederatedToken, BeforeValidator(_body), Tag(FederatedToken.kind)]
    | Annotated[ManagedIdentity, BeforeValidator(_body), Tag(ManagedIdentity.kind)],
    Discriminator(_kind_of),
    _OneKeyForm(),
    BeforeValidator(_one_key),
]


class Application(Section):
    """An application registration that holds credentials."""

    tenant_id: Guid = Field(description="Tenant in which it gets its tokens.")
    client_id: Guid = Field(description="Application (client) id.")
    audiences: tuple[Audience, ...] | None = Field(
        default=None,
        min_length=1,
        description="Accepted `aud` values of the users' tokens it exchanges.",
        json_schema_extra={"x-default": "`[CLIENT_ID, api://CLIENT_ID]`"},
    )
    credentials: tuple[CredentialEntry, ...] = Field(
        min_length=1,
        description="How it proves itself, tried in order. May be left out when one of these environment "
        f"variables names a file: `{CERTIFICATE_FILE}` (then it is a `certificate`), "
        f"`{CLIENT_SECRET_FILE}` (`client_secret`), `{FEDERATED_TOKEN_FILE}` (`federated_token`). The first "
        "of them that is set counts, for every client without credentials.",
        json_schema_extra={"x-default": "by the environment"},
    )

    @model_validator(mode="before")
    @classmethod
    def _take_credential_from_environment(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict) or data.get("credentials") is not None:
            return data
        environ = environ_of(info)
        # Ours first: the third is also set by webhooks, in pods that never asked for it.
        for variable, kind in (
            (CERTIFICATE_FILE, Certificate.kind),
            (CLIENT_SECRET_FILE, ClientSecret.kind),
        ):
            if file := environ.get(variable):
                return {**data, "credentials": [{kind: {"file": file}}]}
        if FEDERATED_TOKEN_FILE in environ:
            return {**data, "credentials": [{FederatedToken.kind: {}}]}
        return data

    @property
    def accepted_audiences(self) -> tuple[str, ...]:
        """The `aud` values of tokens that are meant for this application.

        v2 tokens carry the client id, v1 tokens the client id or the URI that was asked for (Entra
        page "access-token-claims-reference").
        """
        return self.audiences or (self.client_id, f"api://{self.client_id}")


class Blueprint(Application):
    """An agent identity blueprint: its credentials vouch for its agent identities."""

    any_agent: Switch = Field(
        default=False,
        description="Whether callers of `listen.api` may name any agent identity of this blueprint, and "
        "any user account of it, and not only those under `agents`. Anyone who reaches the API may then act "
        "as each of them.",
    )


def _agent_user(value: Any) -> AgentUser:
    if isinstance(value, AgentUser):
        return value
    if isinstance(value, str):
        value = {"username" if "@" in value else "object_id": value}
    if isinstance(value, dict) and len(value) == 1:
        if "username" in value:
            return AgentUser(username=USER_PRINCIPAL_NAME.read(value["username"]))
        if "object_id" in value:
            return AgentUser(object_id=GUID.read(value["object_id"]))
    raise Expected("expected a user principal name, an object id, or one of username and object_id")


_AGENT_USER: Final = Scalar(
    _agent_user,
    {
        "anyOf": [
            USER_PRINCIPAL_NAME.schema,
            GUID.schema,
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
                "properties": {"username": USER_PRINCIPAL_NAME.schema, "object_id": GUID.schema},
            },
        ],
        "x-kind": "user principal name or object id",
    },
)


class Agent(Section):
    """An agent identity: a service principal without credentials of its own."""

    blueprint: Name = Field(description="Name of its blueprint under `blueprints`.")
    agent_identity: Guid = Field(description="Application id of the agent identity.")
    agent_user: Annotated[AgentUser, _AGENT_USER] | None = Field(
        default=None,
        description="The agent's own user account, for flow `agent_user`: user principal name, "
        "object id, or a mapping with one of `username` and `object_id`.",
    )
    workloads: tuple[SpiffeId, ...] = Field(
        default=(),
        description="Workloads that may act as this agent. Empty: anyone who reaches the listener, "
        "which is right for a sidecar only.",
    )
