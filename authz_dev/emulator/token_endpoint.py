"""`POST /{tenant}/oauth2/v2.0/token`: from the HTTP request to a token or a refusal.

The order of the checks is Entra's: form, tenant, client, proof of the client, then the grant.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from authz_dev.emulator.calls import Calls
from authz_dev.emulator.client_authentication import authenticate
from authz_dev.emulator.codes import Codes, DeviceCodes
from authz_dev.emulator.directory import Directory
from authz_dev.emulator.entities import AgentIdentity, Client, Tenant
from authz_dev.emulator.errors import TokenError
from authz_dev.emulator.fault_response import NOT_STORED, Wire, amended, error_response, spoil
from authz_dev.emulator.faults import Fault, Faults, Occasion
from authz_dev.emulator.grants import answer, leg_of
from authz_dev.emulator.issuance import Call
from authz_dev.emulator.issuer import Issuer, peek
from authz_dev.emulator.refresh_tokens import RefreshTokens
from authz_dev.emulator.request import TokenRequest

SHARED_TENANTS = frozenset({"common", "organizations", "consumers"})
"""Names that stand for no single tenant."""

_MAX_BODY = 1_048_576
_FORM = "application/x-www-form-urlencoded"


class TokenEndpoint:
    """The token endpoint of every tenant."""

    def __init__(
        self,
        directory: Directory,
        issuer: Issuer,
        calls: Calls,
        faults: Faults,
        clock: Callable[[], float],
        wire: Wire,
        codes: Codes,
        devices: DeviceCodes,
    ) -> None:
        self._directory = directory
        self._issuer = issuer
        self._calls = calls
        self._faults = faults
        self._clock = clock
        self._wire = wire
        self._codes = codes
        self._devices = devices
        self._refresh_tokens = RefreshTokens()

    async def answer(self, request: Request) -> Response:
        """Answer one token request."""
        request.state.correlation_id = str(uuid.uuid4())
        tenant_name = request.path_params["tenant"]
        try:
            token_request = await read_form(request)
        except TokenError as error:
            self._calls.record(None)
            return self._refuse(error, request)
        tenant = self._directory.tenant(tenant_name)
        client = self._client(tenant, token_request)
        leg = leg_of(client, token_request)
        self._calls.record(leg)
        faults: tuple[Fault, ...] = ()
        if self._faults.active():
            faults = self._faults.take(self._occasion(tenant_name, tenant, token_request, leg))
            faulty = await spoil(
                faults,
                request,
                authority=self._issuer.authority,
                now=self._clock(),
                wire=self._wire,
            )
            if faulty is not None:
                self._calls.reject()
                return faulty
        try:
            body = self._answer(tenant_name, tenant, client, token_request)
        except TokenError as error:
            return self._refuse(error, request)
        return JSONResponse(amended(faults, body), headers=NOT_STORED)

    def _answer(
        self,
        tenant_name: str,
        tenant: Tenant | None,
        client: Client | None,
        request: TokenRequest,
    ) -> dict[str, object]:
        request.required("grant_type")
        client_id = request.required("client_id")
        if tenant_name.lower() in SHARED_TENANTS:
            raise TokenError(9001023, f"The endpoint is '/{tenant_name.lower()}'.")
        if tenant is None:
            raise TokenError(90002, f"The tenant is '{tenant_name}'.")
        if client is None:
            raise TokenError(700016, f"The client id is '{client_id}'.")
        if self._disabled(client):
            raise TokenError(7000112, f"The application is '{client_id}'.")
        now = self._clock()
        acr = authenticate(client, tenant, request, self._issuer, now)
        return answer(
            Call(
                self._directory,
                self._issuer,
                self._refresh_tokens,
                self._codes,
                self._devices,
                now,
                tenant,
                request,
                client,
                acr,
            )
        )

    def _client(self, tenant: Tenant | None, request: TokenRequest) -> Client | None:
        if tenant is None:
            return None
        return self._directory.client(tenant.tenant_id, request.get("client_id"))

    def _disabled(self, client: Client) -> bool:
        if isinstance(client, AgentIdentity):
            blueprint = self._directory.application(client.tenant_id, client.blueprint_id)
            return client.disabled or blueprint is None or blueprint.disabled
        return client.disabled

    def _occasion(
        self, tenant_name: str, tenant: Tenant | None, request: TokenRequest, leg: str | None
    ) -> Occasion:
        if tenant is None:
            return Occasion("token", frozenset({tenant_name.lower()}), leg)
        names = (
            request.get("username"),
            request.get("user_id"),
            str(peek(request.get("assertion")).get("oid", "")),
            self._refresh_tokens.user_of(request.get("refresh_token")),
        )
        users = (self._directory.user(tenant.tenant_id, name) for name in names if name)
        found = [user for user in users if user is not None]
        return Occasion(
            "token",
            frozenset({tenant.tenant_id, tenant.domain}),
            leg,
            request.get("client_id"),
            frozenset(name.lower() for u in found for name in (u.username, u.object_id)),
        )

    def _refuse(self, error: TokenError, request: Request) -> Response:
        self._calls.reject()
        return error_response(error, request, authority=self._issuer.authority, now=self._clock())


async def read_form(request: Request) -> TokenRequest:
    """Read a posted form; raises TokenError 900561 or 9002313."""
    if request.method != "POST":
        raise TokenError(900561, f"The request was a {request.method}.")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _FORM:
        raise TokenError(900561, f"The content type was '{media_type}'.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise TokenError(9002313, "The body is too large.")
    return TokenRequest.parse(bytes(body), request.headers.get("authorization"))
