"""The environment keys of the Entra SDK sidecar, and what becomes of each here.

A key is read, or it has no effect (a notice), or it is refused (a fault) because leaving it out would
give another token, or admit another caller, than its author meant. The reading is in `environment`.
"""

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Final

SECTIONS: Final = (
    "AzureAd", "DownstreamApis", "Sidecar", "Logging", "Kestrel", "TokenCache",
    "TokenDecryptionCredentialsDescription",
)  # fmt: skip
"""First parts of the keys that are the sidecar's."""

_SAME_SECTION: Final = 0.9
_SAME_WORD: Final = 0.8


class Use(StrEnum):
    """What becomes of a key."""

    READ = "read"
    IGNORED = "no effect"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the sidecar, or a family of keys.

    Attributes:
        name: As documented; `N` stands for a number, `NAME` for a name, `*` for any rest.
        use: What becomes of it.
        meaning: What it sets, or why it has no effect or is refused.
    """

    name: str
    use: Use
    meaning: str

    def matches(self, path: tuple[str, ...]) -> bool:
        """Whether a key, split and in lower case, is this one."""
        parts = split(self.name)
        if parts[-1] == "*":
            parts, path = parts[:-1], path[: len(parts) - 1]
        return len(parts) == len(path) and all(
            wanted in {"n", "name"} or wanted == part
            for wanted, part in zip(parts, path, strict=True)
        )


def split(name: str) -> tuple[str, ...]:
    """Split a key the way .NET does: at `__` or `:`, in any case."""
    return tuple(part.lower() for part in re.split("__|:", name))


_CREDENTIAL: Final = "AzureAd__ClientCredentials__N__"
_API: Final = "DownstreamApis__NAME__"
_ACQUIRE: Final = f"{_API}AcquireTokenOptions__"
_BY_FILE: Final = "use the configuration file"
_DOWNSTREAM: Final = "of `downstream`: how `/DownstreamApi` calls the API"
_GATE: Final = (
    "whether requests may change what is configured, at this endpoint; here the default is true"
)

KEYS: Final = (
    Key("AzureAd__Instance", Use.READ, "`entra.authority`"),
    Key("AzureAd__TenantId", Use.READ, "tenant of the client and of the users; a GUID, or a domain name, which is looked up"),
    Key("AzureAd__ClientId", Use.READ, "blueprint where an agent is named, else application"),
    Key("AzureAd__Audience", Use.READ, "accepted `aud` value"),
    Key("AzureAd__Audiences", Use.READ, "accepted `aud` values, separated by blanks or commas"),
    Key("AzureAd__Audiences__N", Use.READ, "the same as a list"),
    Key("AzureAd__Scopes", Use.READ, "scopes of inbound route `default`, of which one is needed; "
        "separated by blanks or commas"),
    Key("AzureAd__Scopes__N", Use.READ, "the same as a list"),
    Key("AzureAd__SendX5C", Use.READ, "`send_x5c` of certificates"),
    Key("AzureAd__AgentIdentity", Use.READ, "agent identity of every API (a key of our own)"),
    Key("AzureAd__AgentUsername", Use.READ, "the agent's user account (a key of our own)"),
    Key("AzureAd__AgentUserId", Use.READ, "the same by object id (a key of our own)"),
    Key(f"{_CREDENTIAL}SourceType", Use.READ, "`ClientSecret`, `Path`, `Base64Encoded`, `KeyVault`, "
        "`SignedAssertionFilePath` or `SignedAssertionFromManagedIdentity`"),
    Key(f"{_CREDENTIAL}ClientSecret", Use.READ, "the secret; it stays in the environment"),
    Key(f"{_CREDENTIAL}CertificateDiskPath", Use.READ, "file of `Path`"),
    Key(f"{_CREDENTIAL}CertificatePassword", Use.READ, "its password; stays in the environment"),
    Key(f"{_CREDENTIAL}Base64EncodedValue", Use.READ, "certificate; it stays in the environment"),
    Key(f"{_CREDENTIAL}SignedAssertionFileDiskPath", Use.READ,
        "token file; default `AZURE_FEDERATED_TOKEN_FILE`"),
    Key(f"{_CREDENTIAL}SignedAssertionFilePath", Use.READ,
        "the same, as Microsoft's README spells it"),
    Key(f"{_CREDENTIAL}UseBoundCredential", Use.READ, "only `false`: tokens are not bound to a key"),
    Key(f"{_CREDENTIAL}ManagedIdentityClientId", Use.READ, "user-assigned identity; empty: system"),
    Key(f"{_CREDENTIAL}TokenExchangeUrl", Use.READ, "only the cloud's own exchange resource"),
    Key(f"{_CREDENTIAL}KeyVaultUrl", Use.READ, "vault of `KeyVault`"),
    Key(f"{_CREDENTIAL}KeyVaultCertificateName", Use.READ, "name of the certificate there"),
    Key(f"{_CREDENTIAL}CertificateStorePath", Use.IGNORED,
        "of a credential type that is not supported"),
    Key(f"{_CREDENTIAL}CertificateThumbprint", Use.IGNORED,
        "of a credential type that is not supported"),
    Key(f"{_CREDENTIAL}CertificateDistinguishedName", Use.IGNORED,
        "of a credential type that is not supported"),
    Key("AzureAd__Authority", Use.REFUSED, "use AzureAd__Instance and AzureAd__TenantId"),
    Key("AzureAd__ClientSecret", Use.REFUSED,
        "use AzureAd__ClientCredentials__0__SourceType=ClientSecret and …__ClientSecret"),
    Key("AzureAd__ClientCertificates__*", Use.REFUSED, "use AzureAd__ClientCredentials__N__…"),
    Key("AzureAd__TokenDecryptionCredentials__*", Use.REFUSED,
        "encrypted tokens cannot be read: turn token encryption off for this application"),
    Key("AzureAd__TokenDecryptionCertificates__*", Use.REFUSED,
        "encrypted tokens cannot be read: turn token encryption off for this application"),
    Key("TokenDecryptionCredentialsDescription__*", Use.IGNORED,
        "Microsoft's README has it and its sidecar does not read it: encrypted tokens are refused"),
    Key("AzureAd__AllowWebApiToBeAuthorizedByACL", Use.IGNORED,
        "users are served as before; applications are served only when a configuration file names "
        "their roles or client ids"),
    Key("AzureAd__ClientCapabilities__*", Use.IGNORED,
        "no client capability is declared, so tokens keep their ordinary lifetime"),
    Key("AzureAd__AzureRegion", Use.IGNORED, "the global endpoint is used"),
    Key("DownstreamApis__NAME__BaseUrl", Use.READ, "its host selects the route"),
    Key(f"{_API}TokenOverPlainHttp", Use.READ,
        "`true`: the token may be sent to a BaseUrl with `http://` (a key of our own)"),
    Key("DownstreamApis__NAME__Scopes", Use.READ, "scopes, separated by blanks"),
    Key("DownstreamApis__NAME__Scopes__N", Use.READ, "scopes"),
    Key("DownstreamApis__NAME__RequestAppToken", Use.READ, "see the table of flows"),
    Key(f"{_API}AgentIdentity", Use.READ, "agent identity of this API (a key of our own)"),
    Key(f"{_API}AgentUsername", Use.READ, "the agent's user account (a key of our own)"),
    Key(f"{_API}AgentUserId", Use.READ, "the same by object id (a key of our own)"),
    Key(f"{_API}RelativePath", Use.READ, _DOWNSTREAM),
    Key(f"{_API}HttpMethod", Use.READ, _DOWNSTREAM),
    Key(f"{_API}AcceptHeader", Use.READ, _DOWNSTREAM),
    Key(f"{_API}ContentType", Use.READ, _DOWNSTREAM),
    Key(f"{_API}ExtraHeaderParameters__NAME", Use.READ, _DOWNSTREAM),
    Key(f"{_API}ExtraQueryParameters__NAME", Use.READ, _DOWNSTREAM),
    Key(f"{_API}ProtocolScheme", Use.READ, "only `Bearer`"),
    Key(f"{_ACQUIRE}Tenant", Use.READ, "only the tenant of the client"),
    Key(f"{_ACQUIRE}Claims", Use.READ, "`claims` of the route"),
    Key(f"{_ACQUIRE}CorrelationId", Use.IGNORED, "each exchange has its own"),
    Key(f"{_ACQUIRE}ForceRefresh", Use.IGNORED, "tokens are used until shortly before they expire"),
    Key(f"{_ACQUIRE}LongRunningWebApiSessionKey", Use.IGNORED,
        "no session is kept: each request brings the user's own token"),
    Key(f"{_ACQUIRE}PopPublicKey", Use.REFUSED, "tokens are bearer tokens, without proof of key"),
    Key(f"{_ACQUIRE}PopClaim", Use.REFUSED, "tokens are bearer tokens, without proof of key"),
    Key(f"{_ACQUIRE}FmiPath", Use.REFUSED, "names another identity: use AgentIdentity"),
    Key(f"{_ACQUIRE}ManagedIdentity__*", Use.REFUSED,
        "names another identity: make it a credential of the client"),
    Key(f"{_ACQUIRE}AuthenticationOptionsName", Use.REFUSED, f"names another client: {_BY_FILE}"),
    Key(f"{_ACQUIRE}UserFlow", Use.REFUSED, "policies of Azure AD B2C are not supported"),
    Key(f"{_ACQUIRE}ExtraParameters__*", Use.REFUSED,
        "can name another identity: use AgentIdentity, AgentUsername and AgentUserId"),
    Key(f"{_ACQUIRE}ExtraQueryParameters__*", Use.REFUSED,
        "can change which token Entra issues, and is not sent"),
    Key(f"{_ACQUIRE}ExtraHeadersParameters__*", Use.REFUSED,
        "can change which token Entra issues, and is not sent"),
    Key("Sidecar__AllowOverrides__GetAuthorizationHeader", Use.READ, _GATE),
    Key("Sidecar__AllowOverrides__GetAuthorizationHeaderUnauthenticated", Use.READ, _GATE),
    Key("Sidecar__AllowOverrides__CallDownstreamApi", Use.READ, _GATE),
    Key("Sidecar__AllowOverrides__CallDownstreamApiUnauthenticated", Use.READ, _GATE),
    Key("Sidecar__AllowOutboundRedirects", Use.READ, "`api.follow_redirects`"),
    Key("Logging__LogLevel__Default", Use.READ, "`log.level`"),
    Key("Logging__*", Use.IGNORED, "only Logging__LogLevel__Default is read"),
    Key("Kestrel__Endpoints__NAME__Url", Use.READ, "`listen.api`; goes before ASPNETCORE_URLS"),
    Key("Kestrel__*", Use.IGNORED, "only addresses of plain HTTP are read"),
    Key("ASPNETCORE_URLS", Use.READ, "`listen.api`; default `127.0.0.1:5000`"),
    Key("ASPNETCORE_HTTP_PORTS", Use.READ, "port of `listen.api` on every address, after ASPNETCORE_URLS"),
    Key("ASPNETCORE_HTTPS_PORTS", Use.READ, "not served: only addresses of plain HTTP are"),
    Key("DOTNET_URLS", Use.IGNORED, "use ASPNETCORE_URLS"),
    Key("AllowedHosts", Use.READ, "`api.hosts`, separated by semicolons; without wildcards"),
    Key("ASPNETCORE_ENVIRONMENT", Use.IGNORED, "`/openapi/v1.json` is served in any case"),
    Key("TokenCache__*", Use.IGNORED, f"to size the caches {_BY_FILE}"),
)  # fmt: skip


def find_key(path: tuple[str, ...]) -> Key | None:
    """Return what is known about a key."""
    return next((key for key in KEYS if key.matches(path)), None)


def is_own(path: tuple[str, ...]) -> bool:
    """Whether a variable belongs to the sidecar at all, or was meant to."""
    if len(path) == 1:
        return find_key(path) is not None
    return _section(path) is not None


def suggestion(path: tuple[str, ...]) -> str:
    """Return the name of the key or section that differs in spelling only, or nothing."""
    section = _section(path)
    if section is not None and section.lower() != path[0]:
        return f"{section}__…"
    best, name = _SAME_WORD, ""
    for key in KEYS:
        parts = split(key.name)
        if key.use is Use.READ and len(parts) == len(path):
            likeness = min(
                1.0 if wanted in {"n", "name"} else _likeness(wanted, part)
                for wanted, part in zip(parts, path, strict=True)
            )
            if likeness >= best:
                best, name = likeness, key.name
    return name


def _section(path: tuple[str, ...]) -> str | None:
    return next(
        (name for name in SECTIONS if _likeness(name.lower(), path[0]) >= _SAME_SECTION), None
    )


def _likeness(word: str, other: str) -> float:
    return 1.0 if word == other else SequenceMatcher(None, word, other).ratio()
