"""Streams, uploads and downloads by aiohttp."""

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path

import aiohttp

API, NAME, BODY = (os.environ[name] for name in ("API", "NAME", "BODY"))


async def _main() -> None:
    async with aiohttp.ClientSession(API) as session:
        events = []
        async with session.get(f"/v1/stream/{NAME}") as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    events.append(line.removeprefix(b"data: ").decode().strip())
                    await (await session.post(f"/v1/seen/{NAME}")).read()
        with Path(BODY).open("rb") as file:  # noqa: ASYNC230
            async with session.post("/v1/digest", data=file) as answer:
                up = (await answer.json())["digest"]
        digest = hashlib.sha256()
        async with session.get(f"/v1/bytes/{NAME}") as answer:
            async for chunk in answer.content.iter_any():
                digest.update(chunk)
        version = f"{answer.version.major}.{answer.version.minor}"
    json.dump(
        {"events": events, "up": up, "down": digest.hexdigest(), "version": version}, sys.stdout
    )


asyncio.run(_main())
