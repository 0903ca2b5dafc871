"""The clouds of Microsoft Entra: login hosts, issuers of either token version, exchange resource.

Also the tenants that are nobody's in particular.

Sources: MSAL's cloud list, Entra pages "access-tokens" and "authentication-national-cloud".
"""

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

PERSONAL_ACCOUNTS: Final = "9188040d-6c67-4c5b-b112-36a304b66dad"
"""The tenant of everybody's personal accounts (Entra page "id-token-claims-reference", `iss`)."""
NO_TENANT: Final = "00000000-0000-0000-0000-000000000000"
"""Takes the place of a tenant's id that is not known yet: no tenant has it, so no token is of it."""
_DEFAULT_V1: Final = "https://sts.windows.net"


@dataclass(frozen=True, slots=True)
class Cloud:
    """One cloud.

    Attributes:
        base: Login endpoint as it stands in v2 issuers.
        v1_base: The same in v1 issuers.
        exchange_resource: The resource of assertions that stand for a client, such as T1.
        hosts: The cloud's login hosts: its discovery documents name addresses of these.
    """

    base: str
    v1_base: str = _DEFAULT_V1
    exchange_resource: str = "api://AzureADTokenExchange"
    hosts: frozenset[str] = frozenset()


def _cloud(host: str, *, suffix: str = "", v1_base: str = _DEFAULT_V1) -> Cloud:
    return Cloud(f"https://{host}", v1_base, f"api://AzureADTokenExchange{suffix}")


_PUBLIC: Final = _cloud("login.microsoftonline.com")
_US_GOVERNMENT: Final = _cloud("login.microsoftonline.us", suffix="USGov")
_CHINA: Final = _cloud(
    "login.partner.microsoftonline.cn", suffix="China", v1_base="https://sts.chinacloudapi.cn"
)

_BY_HOST: Final = {
    "login.microsoftonline.com": _PUBLIC,
    "login.windows.net": _PUBLIC,
    "login.microsoft.com": _PUBLIC,
    "sts.windows.net": _PUBLIC,
    "login.microsoftonline.us": _US_GOVERNMENT,
    "login.usgovcloudapi.net": _US_GOVERNMENT,
    "login.partner.microsoftonline.cn": _CHINA,
    "login.chinacloudapi.cn": _CHINA,
    "login.sovcloud-identity.fr": _cloud("login.sovcloud-identity.fr", suffix="France"),
    "login.sovcloud-identity.de": _cloud("login.sovcloud-identity.de", suffix="Germany"),
    "login.microsoftonline.eaglex.ic.gov": _cloud(
        "login.microsoftonline.eaglex.ic.gov", suffix="USNat"
    ),
    "login.microsoftonline.scloud": _cloud("login.microsoftonline.scloud", suffix="USSec"),
}


def cloud_of(authority: str) -> Cloud:
    """Return the cloud of a login endpoint.

    An unknown host speaks for itself, with everything else as in the public cloud.
    """
    parts = urlsplit(authority)
    known = _BY_HOST.get(parts.hostname or "") if parts.port in {None, 443} else None
    if known is None:
        return Cloud(authority)
    return replace(known, hosts=frozenset(host for host in _BY_HOST if _BY_HOST[host] == known))
