"""An agent that uses tools of an MCP server, over streamable HTTP with the official SDK.

Some of its endpoints pass `Authorization` on, others look at no header.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
from fastapi import FastAPI, Request
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

TOOLS_URL = os.environ["TOOLS_URL"]


class Shared:
    """One session with the server for all requests, opened when it is first needed."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._opening = asyncio.Lock()
        self._client: Client | None = None

    async def client(self) -> Client:
        """Return the session."""
        async with self._opening:
            if self._client is None:
                self._client = await self._stack.enter_async_context(Client(TOOLS_URL))
            return self._client


shared: Shared


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close the shared session at the end."""
    global shared  # noqa: PLW0603 - the usual place for what an application shares
    async with AsyncExitStack() as stack:
        shared = Shared(stack)
        yield


app = FastAPI(title="recipes", lifespan=lifespan)


async def use(client: Client, item: str) -> list[int]:
    """Call the tool; 200 if it did what it is for."""
    result = await client.call_tool("look_up", {"item": item})
    return [500 if result.is_error else 200]


@app.get("/healthz")
async def healthz() -> str:
    """Tell that the application runs."""
    return "ok"


@app.get("/own-session/{item}")
async def own_session(item: str) -> list[int]:
    """Open a session for this request."""
    async with Client(TOOLS_URL) as client:
        return await use(client, item)


@app.get("/shared-session/{item}")
async def shared_session(item: str) -> list[int]:
    """Use the session that all requests share."""
    return await use(await shared.client(), item)


@app.get("/forwarding/{item}")
async def forwarding(item: str, request: Request) -> list[int]:
    """Open a session for this request, and pass on how its caller signed in."""
    headers = {"authorization": request.headers["authorization"]}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http_client,
        Client(streamable_http_client(TOOLS_URL, http_client=http_client)) as client,
    ):
        return await use(client, item)
