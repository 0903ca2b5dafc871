"""Whom an access token is for, as far as it can be read: whether Entra gave what was asked for.

How tokens are asked for is in `authz.entra.exchange`.
"""

import re
from collections.abc import Sequence
from typing import Final

from authz.core import grammar
from authz.core.secret import Secret
from authz.entra.answers import jwt_claims

_CLIENT_ID: Final = re.compile(rf"(?:api://)?({grammar.GUID})")


def may_be_for(token: Secret, scopes: Sequence[str]) -> bool:
    """Whether a token may be for the resource of the scopes: False only where it names another.

    Its `aud` is the resource as it was asked for, or the client id of the API (Entra page
    "access-token-claims-reference"). Which client id an address belongs to is not known here, and not
    every access token can be read.
    """
    audience = _audience(token.reveal())
    resources = {scope.rpartition("/")[0] for scope in scopes}
    if audience is None or "" in resources:
        return True
    return any(_may_name(_plain(audience), _plain(resource)) for resource in resources)


def _may_name(audience: str, resource: str) -> bool:
    if audience == resource:
        return True
    client_ids = [_CLIENT_ID.fullmatch(name) for name in (audience, resource)]
    if all(client_ids):
        first, second = (match[1] for match in client_ids if match is not None)
        return first == second
    # One is a client id and the other an address: they may belong together.
    return any(client_ids)


def _plain(name: str) -> str:
    return name.lower().removeprefix("spn:").removesuffix("/")


def _audience(token: str) -> str | None:
    """Return what an access token says whom it is for, if it can be read."""
    audience = (jwt_claims(token) or {}).get("aud")
    return audience if isinstance(audience, str) else None
