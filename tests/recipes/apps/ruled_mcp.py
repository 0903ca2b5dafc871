"""An MCP server as the agent: tools for rules to tell apart, and streams that are silent or resumed."""

import asyncio

from caller_as_user import CallerAsUser, mcp_user
from health import Health
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCMessage
from starlette.types import ASGIApp, Receive, Scope, Send

RETRY_MS = 50
server = MCPServer("desk")
opened, resumed = asyncio.Event(), asyncio.Event()


@server.tool()
def note(text: str) -> str:
    """Take a note."""
    return f"noted: {text}"


@server.tool()
def book(text: str) -> str:
    """Book a journey."""
    return f"booked: {text}"


@server.tool()
def erase(text: str) -> str:
    """Erase all notes."""
    return f"erased: {text}"


@server.tool()
async def ponder(text: str, context: Context) -> str:
    """Say nothing for that many seconds, then send a notice by the session's stream, and answer."""
    await opened.wait()
    await asyncio.sleep(float(text))
    await context.session.send_tool_list_changed()
    return "pondered"


@server.tool()
async def outlast(text: str) -> str:
    """Answer when the client has come back for the answer."""
    await resumed.wait()
    return f"outlasted: {text}"


class Kept(EventStore):
    """Keeps every event, so that a stream can be resumed."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Keep an event; return its id."""
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(
        self, last_event_id: str, send_callback: EventCallback
    ) -> str | None:
        """Send what came later in the same stream."""
        stream, _ = self._events[int(last_event_id) - 1]
        for place, (other, message) in enumerate(self._events, 1):
            if place > int(last_event_id) and other == stream and message is not None:
                await send_callback(EventMessage(message, str(place)))
        return stream


class Streams:
    """Notes that a stream was opened, or resumed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Note it and pass the request on."""
        if scope["type"] == "http" and scope["method"] == "GET":
            opened.set()
            if b"last-event-id" in dict(scope["headers"]):
                resumed.set()
        await self._app(scope, receive, send)


# The host that callers name is Envoy's business here, so the SDK's own check of it is not asked for.
inner = server.streamable_http_app(
    host="0.0.0.0",  # noqa: S104 - a name, nothing listens there
    event_store=Kept(),
    retry_interval=RETRY_MS,
)
app = Health(CallerAsUser(Streams(inner), mcp_user))
