"""Which tenant the environment names: by its id, by a domain, or none that is a single one.

What else a client is made of is in `authz.config.entra_sdk.environment`; how the id of a
domain is found out, in `authz.entra.tenant_names`.
"""

import re
from collections.abc import Mapping
from typing import Final

from authz.config.clouds import NO_TENANT, PERSONAL_ACCOUNTS
from authz.config.entra_sdk.keys import split
from authz.config.entra_sdk.values import Variables
from authz.config.faults import Fault, Notice
from authz.config.shown import shown

_ANY_TENANT: Final = ("common", "organizations", "consumers", PERSONAL_ACCOUNTS)
_TENANT_ID: Final = split("AzureAd__TenantId")
_DOMAIN: Final = re.compile("[0-9a-z](?:[0-9a-z-]*[0-9a-z])?(?:[.][0-9a-z-]+)+", re.IGNORECASE)


def is_any_tenant(tenant: str) -> bool:
    """Whether a name or an id stands for users of any tenant, or for everybody's personal accounts."""
    return tenant.lower() in (*_ANY_TENANT, NO_TENANT)


def tenant_name(environ: Mapping[str, str]) -> str | None:
    """Return the domain name that the environment has in place of a tenant's id, in lower case."""
    # Looked for at each interval: no other variable is compared with the keys that are known.
    given = (value for name, value in environ.items() if value and split(name) == _TENANT_ID)
    value = next(given, "").lower()
    return value if _DOMAIN.fullmatch(value) else None


def check_tenant(variables: Variables, tenant_id: str | None) -> None:
    """Refuse what is no single tenant, and say of a domain name what becomes of it."""
    tenant = variables.get("AzureAd__TenantId")
    if tenant is None:
        return
    if tenant_id is not None:
        text = (
            f"is the domain {shown(tenant.value)}: the tenant's id is looked up at the start, at Instance. Domains can "
            "move to other tenants, so prefer the id"
        )
        variables.notices.append(Notice(tenant.name, text))
    elif is_any_tenant(tenant.value):
        text = (
            f"found {tenant.value!r}, which would admit users of any tenant, and in which no application "
            "gets a token of its own: expected one tenant, by its GUID or a domain name"
        )
        variables.faults.append(Fault(tenant.name, text))
