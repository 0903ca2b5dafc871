"""An MCP server, as the agent's destination: one tool, and a record of every request that arrived."""

import json
from typing import Any

from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

server = MCPServer("tools")
received: list[dict[str, Any]] = []


@server.tool()
def look_up(item: str) -> str:
    """Look an item up."""
    return f"{item}: in stock"


@server.custom_route("/received", methods=["GET"])
async def show_received(_: Request) -> JSONResponse:
    """Return every request so far: header lines and body."""
    return JSONResponse(received)


class Record:
    """Notes what arrives before anything else looks at it."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note a request and pass it on."""
        if scope["type"] != "http" or scope["path"] == "/received":
            await self._inner(scope, receive, send)
            return
        body = b""

        async def noting() -> Message:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            return message

        headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
        try:
            await self._inner(scope, noting, send)
        finally:
            text = body.decode()
            received.append({"headers": headers, "body": json.loads(text) if text else None})


# The host that callers name is Envoy's business here, so the SDK's own check of it is not asked for.
app = Record(server.streamable_http_app(host="0.0.0.0"))  # noqa: S104 - a name, nothing listens there
