"""An MCP client that knows a server's URL and its own client id, and takes several steps in a session.

Each word of its command line is a step: `tools` lists the tools, `noticed` waits for a notice of the server,
`NAME` calls a tool and `NAME=TEXT` says with what, and `NAME+` calls it until the client has been given
another token.
"""

import asyncio
import json
import sys
from typing import Any

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.session import IncomingMessage
from mcp.client.streamable_http import streamable_http_client
from mcp_client import TLS, URL, Browser, by_url, causes

PATIENCE = 30
asked: list[dict[str, Any]] = []
noticed = asyncio.Event()


async def answered(response: httpx2.Response) -> None:
    """Note a request and its answer."""
    request = response.request
    asked.append(
        {
            "request": f"{request.method} {request.url.path}",
            "status": response.status_code,
            "session": request.headers.get("mcp-session-id"),
            "resumes": "last-event-id" in request.headers,
        }
    )


async def receive(_: IncomingMessage) -> None:
    """Note that the server has sent something of its own accord."""
    noticed.set()


async def take(step: str, client: Client, auth: OAuthClientProvider) -> Any:
    """Take a step; return what came of it."""
    if step == "tools":
        return [tool.name for tool in (await client.list_tools()).tools]
    if step == "noticed":
        await asyncio.wait_for(noticed.wait(), PATIENCE)
        return "noticed"
    name, _, text = step.removesuffix("+").partition("=")
    token = auth.context.current_tokens
    while True:
        result = await client.call_tool(name, {"text": text or "x"})
        if not step.endswith("+") or token is not auth.context.current_tokens:
            return result.content[0].text


async def main(*steps: str) -> dict[str, Any]:
    """Open a session, take all steps, and close it."""
    browser = Browser()
    done: list[dict[str, Any]] = []
    auth = by_url(browser)
    told: dict[str, Any] = {"done": done, "asked": asked, "scopes": browser.scopes}
    try:
        async with (
            httpx2.AsyncClient(
                verify=TLS, timeout=PATIENCE, auth=auth, event_hooks={"response": [answered]}
            ) as http_client,
            Client(
                streamable_http_client(URL, http_client=http_client), message_handler=receive
            ) as client,
        ):
            told["version"] = client.protocol_version
            for step in steps:
                before = len(asked)
                try:
                    outcome = await take(step, client, auth)
                except Exception as error:  # noqa: BLE001 - how it fails is what is asked
                    outcome = causes(error)
                done.append({"outcome": outcome, "asked": asked[before:]})
    except BaseException as error:  # noqa: BLE001 - as above
        told["failed"] = causes(error)
    return told


if __name__ == "__main__":
    json.dump(asyncio.run(main(*sys.argv[1:])), sys.stdout)
