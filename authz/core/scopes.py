"""Scopes of Entra: which resource a permission belongs to, and `/.default`.

A scope is `RESOURCE/PERMISSION`. One without resource belongs to Microsoft Graph (Entra page "scopes-oidc").
"""

from collections.abc import Sequence
from typing import Final

GRAPH: Final = "https://graph.microsoft.com"
_NAMES_OF_GRAPH: Final = (
    "00000003-0000-0000-c000-000000000000",
    "https://graph.microsoft.us",
    "https://dod-graph.microsoft.us",
    "https://microsoftgraph.chinacloudapi.cn",
)
"""Other names of Microsoft Graph: its client id, and its addresses in other clouds."""
EXCHANGE_RESOURCES: Final = ("azureadtokenexchange", "fb60f99c-7a34-4190-8149-302f77469936")
"""Texts in lower case. One is in each name of the token-exchange resource, in every cloud.

Its tokens are credentials of agents, not for an API."""
_DEFAULT: Final = "/.default"


def resource_of(scope: str) -> str:
    """Return the resource of a scope, in lower case and by one name."""
    resource = scope.rpartition("/")[0].rstrip("/").lower()
    return GRAPH if not resource or resource in _NAMES_OF_GRAPH else resource


def is_exchange(resource: str) -> bool:
    """Whether tokens for a resource vouch for an identity. In lower case, as `resource_of` has it."""
    return any(text in resource for text in EXCHANGE_RESOURCES)


def default_of(resource: str) -> str:
    """Return the scope by which an application asks for what it was granted at a resource."""
    return f"{resource.rstrip('/')}{_DEFAULT}"


def default_beside(scope: str) -> str:
    """Return the same for the resource of a scope, as it is written there."""
    return default_of(scope.rpartition("/")[0])


def is_default(scope: str) -> bool:
    """Whether a scope asks for whatever was granted."""
    return scope.endswith(_DEFAULT)


def fits_app_token(scopes: Sequence[str]) -> bool:
    """Whether these ask for a token without user: exactly one scope, which ends in `/.default`."""
    return len(scopes) == 1 and is_default(scopes[0])
