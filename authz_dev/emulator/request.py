"""One token request as it arrived: form parameters, client credentials, and what it asks.

Syntax only; nothing is looked up here except the resource a scope names.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from authz_dev.emulator.directory import Directory
from authz_dev.emulator.entities import GRAPH_APP_ID, Application
from authz_dev.emulator.errors import TokenError

CLIENT_CREDENTIALS = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
REFRESH_TOKEN = "refresh_token"
AUTHORIZATION_CODE = "authorization_code"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
USER_FIC = "user_fic"
JWT_CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

_OPENID_SCOPES = frozenset({"openid", "profile", "email", "offline_access"})
_DEFAULT = ".default"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """The parameters of a token request, `client_id` and `client_secret` from Basic included."""

    form: Mapping[str, str]

    @classmethod
    def parse(cls, body: bytes, authorization: str | None) -> TokenRequest:
        """Read a form body and a Basic header (RFC 6749, sections 2.3.1 and 3.2).

        Raises TokenError 9002313 for repeated parameters, undecodable text, or two ways of
        client authentication at once.
        """
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict")
        except UnicodeDecodeError as error:
            raise TokenError(9002313, "The body is not UTF-8.") from error
        form = dict(pairs)
        if len(form) != len(pairs):
            raise TokenError(9002313, "A parameter is included more than once.")
        if authorization is not None:
            client_id, secret = _basic(authorization)
            if "client_secret" in form or "client_assertion" in form:
                raise TokenError(9002313, "More than one way of client authentication is used.")
            if form.get("client_id", client_id) != client_id:
                raise TokenError(9002313, "Two different client ids are given.")
            form |= {"client_id": client_id, "client_secret": secret}
        return cls(form)

    def get(self, name: str) -> str:
        """A parameter, or the empty text: Entra does not tell the two apart."""
        return self.form.get(name, "").strip()

    def required(self, name: str) -> str:
        """A parameter that must be there; raises TokenError 900144."""
        value = self.get(name)
        if not value:
            raise TokenError(900144, f"The parameter is '{name}'.")
        return value

    def claims(self) -> dict[str, Any]:
        """The `claims` parameter (OpenID Connect Core, section 5.5); raises TokenError 90100."""
        text = self.get("claims")
        if not text:
            return {}
        try:
            claims = json.loads(text)
        except ValueError as error:
            raise TokenError(90100, "The parameter 'claims' is not JSON.") from error
        if not isinstance(claims, dict):
            raise TokenError(90100, "The parameter 'claims' is not a JSON object.")
        return claims


@dataclass(frozen=True, slots=True)
class ScopeRequest:
    """What a `scope` parameter asks of one resource.

    `prefix` is the resource as the caller wrote it, with its slash; `default` stands for
    `/.default`; `openid` holds the OpenID Connect scopes, which belong to no resource.
    """

    resource: Application
    prefix: str
    default: bool
    permissions: frozenset[str]
    openid: frozenset[str]

    @property
    def audience(self) -> str:
        """The resource as the caller wrote it: `aud` of v1 tokens."""
        return self.prefix.rstrip("/") or self.resource.identifier_uri

    @property
    def text(self) -> str:
        """The scope list that asks for the same."""
        names = sorted(self.permissions) + ([_DEFAULT] if self.default else [])
        return " ".join([*sorted(self.openid), *(self.prefix + name for name in names)])

    @classmethod
    def of(cls, request: TokenRequest, directory: Directory, tenant_id: str) -> ScopeRequest:
        """Read `scope`, and `resource` where it is given (RFC 8707); raises TokenError 9010010 too."""
        scope = cls.parse(request.required("scope"), directory, tenant_id)
        named = request.get("resource")
        if named:
            found = directory.resource(tenant_id, named)
            if found is None or found.client_id != scope.resource.client_id:
                raise TokenError(9010010, f"The resource is '{named}'.")
        return scope

    @classmethod
    def parse(cls, scope: str, directory: Directory, tenant_id: str) -> ScopeRequest:
        """Read a scope list; raises TokenError 70011, 700022, 700023 or 500011."""
        values = set(scope.split())
        openid = frozenset(values & _OPENID_SCOPES)
        split = [_split(value) for value in sorted(values - openid)]
        if not split:
            raise TokenError(700023)
        names = {prefix.rstrip("/") or GRAPH_APP_ID for prefix, _ in split}
        resources: dict[str, Application] = {}
        for name in sorted(names):
            resource = directory.resource(tenant_id, name)
            if resource is None:
                raise TokenError(500011, f"The resource is '{name}'.")
            resources[resource.client_id] = resource
        if len(resources) > 1:
            raise TokenError(700022)
        [resource] = resources.values()
        permissions = frozenset(permission for _, permission in split)
        default = _DEFAULT in permissions
        if default and len(permissions) > 1:
            raise TokenError(70011, "'/.default' cannot be combined with other scopes.")
        return cls(resource, split[0][0], default, permissions - {_DEFAULT}, openid)

    def response_scope(self, granted: frozenset[str]) -> str:
        """The `scope` of the response: what was granted, written the way it was asked."""
        names = sorted(granted) + ([_DEFAULT] if self.default else [])
        return " ".join([*sorted(self.openid), *(self.prefix + name for name in names)])


def default_scope_only(scope: str) -> None:
    """Client credentials allow only `{resource}/.default`; raises TokenError 1002012."""
    for value in scope.split():
        if not value.endswith(f"/{_DEFAULT}"):
            raise TokenError(1002012, f"The value is '{value}'.")


def _split(value: str) -> tuple[str, str]:
    resource, slash, permission = value.rpartition("/")
    if not permission:
        raise TokenError(70011, f"The value '{value}' names no permission.")
    return resource + slash, permission


def _basic(authorization: str) -> tuple[str, str]:
    malformed = TokenError(9002313, "The Authorization header is not Basic.")
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise malformed
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise malformed from error
    client_id, colon, secret = decoded.partition(":")
    if not colon:
        raise malformed
    return unquote_plus(client_id), unquote_plus(secret)
