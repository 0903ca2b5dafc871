"""From the configuration's credential entries and bounds to objects of `authz.entra`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msal

from authz.config import Config
from authz.config.compile import exchange_resource
from authz.config.sections import clients as configured
from authz.config.shown import shown_file, shown_variable
from authz.core.exchange import Client
from authz.entra.answers import IdentityTransport
from authz.entra.certificate import Certificate
from authz.entra.configured_http import http_client
from authz.entra.credentials import ClientSecret, Credential, FederatedToken
from authz.entra.key_vault import KeyVaults
from authz.entra.managed_identity import ManagedIdentity
from authz.entra.msal_transport import NoHttpCache, NoTokenCache
from authz.entra.sources import read_bytes, read_encoded, read_environment, read_text
from authz.entra.vault_place import VaultPlace


class Credentials:
    """The credentials of the configurations in force.

    A new configuration finds here the credentials that it shares with the old one, with the last good
    version of each: a file that cannot be read at the moment of a reload takes nothing away (law 9).

    Args:
        environ: Environment variables, for credentials that refer to some.
        vaults: Certificates that Azure Key Vault holds.
    """

    def __init__(self, environ: Mapping[str, str], vaults: KeyVaults) -> None:
        self._environ = environ
        self._vaults = vaults
        # Weak: what no configuration uses any more is forgotten.
        self._kept: WeakValueDictionary[tuple[Any, ...], Credential] = WeakValueDictionary()

    def of(self, client: Client, entry: configured.Credential, config: Config) -> Credential:
        """Return the credential that an entry of a client describes. Reads nothing yet."""
        # The way to Entra is part of those that need one. For the others it is enough whom they prove it to.
        asks = isinstance(entry, configured.KeyVault | configured.ManagedIdentity)
        way = config.entra if asks else config.entra.authority
        key = client.tenant_id, client.client_id, entry, way
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _credential(entry, config, self._environ, self._vaults)
        return kept


def _credential(
    entry: configured.Credential, config: Config, environ: Mapping[str, str], vaults: KeyVaults
) -> Credential:
    match entry:
        case configured.ClientSecret():
            read, where = _text_source(entry.file, entry.env, environ)
            return ClientSecret(read, f"client_secret {where}")
        case configured.Certificate():
            content, where = _certificate_source(entry, environ)
            password = None
            if entry.password_file is not None or entry.password_env is not None:
                password, _ = _text_source(entry.password_file, entry.password_env, environ)
            return Certificate(
                content, f"certificate {where}", password=password, send_x5c=entry.send_x5c
            )
        case configured.KeyVault():
            return vaults.credential(_vault_place(entry, config), send_x5c=entry.send_x5c)
        case configured.FederatedToken():
            path = Path(entry.file)
            return FederatedToken(read_text(path), f"federated_token {shown_file(path)}")
        case configured.ManagedIdentity():
            return _managed_identity(entry, config)


def _text_source(
    file: str | Path | None, variable: str | None, environ: Mapping[str, str]
) -> tuple[Callable[[], str], str]:
    if file is not None:
        return read_text(Path(file)), shown_file(file)
    assert variable is not None
    return read_environment(variable, environ), shown_variable(variable, sign="$")


def _certificate_source(
    entry: configured.Certificate, environ: Mapping[str, str]
) -> tuple[Callable[[], bytes], str]:
    if entry.file is not None:
        return read_bytes(Path(entry.file)), shown_file(entry.file)
    assert entry.env is not None
    return read_encoded(entry.env, environ), shown_variable(entry.env, sign="$")


def _vault_place(entry: configured.KeyVault, config: Config) -> VaultPlace:
    return VaultPlace(
        url=entry.url,
        certificate=entry.certificate,
        client_id=entry.client_id,
        authority=config.entra.authority,
        ca_file=config.entra.ca_file,
        proxy=config.entra.proxy,
        connect_timeout=config.entra.connect_timeout,
        timeout=config.entra.timeout,
    )


def _managed_identity(entry: configured.ManagedIdentity, config: Config) -> ManagedIdentity:
    identity = (
        msal.SystemAssignedManagedIdentity()
        if entry.client_id is None
        else msal.UserAssignedManagedIdentity(client_id=entry.client_id)
    )
    client = msal.ManagedIdentityClient(
        identity,
        http_client=IdentityTransport(
            http_client(config, pool_size=config.limits.exchanges, plain_http=True)
        ),
        token_cache=NoTokenCache(),
        http_cache=NoHttpCache(),
    )
    which = entry.client_id or "system-assigned"
    return ManagedIdentity(client, exchange_resource(config), f"managed_identity {which}")
