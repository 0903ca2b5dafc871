"""`TenantNames`: the ids of tenants that are configured by a domain name.

The discovery document of a name has the tenant's id in its issuer. An id that was found out is kept until
the process ends, so a domain that moves to another tenant meanwhile changes nothing here. Which names are
looked up says `authz.config`; the keys of a tenant's issuers are `signing_keys`'.
"""

import structlog

from authz.config import Config
from authz.config.compile import tenant_of
from authz.config.entra_sdk.tenants import is_any_tenant
from authz.config.reading.variables import ENTRA_AUTHORITIES
from authz.core.errors import AuthzError
from authz.entra.configured_http import http_client
from authz.entra.discovery import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MOST_OF_AN_ISSUER,
    DiscoveryFault,
    Documents,
    read_document,
)

_log = structlog.get_logger(__name__)


class TenantNames:
    """Looks up one name at a time, off the path of requests.

    Args:
        ids: Where ids are put, by name.
    """

    def __init__(self, ids: dict[str, str]) -> None:
        self._ids = ids
        self._failures = 0
        self.fault: str | None = None
        """Why the last look-up has found nothing."""

    def learn(self, name: str, config: Config) -> bool:
        """Find out the id of a tenant, unless it is known, at the configured authority. Blocks.

        Returns:
            Whether it is known now.
        """
        if name in self._ids:
            return True
        try:
            http = http_client(config, pool_size=1)
        except OSError as error:  # ssl.SSLError is one
            return self._failed(
                name, f"{ENTRA_AUTHORITIES}: {error.strerror or type(error).__name__}"
            )
        try:
            tenant_id = look_up(http, config.entra.authority, name)
        except (AuthzError, DiscoveryFault) as error:
            return self._failed(name, str(error))
        finally:
            http.close()
        _log.info("tenant found", name=name, tenant_id=tenant_id)
        self._ids[name], self.fault, self._failures = tenant_id, None, 0
        return True

    def _failed(self, name: str, cause: str) -> bool:
        self._failures += 1
        if cause != self.fault:
            _log.warning("tenant not found", name=name, cause=cause)
        self.fault = cause
        return False

    @property
    def pause(self) -> float:
        """Seconds until the next attempt; it doubles with each one that fails."""
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10)))


def look_up(http: Documents, authority: str, name: str) -> str:
    """Return the id of the tenant that has a domain name, by its discovery document.

    Args:
        http: Fetches it.
        authority: Entra's address without tenant. No other host is asked or believed.
        name: The domain name.

    Raises:
        DiscoveryFault: There is no such document, or it is not one tenant's of this cloud.
        AuthzError: There is no answer.
    """
    url = f"{authority}/{name}/v2.0/.well-known/openid-configuration"
    issuer = str(read_document(http.get(url), url).get("issuer", ""))
    tenant_id = tenant_of(authority, issuer)
    if tenant_id is None or is_any_tenant(tenant_id):
        raise DiscoveryFault(
            f"{url} speaks for {issuer[:MOST_OF_AN_ISSUER]!r}, expected the issuer of one tenant"
        )
    return tenant_id
