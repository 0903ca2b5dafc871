"""An MCP client that calls the one tool of a server; how it signs in is said on its command line.

`url`: it knows the server's URL and maybe its own client id, as the SDK's own sign-in has it. `entra`: it
was given authority, client id and scope as well, and leaves out `resource`. `token`: it sends what it was
given.
"""

import asyncio
import json
import os
import ssl
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.oauth2 import OAuthContext
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
    ProtectedResourceMetadata,
)

URL = os.environ["MCP_URL"]
REDIRECT = "http://localhost:4711"
TLS = ssl.create_default_context(cafile=os.environ.get("TRUSTED"))


class Storage:
    """Keeps what the SDK has it keep."""

    def __init__(self, client: OAuthClientInformationFull | None = None) -> None:
        self.client, self.tokens = client, None

    async def get_tokens(self) -> OAuthToken | None:
        """Return the tokens."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep the tokens."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return who the client is."""
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep who the client is."""
        self.client = client_info


class Browser:
    """A user's browser: signs in where it is sent, and comes back."""

    def __init__(self) -> None:
        self.back = ""
        self.scopes: list[list[str]] = []

    async def go(self, url: str) -> None:
        """Open a page, as a user who is signed in already."""
        self.scopes.append(parse_qs(urlsplit(url).query)["scope"][0].split())
        async with httpx2.AsyncClient(verify=TLS, trust_env=False) as client:
            answer = await client.get(f"{url}&login_hint={os.environ['USER_NAME']}")
        self.back = answer.headers["location"]

    async def returned(self) -> AuthorizationCodeResult:
        """Return what the user came back with."""
        query = parse_qs(urlsplit(self.back).query)
        if "code" not in query:
            raise ConnectionError(f"{query['error']} {query['error_description']}")
        return AuthorizationCodeResult(code=query["code"][0], state=query["state"][0])


class WithoutResource(OAuthContext):
    """Leaves out `resource`, which Entra refuses beside a scope that names another one."""

    def should_include_resource_param(self, protocol_version: str | None = None) -> bool:
        """Return that it is not sent."""
        return False


def by_url(browser: Browser) -> OAuthClientProvider:
    """Return the SDK's own sign-in."""
    client = None
    metadata = OAuthClientMetadata(client_name="test", redirect_uris=[REDIRECT])
    if "CLIENT_ID" in os.environ:
        client = OAuthClientInformationFull(
            client_id=os.environ["CLIENT_ID"],
            redirect_uris=[REDIRECT],
            token_endpoint_auth_method="none",
        )
    return OAuthClientProvider(URL, metadata, Storage(client), browser.go, browser.returned)


def by_entra() -> OAuthClientProvider:
    """Return the same with what the server does not say."""
    issuer, scope = os.environ["ISSUER"], os.environ["SCOPE"]
    browser, metadata = Browser(), OAuthClientMetadata(redirect_uris=[REDIRECT])
    client = OAuthClientInformationFull(
        client_id=os.environ["CLIENT_ID"],
        redirect_uris=[REDIRECT],
        token_endpoint_auth_method="none",
        issuer=issuer,
    )
    provider = OAuthClientProvider(URL, metadata, Storage(client), browser.go, browser.returned)
    provider.context = WithoutResource(
        server_url=URL,
        client_metadata=metadata,
        storage=provider.context.storage,
        redirect_handler=browser.go,
        callback_handler=browser.returned,
        auth_server_url=issuer,
        protected_resource_metadata=ProtectedResourceMetadata(
            resource=URL, authorization_servers=[issuer], scopes_supported=[scope]
        ),
    )
    return provider


def causes(error: BaseException) -> list[str]:
    """Return the errors of a group, in words."""
    if isinstance(error, BaseExceptionGroup):
        return [text for each in error.exceptions for text in causes(each)]
    return [f"{type(error).__name__}: {error}"]


async def main(way: str, tool: str, argument: str) -> dict[str, Any]:
    """Call the tool."""
    asked: list[str] = []

    async def note(request: httpx2.Request) -> None:
        asked.append(f"{request.method} {request.url.path}")

    options: dict[str, Any] = {"verify": TLS, "timeout": 30, "event_hooks": {"request": [note]}}
    if way == "token":
        options["headers"] = {"authorization": f"Bearer {os.environ['TOKEN']}"}
    else:
        options["auth"] = by_url(Browser()) if way == "url" else by_entra()
    try:
        async with (
            httpx2.AsyncClient(**options) as http_client,
            Client(streamable_http_client(URL, http_client=http_client)) as client,
        ):
            result = await client.call_tool(tool, {argument: "x"})
            return {"said": result.content[0].text, "asked": asked}
    except BaseException as error:  # noqa: BLE001 - how it fails is what is asked
        return {"failed": causes(error), "asked": asked}


if __name__ == "__main__":
    json.dump(asyncio.run(main(*sys.argv[1:])), sys.stdout)
