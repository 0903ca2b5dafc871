"""An agent as an MCP server: its tool looks up orders for the user whose client calls it."""

import os

import httpx
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

ORDERS_URL = os.environ["ORDERS_URL"]

server = MCPServer("orders")


@server.custom_route("/healthz", methods=["GET"])
async def healthz(_: Request) -> Response:
    """Answer a probe."""
    return PlainTextResponse("ok")


@server.tool()
async def my_orders(context: Context) -> str:
    """Look up the caller's orders; the header of the request is passed on as it came."""
    authorization = context.headers["authorization"]
    print(f"received {authorization[:26]}…", flush=True)
    # httpx finds Envoy in HTTP_PROXY, and Envoy adds TLS and the token.
    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.get(f"{ORDERS_URL}/orders", headers={"authorization": authorization})
    return answer.raise_for_status().text


# Without sessions, no caller can use another one's. Which host a caller names is Envoy's business here.
app = server.streamable_http_app(stateless_http=True, json_response=True, host="0.0.0.0")  # noqa: S104 - in a pod of its own

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]))
