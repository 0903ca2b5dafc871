"""Everything that a client does, by aiohttp, which takes the environment's proxy where `trust_env` is set."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

BASE, TOKEN, NAME, BODY = (os.environ[name] for name in ("BASE", "TOKEN", "NAME", "BODY"))


async def chunks() -> AsyncIterator[bytes]:
    """Read the body in parts, so that its length is not known."""
    with open(BODY, "rb") as file:  # noqa: ASYNC230, PTH123
        while part := file.read(65536):
            yield part


async def main() -> None:
    """Send one request after the other."""
    async with aiohttp.ClientSession(trust_env=True) as session:

        async def status(method: str, path: str, **headers: str) -> int:
            sent = {"Authorization": f"Bearer {TOKEN}", **headers}
            async with session.request(method, f"{BASE}{path}", headers=sent) as answer:
                await answer.read()
                return int(answer.status)

        async def text(method: str, path: str, body: Any = None) -> str:
            sent = {"Authorization": f"Bearer {TOKEN}"}
            async with session.request(method, f"{BASE}{path}", headers=sent, data=body) as answer:
                return str(await answer.text())

        async with session.get(f"{BASE}/echo") as answer:
            denied = answer.status
        found: dict[str, Any] = {
            "version": aiohttp.__version__,
            "denied": denied,
            "kept": [await status("GET", "/echo") for _ in range(3)],
            "head": await status("HEAD", "/echo"),
            "options": await status("OPTIONS", "/echo"),
            "underscore": await status("GET", "/underscore", client_id="x"),
        }
        with open(BODY, "rb") as file:  # noqa: ASYNC230, PTH123
            found["upload"] = await text("POST", "/digest", file)
        found["chunked"] = await text("POST", "/digest", chunks())
        events = []
        sent = {"Authorization": f"Bearer {TOKEN}"}
        async with session.get(f"{BASE}/events/{NAME}", headers=sent) as stream:
            async for line in stream.content:
                if line.startswith(b"data: "):
                    events.append(line.removeprefix(b"data: ").decode().strip())
                    await status("POST", f"/seen/{NAME}")
        found["events"] = events
        found["gzip"] = (await text("GET", "/gzip"))[:8]
    json.dump(found, sys.stdout)


asyncio.run(main())
