"""A running service by the keys of the public sidecar walk-through, and a client of its token API.

Two of the keys lead to the emulator, which cannot have the names of Microsoft's hosts.
"""

from typing import Any

import httpx

from support.programs.stack import Process, World, claims
from support.proxy.plain_http import NO_TLS


def environment(world: World, **more: str) -> dict[str, str]:
    """What the walk-through's ConfigMap and Secret set, pointed at the emulator."""
    return {
        "AzureAd__Instance": world.emulator.authority + "/",
        "AzureAd__TenantId": world.tenant_id,
        "AzureAd__ClientId": world.blueprint["client_id"],
        "AzureAd__ClientCredentials__0__SourceType": "ClientSecret",
        "AzureAd__ClientCredentials__0__ClientSecret": world.blueprint["client_secret"],
        "DownstreamApis__graph__BaseUrl": f"{world.emulator.authority}/v1.0",
        "DownstreamApis__graph__Scopes__0": "https://graph.microsoft.com/.default",
        "DownstreamApis__graph__RequestAppToken": "true",
        "ASPNETCORE_ENVIRONMENT": "Development",
        "ASPNETCORE_URLS": "http://127.0.0.1:0",
        "SSL_CERT_FILE": str(world.emulator.ca_file),
        "AUTHZ_LISTEN_GRPC": f"unix:{world.folder}/authz.sock",
        "AUTHZ_LISTEN_ADMIN": "127.0.0.1:0",
        **more,
    }


class Sidecar:
    """A running service and a client of its token API."""

    def __init__(self, process: Process) -> None:
        self.process = process.wait_ready()
        self.address: str = process.event("serving")["api"]
        self.http = httpx.Client(
            base_url=f"http://{self.address}", trust_env=False, timeout=30, verify=NO_TLS
        )

    def get(self, path: str, *, token: str | None = None, **parameters: str) -> httpx.Response:
        """Send a GET."""
        return self.http.get(path, params=parameters, headers=bearer(token))

    def token(self, path: str, *, token: str | None = None, **parameters: str) -> dict[str, Any]:
        """The claims of a token that is given."""
        answer = self.get(path, token=token, **parameters)
        assert answer.status_code == 200, answer.text
        return claims(answer.json()["authorizationHeader"].removeprefix("Bearer "))


def bearer(token: str | None) -> dict[str, str]:
    """The Authorization header."""
    return {} if token is None else {"authorization": f"Bearer {token}"}
