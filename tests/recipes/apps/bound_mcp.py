"""An MCP server as the agent, with sessions: bound to their callers, or as the SDK leaves them."""

import os

from caller_as_user import CallerAsUser, mcp_user
from health import Health
from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")


@server.tool()
def note(text: str) -> str:
    """Take a note."""
    return f"noted: {text}"


# The host that callers name is Envoy's business here, so the SDK's own check of it is not asked for.
inner = server.streamable_http_app(host="0.0.0.0")  # noqa: S104 - a name, nothing listens there
app = Health(CallerAsUser(inner, mcp_user) if os.environ["BOUND"] else inner)
