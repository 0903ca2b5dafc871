"""Metadata documents and key sets (OpenID Connect Discovery 1.0), per tenant and for `common`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from authz_dev.emulator.directory import Directory
from authz_dev.emulator.errors import TokenError
from authz_dev.emulator.fault_response import Wire, amended, error_response, spoil
from authz_dev.emulator.faults import Faults, Occasion
from authz_dev.emulator.issuer import Issuer
from authz_dev.emulator.token_endpoint import SHARED_TENANTS

_TEMPLATE = "{tenantid}"
_CACHED = {"cache-control": "max-age=86400, private"}


class Discovery:
    """What a client reads before it trusts anything."""

    def __init__(
        self,
        directory: Directory,
        issuer: Issuer,
        faults: Faults,
        clock: Callable[[], float],
        wire: Wire,
    ) -> None:
        self._directory = directory
        self._issuer = issuer
        self._faults = faults
        self._clock = clock
        self._wire = wire

    async def metadata_v2(self, request: Request) -> Response:
        """`/{tenant}/v2.0/.well-known/openid-configuration`."""
        return await self._serve(request, "discovery", lambda tenant: self._metadata(tenant, 2))

    async def metadata_v1(self, request: Request) -> Response:
        """`/{tenant}/.well-known/openid-configuration`."""
        return await self._serve(request, "discovery", lambda tenant: self._metadata(tenant, 1))

    async def keys_v2(self, request: Request) -> Response:
        """`/{tenant}/discovery/v2.0/keys`: keys bound to the v2 issuer."""
        return await self._serve(request, "jwks", lambda tenant: self._keys(tenant, 2))

    async def keys_v1(self, request: Request) -> Response:
        """`/{tenant}/discovery/keys`: the same keys bound to the v1 issuer."""
        return await self._serve(request, "jwks", lambda tenant: self._keys(tenant, 1))

    async def instance(self, request: Request) -> Response:
        """`/common/discovery/instance`: which hosts belong together, and where metadata is."""
        wanted = request.query_params.get("authorization_endpoint", "")
        authorities = (self._issuer.authority, *self._issuer.aliases)
        found = next((a for a in authorities if wanted.startswith(f"{a}/")), None)
        if found is None:
            body = {"error": "invalid_instance", "error_description": "Unknown authority."}
            return JSONResponse(body, 400)
        tenant = wanted.removeprefix(f"{found}/").partition("/")[0]
        hosts = [authority.removeprefix("https://") for authority in authorities]
        return JSONResponse(
            {
                "api-version": "1.1",
                "tenant_discovery_endpoint": (
                    f"{self._issuer.authority}/{tenant}/v2.0/.well-known/openid-configuration"
                ),
                "metadata": [
                    {
                        "preferred_network": hosts[0],
                        "preferred_cache": hosts[0],
                        "aliases": hosts,
                    }
                ],
            }
        )

    async def _serve(
        self, request: Request, target: str, document: Callable[[str], Mapping[str, Any]]
    ) -> Response:
        request.state.correlation_id = str(uuid.uuid4())
        name = request.path_params["tenant"].lower()
        tenant = self._directory.tenant(name)
        names = {name} if tenant is None else {tenant.tenant_id, tenant.domain}
        faults = self._faults.take(Occasion(target, frozenset(names)))
        faulty = await spoil(
            faults,
            request,
            authority=self._issuer.authority,
            now=self._clock(),
            wire=self._wire,
        )
        if faulty is not None:
            return faulty
        if tenant is not None:
            return JSONResponse(amended(faults, document(tenant.tenant_id)), headers=_CACHED)
        if name in SHARED_TENANTS:
            return JSONResponse(amended(faults, document(name)), headers=_CACHED)
        return error_response(
            TokenError(90002, f"The tenant is '{name}'."),
            request,
            authority=self._issuer.authority,
            now=self._clock(),
        )

    def _metadata(self, tenant: str, version: int) -> dict[str, Any]:
        base = f"{self._issuer.authority}/{tenant}"
        path = "" if version == 1 else "/v2.0"
        return {
            "issuer": self._issuer.name(self._issuer_tenant(tenant), version),
            "authorization_endpoint": f"{base}/oauth2{path}/authorize",
            "token_endpoint": f"{base}/oauth2{path}/token",
            "device_authorization_endpoint": f"{base}/oauth2{path}/devicecode",
            "jwks_uri": f"{base}/discovery{path}/keys",
            "token_endpoint_auth_methods_supported": [
                "client_secret_post",
                "private_key_jwt",
                "client_secret_basic",
            ],
            "response_modes_supported": ["query", "fragment", "form_post"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "name", "oid", "tid", "ver"],
            "tenant_region_scope": None,
        }

    def _keys(self, tenant: str, version: int) -> dict[str, Any]:
        return self._issuer.keys.jwks(self._issuer.name(self._issuer_tenant(tenant), version))

    @staticmethod
    def _issuer_tenant(tenant: str) -> str:
        return _TEMPLATE if tenant in SHARED_TENANTS else tenant
