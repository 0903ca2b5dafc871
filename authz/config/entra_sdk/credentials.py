"""`AzureAd__ClientCredentials__N__…` to the credentials of the configuration.

Secrets stay where they are: what comes out names the environment variables that hold them.
"""

from typing import Any, Final

from authz.config.clouds import cloud_of
from authz.config.entra_sdk.values import Variables
from authz.config.faults import Fault, Notice
from authz.config.shown import shown

CREDENTIALS: Final = "AzureAd__ClientCredentials"
"""Key of the list."""
_PATH: Final = "mount the certificate as a file and use SourceType=Path"
_ALTERNATIVES: Final = {
    "storewiththumbprint": _PATH,
    "storewithdistinguishedname": _PATH,
    "certificate": _PATH,
    "signedassertionfromvault": "use SourceType=SignedAssertionFilePath",
    "customsignedassertion": "use SourceType=SignedAssertionFilePath",
}
_SUPPORTED: Final = (
    "ClientSecret, Path, Base64Encoded, KeyVault, SignedAssertionFilePath, "
    "SignedAssertionFromManagedIdentity"
)


def read_credentials(variables: Variables) -> list[dict[str, Any]]:
    """Return the credentials in order, as the configuration file writes them.

    A type that cannot be used is skipped, with a notice, when another credential is there; on its own
    it is a fault.
    """
    credentials = []
    unusable = []
    for part in variables.below(CREDENTIALS):
        key = f"{CREDENTIALS}__{part}__"
        source = variables.value(f"{key}SourceType")
        _check_binding(variables, key)
        name = variables.name(f"{key}SourceType")
        if source is None:
            variables.faults.append(Fault(name, f"is missing: expected one of {_SUPPORTED}"))
        elif source.lower() in _ALTERNATIVES:
            unusable.append((name, f"{source} is not supported: {_ALTERNATIVES[source.lower()]}"))
        else:
            credentials += _read(variables, key, source.lower())
    for name, text in unusable:
        if credentials:
            variables.notices.append(Notice(name, f"is skipped: {text}"))
        else:
            variables.faults.append(Fault(name, text))
    return credentials


def _read(variables: Variables, key: str, source: str) -> list[dict[str, Any]]:
    match source:
        case "clientsecret":
            name = _required(variables, f"{key}ClientSecret")
            return [{"client_secret": {"env": name}}] if name else []
        case "path":
            name = _required(variables, f"{key}CertificateDiskPath")
            file = {"file": variables.value(f"{key}CertificateDiskPath")}
            return [_certificate(variables, key, file)] if name else []
        case "base64encoded":
            name = _required(variables, f"{key}Base64EncodedValue")
            return [_certificate(variables, key, {"env": name})] if name else []
        case "keyvault":
            return _key_vault(variables, key)
        case "signedassertionfilepath":
            path = _token_file(variables, key)
            return [{"federated_token": {"file": path} if path else {}}]
        case "signedassertionfrommanagedidentity":
            _check_exchange_resource(variables, key)
            identity = variables.value(f"{key}ManagedIdentityClientId")
            return [{"managed_identity": {"client_id": identity} if identity else {}}]
        case _:
            # The value is not shown: it may be a secret that slipped by one line.
            name = variables.name(f"{key}SourceType")
            variables.faults.append(Fault(name, f"is not known: expected one of {_SUPPORTED}"))
            return []


def _required(variables: Variables, key: str) -> str | None:
    found = variables.get(key)
    if found is None:
        variables.faults.append(Fault(key, "is missing: its SourceType needs it"))
        return None
    return found.name


def _token_file(variables: Variables, key: str) -> str | None:
    file = variables.get(f"{key}SignedAssertionFileDiskPath")
    alias = variables.get(f"{key}SignedAssertionFilePath")
    if alias is None:
        return file.value if file else None
    if file is not None and file.value != alias.value:
        text = f"is not {file.name}, which is the same setting: expected one of the two"
        variables.faults.append(Fault(alias.name, text))
    text = "is read as SignedAssertionFileDiskPath, the name that Microsoft's sidecar itself reads"
    variables.notices.append(Notice(alias.name, text))
    return alias.value


def _check_binding(variables: Variables, key: str) -> None:
    found = variables.get(f"{key}UseBoundCredential")
    if found is not None and found.value.lower() != "false":
        text = (
            "expected false: tokens are bearer tokens, which are not bound to a key, and would be taken "
            "for bound ones"
        )
        variables.faults.append(Fault(found.name, text))


def _certificate(variables: Variables, key: str, source: dict[str, Any]) -> dict[str, Any]:
    password = variables.get(f"{key}CertificatePassword")
    if password is not None:
        source["password_env"] = password.name
    return {"certificate": source | _send_x5c(variables)}


def _key_vault(variables: Variables, key: str) -> list[dict[str, Any]]:
    names = [
        _required(variables, f"{key}{field}")
        for field in ("KeyVaultUrl", "KeyVaultCertificateName")
    ]
    if None in names:
        return []
    source = {
        "url": variables.value(f"{key}KeyVaultUrl"),
        "certificate": variables.value(f"{key}KeyVaultCertificateName"),
    }
    identity = variables.value(f"{key}ManagedIdentityClientId")
    if identity:
        source["client_id"] = identity
    return [{"key_vault": source | _send_x5c(variables)}]


def _send_x5c(variables: Variables) -> dict[str, Any]:
    send_x5c = variables.value("AzureAd__SendX5C")
    return {} if send_x5c is None else {"send_x5c": send_x5c}


def _check_exchange_resource(variables: Variables, key: str) -> None:
    found = variables.value(f"{key}TokenExchangeUrl")
    try:
        expected = cloud_of(variables.value("AzureAd__Instance") or "").exchange_resource
    except ValueError:
        return
    if found is not None and found.lower().removesuffix("/.default") != expected.lower():
        name = variables.name(f"{key}TokenExchangeUrl")
        variables.faults.append(
            Fault(name, f"found {shown(found)}: expected {expected}, or nothing")
        )
