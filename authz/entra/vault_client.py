"""Asks Azure Key Vault, with the Azure SDK. The only module that imports it: it is an extra.

How long an answer is kept, and who waits for it, is `key_vault`.
"""

import logging
import os
from typing import Any, Final

import requests
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import (
    EnvironmentCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.keyvault.secrets import SecretClient
from requests.adapters import HTTPAdapter

from authz.config.reading.variables import ENTRA_AUTHORITIES
from authz.entra.http import tls_context
from authz.entra.sources import MAX_FILE_BYTES, CredentialAway, CredentialFault
from authz.entra.vault_place import VaultPlace
from authz.system import connection_fault

RETRIES: Final = 0
"""The SDK would sleep as long as a server tells it to. `key_vault` asks again, some seconds later."""
_NO_TOKEN: Final = "the identity gets no token, or the vault does not take it"
_MEANINGS: Final = {
    403: "the identity may not read the secret (role Key Vault Secrets User), or the vault's "
    "firewall is in the way",
    404: "the vault has no such certificate",
}
Identity = EnvironmentCredential | WorkloadIdentityCredential | ManagedIdentityCredential
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500

# The SDK's warnings quote what other servers answered (law 5).
logging.getLogger("azure").addHandler(logging.NullHandler())
logging.getLogger("azure").propagate = False


class VaultClient:
    """Fetches secrets as the identity of the host or the pod.

    Args:
        checks_resource: Refuse a vault that asks for the token of a resource which its own name does not
            end in. Off for vaults of tests only.
    """

    def __init__(self, *, checks_resource: bool = True) -> None:
        self._checks_resource = checks_resource

    def fetch(self, place: VaultPlace) -> str:
        """Return the secret of the certificate's name, which holds its private key too.

        Nothing is kept, connections and tokens included: this happens every ten minutes.

        Raises:
            CredentialFault: Why there is none. Quotes nothing that any server said.
        """
        try:
            secret = self._fetch(place)
        except CredentialFault:
            raise
        except Exception as error:  # noqa: BLE001 - the SDK may raise anything, and its texts are not ours
            raise _fault(place, error) from None
        if not secret or len(secret) > MAX_FILE_BYTES:
            raise CredentialFault(f"key_vault {place}: the secret is empty or too large")
        return secret

    def _fetch(self, place: VaultPlace) -> str | None:
        transport = _transport(place)
        with (
            _identity(place, transport) as identity,
            SecretClient(
                place.url,
                identity,
                verify_challenge_resource=self._checks_resource,
                transport=transport,
                retry_total=RETRIES,
                permit_redirects=False,
            ) as client,
        ):
            return client.get_secret(place.certificate).value


def _identity(place: VaultPlace, transport: RequestsTransport) -> Identity:
    """Return the identity of the deployment, by the variables that Azure and its SDKs use.

    Not `DefaultAzureCredential`: that one ignores the authority where it uses a workload identity, hides
    whether an identity was refused or out of reach, and looks at what a developer is signed in to.
    """
    how: dict[str, Any] = {"transport": transport, "retry_total": RETRIES}
    entra: dict[str, Any] = {"authority": place.authority, "disable_instance_discovery": True}
    client_id = place.client_id or os.environ.get("AZURE_CLIENT_ID") or None
    if not os.environ.keys().isdisjoint(("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")):
        return EnvironmentCredential(**how, **entra)
    if os.environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        if client_id is None or not os.environ.get("AZURE_TENANT_ID"):
            raise CredentialFault(
                f"key_vault {place}: AZURE_FEDERATED_TOKEN_FILE is set, AZURE_TENANT_ID or "
                "AZURE_CLIENT_ID is not"
            )
        return WorkloadIdentityCredential(client_id=client_id, **how, **entra)
    return ManagedIdentityCredential(client_id=client_id, **how)


def _transport(place: VaultPlace) -> RequestsTransport:
    session = requests.Session()
    # In the pod, the environment's proxy variables lead the agent to Envoy.
    session.trust_env = False
    if place.proxy is not None:
        # For TLS only: the host's metadata service is on the host, whatever way leads out.
        session.proxies = {"https": place.proxy}
    session.mount("https://", _OwnTrust(place))
    return RequestsTransport(
        session=session, connection_timeout=place.connect_timeout, read_timeout=place.timeout
    )


class _OwnTrust(HTTPAdapter):
    """Trusts whom the rest of the service trusts, and not the authorities that `requests` brings."""

    def __init__(self, place: VaultPlace) -> None:
        self._context = tls_context(place.ca_file)
        super().__init__()

    def init_poolmanager(self, *sizes: Any, **more: Any) -> None:
        """Use the context for connections of our own."""
        super().init_poolmanager(*sizes, ssl_context=self._context, **more)

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        """Use the context for connections through a proxy."""
        return super().proxy_manager_for(proxy, ssl_context=self._context, **more)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Add no authorities: the context is complete."""


def _fault(place: VaultPlace, error: Exception) -> CredentialFault:
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        cause = connection_fault.words(error, ca_file=ENTRA_AUTHORITIES)
        return CredentialAway(f"key_vault {place}: no answer ({cause})")
    status = error.status_code if isinstance(error, HttpResponseError) else None
    text = f"key_vault {place}: {type(error).__name__}"
    if status is not None:
        text = f"{text}, status {status}"
        if status == _TOO_MANY_REQUESTS or status >= _SERVER_ERROR:
            return CredentialAway(text)
    if isinstance(error, ClientAuthenticationError):
        return CredentialFault(f"{text}: {_NO_TOKEN}")
    if status in _MEANINGS:
        return CredentialFault(f"{text}: {_MEANINGS[status]}")
    if isinstance(error, ValueError):
        return CredentialFault(f"{text}: what the vault asks for does not fit its name")
    return CredentialFault(text)
