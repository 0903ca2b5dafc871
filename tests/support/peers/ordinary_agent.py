"""An ordinary agent: what a team would have written who never heard of a proxy, Envoy or authz.

For a request it does everything at once, with the `Authorization` that it was called with. Variables of its
environment are for its libraries alone.
"""

import asyncio
import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Awaitable
from typing import Any

import grpc
import httpx
from fastapi import FastAPI, Request

app = FastAPI()

GRAPH = "http://graph.microsoft.com/v1.0"
MODEL = "https://model.example/v1/models"
UNKNOWN = "https://unknown.example/"
TOOLS = "http://tools.apps.svc:8000"
CHAT = "chat.apps.svc:8001"
COLLECTOR = "collector.monitoring.svc:4317"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    """Tell that it runs."""
    return {"status": "ok"}


@app.get("/work")
async def work(request: Request) -> dict[str, Any]:
    """Do all that there is to do for a user."""
    authorization = request.headers["authorization"]
    async with httpx.AsyncClient(
        headers={"authorization": authorization}, timeout=30, http2=True
    ) as client:
        jobs: dict[str, Awaitable[Any]] = {
            "pages": pages(client),
            "report": report(client),
            "tools": tools(client),
            "events": events(client),
            "model": get(client, MODEL),
            "unknown": get(client, UNKNOWN),
            "telemetry": export(authorization),
            "chat": asyncio.to_thread(chat, authorization),
            "past": asyncio.to_thread(past_any_proxy, authorization),
        }
        done = await asyncio.gather(*map(outcome, jobs.values()))
    return {"received": authorization, **dict(zip(jobs, done, strict=True))}


async def outcome(job: Awaitable[Any]) -> Any:
    """Return what a job made, or how it failed."""
    try:
        return await job
    except Exception as error:  # noqa: BLE001 - the agent says what failed, and goes on
        return f"{type(error).__name__}: {error}"


async def get(client: httpx.AsyncClient, url: str) -> Any:
    """Call an API."""
    answer = await client.get(url)
    return answer.raise_for_status().json()


async def pages(client: httpx.AsyncClient) -> list[str]:
    """Collect all pages, wherever the next one is said to be."""
    found: list[str] = []
    url: str | None = f"{GRAPH}/users"
    try:
        while url is not None:
            page = await get(client, url)
            found += page["value"]
            url = page.get("@odata.nextLink")
    except httpx.HTTPError as error:
        found.append(f"{type(error).__name__}: {error}")
    return found


async def report(client: httpx.AsyncClient) -> Any:
    """Order a report, and look for it where the answer says."""
    ordered = await client.post(f"{GRAPH}/reports")
    return await get(client, ordered.headers["location"])


async def tools(client: httpx.AsyncClient) -> Any:
    """Ask an MCP server of the cluster for its tools."""
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    answer = await client.post(f"{TOOLS}/mcp", json=asked)
    return answer.raise_for_status().json()["result"]


async def events(client: httpx.AsyncClient) -> list[str]:
    """Read a stream to its end: the server keeps quiet in the middle, until another call."""
    found = []
    async with client.stream("GET", f"{TOOLS}/events") as answer:
        async for line in answer.aiter_lines():
            if line:
                found.append(line)
            if line == "data: first":
                await client.post(f"{TOOLS}/go-on")
    return found


async def export(authorization: str) -> str:
    """Send telemetry, with more than it should have."""
    async with grpc.aio.insecure_channel(COLLECTOR) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EXPORT)
        await call(b"", metadata=(("authorization", authorization),), timeout=20)
    return "sent"


def chat(authorization: str) -> str:
    """Say something by WebSocket, through a connection that the proxy opens where there is one."""
    host, _, port = CHAT.partition(":")
    proxy = urllib.request.getproxies().get("http")
    found = urllib.parse.urlsplit(proxy or f"http://{CHAT}")
    with socket.create_connection((found.hostname or host, found.port or int(port)), 20) as line:
        if proxy is not None:
            line.sendall(f"CONNECT {CHAT} HTTP/1.1\r\nhost: {CHAT}\r\n\r\n".encode())
            opened = until_blank_line(line)
            if b" 200 " not in opened.partition(b"\r\n")[0]:
                return opened.decode()
        line.sendall(
            f"GET /socket HTTP/1.1\r\nhost: {CHAT}\r\nauthorization: {authorization}\r\n"
            "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        upgraded = until_blank_line(line)
        if b" 101 " not in upgraded.partition(b"\r\n")[0]:
            return upgraded.decode()
        line.sendall(b"hello")
        return line.recv(5, socket.MSG_WAITALL).decode()


def until_blank_line(line: socket.socket) -> bytes:
    """Read the head of an answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (byte := line.recv(1)):
        head += byte
    return head


def past_any_proxy(authorization: str) -> Any:
    """Call an API by a library that looks at no proxy variable."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(
        "https://graph.microsoft.com/v1.0/past", headers={"Authorization": authorization}
    )
    with opener.open(request, timeout=20) as answer:
        return json.load(answer)
