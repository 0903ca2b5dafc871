"""A strict Azure Key Vault on loopback, and an identity of the pod that may read it.

It speaks TLS, answers a first request with the bearer challenge that Key Vault gives, and then verifies the
token: signature, issuer, audience, times and who it is for.
"""

import json
import ssl
import uuid
from typing import Any, Self

import httpx
import jwt
from jwt import PyJWK
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from authz_dev.emulator.entities import Application, FederatedCredential
from authz_dev.emulator.server import TlsServer
from support.programs.stack import World

RESOURCE = "https://vault.azure.net"
SECRETS = ("/secrets/{name}", "/secrets/{name}/")
ISSUER = "https://cluster.example"
SUBJECT = "system:serviceaccount:agents:authz"


class FakeVault:
    """One vault.

    Args:
        world: Whose first tenant the vault belongs to.
        reader: Client id of the identity that may read it.
    """

    def __init__(self, world: World, reader: str) -> None:
        self.secrets: dict[str, tuple[str, str]] = {}
        """Content type and value, by name."""
        self.failure: tuple[int, str] | None = None
        """Status and message that every request with a token is answered with."""
        self.redirect: str | None = None
        """Where every request with a token is sent on to."""
        self.requests: list[str] = []
        """Outcome of each request so far: `challenged`, `refused`, `read` or `failed`."""
        self._world = world
        self.reader = reader
        self._app = Starlette(routes=[Route(path, self._read) for path in SECRETS])
        self._server = TlsServer("127.0.0.1", 0, ())
        trust = ssl.create_default_context(cafile=world.emulator.ca_file)
        with httpx.Client(verify=trust, trust_env=False) as client:
            keys = client.get(f"{world.emulator.authority}/{world.tenant_id}/discovery/keys")
        self._keys = {key["kid"]: PyJWK(key, "RS256") for key in keys.json()["keys"]}

    def __enter__(self) -> Self:
        self._server.serve(self._app, self._server.bind())
        trusted = self._world.folder / "trusted.pem"
        trusted.write_bytes(self._world.emulator.ca_file.read_bytes() + self._server.ca_pem)
        self.ca_file = trusted
        self.url = f"https://127.0.0.1:{self._server.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone."""
        self._server.stop()

    async def _read(self, request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if "api-version" not in request.query_params:
            return self._error(400, "BadParameter", "api-version is missing", "failed")
        if not token:
            return self._challenge("challenged")
        if scheme.lower() != "bearer" or not self._admits(token):
            return self._challenge("refused")
        if self.failure is not None:
            return self._error(self.failure[0], "Failure", self.failure[1], "failed")
        if self.redirect is not None:
            return RedirectResponse(f"{self.redirect}{request.url.path}?{request.url.query}")
        found = self.secrets.get(request.path_params["name"])
        if found is None:
            return self._error(404, "SecretNotFound", "there is no such secret", "failed")
        self.requests.append("read")
        content_type, value = found
        version = uuid.uuid4().hex
        return JSONResponse(
            {
                "value": value,
                "contentType": content_type,
                "id": f"{self.url}/secrets/{request.path_params['name']}/{version}",
                "managed": True,
                "attributes": {"enabled": True, "created": 1700000000, "updated": 1700000000},
            }
        )

    def _admits(self, token: str) -> bool:
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            claims = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=RESOURCE,
                options={"require": ["exp", "nbf", "iss", "aud", "tid"]},
            )
        except (jwt.InvalidTokenError, KeyError):
            return False
        return (claims["tid"], claims["appid"]) == (self._world.tenant_id, self.reader)

    def _challenge(self, outcome: str) -> JSONResponse:
        answer = self._error(401, "Unauthorized", "AKV10000: a bearer token is missing", outcome)
        answer.headers["www-authenticate"] = (
            f'Bearer authorization="https://login.microsoftonline.com/{self._world.tenant_id}", '
            f'resource="{RESOURCE}"'
        )
        return answer

    def _error(self, status: int, code: str, message: str, outcome: str) -> JSONResponse:
        self.requests.append(outcome)
        # Nobody is to sleep that long because a vault says so.
        headers = {"retry-after": "3600"} if status in {429, 503} else {}
        return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def add_reader(world: World, **credentials: Any) -> Application:
    """Register the vaults' resource in the first tenant, and an identity that asks for its tokens."""
    directory = world.emulator.directory
    directory.add_application(
        Application(
            world.tenant_id,
            "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
            str(uuid.uuid4()),
            "Azure Key Vault",
            identifier_uris=(RESOURCE,),
            token_version=1,
        )
    )
    return directory.add_application(
        Application(
            world.tenant_id, str(uuid.uuid4()), str(uuid.uuid4()), "vault reader", **credentials
        )
    )


def pod_identity(world: World, key: Any) -> FederatedCredential:
    """Trust in the service account whose tokens `service_account_token` makes with the key."""
    return FederatedCredential(ISSUER, SUBJECT, keys={"k1": key.public_key()})


def service_account_token(key: Any, now: float) -> str:
    """A projected service account token."""
    claims = {
        "iss": ISSUER, "sub": SUBJECT, "aud": ["api://AzureADTokenExchange"],
        "iat": int(now), "nbf": int(now), "exp": int(now) + 600,
    }  # fmt: skip
    return jwt.encode(claims, key, "RS256", headers={"kid": "k1"})


def metadata_answer(token: str) -> bytes:
    """What the host's metadata service says."""
    return json.dumps(
        {
            "access_token": token,
            "expires_in": "3600",
            "expires_on": "4102444800",
            "token_type": "Bearer",
            "resource": RESOURCE,
        }
    ).encode()
