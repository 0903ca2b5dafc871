"""A program that asks over kept connections: `-m support.peers.persistent_callers URL NUMBER`.

It takes a header for each request from the first line of its input, and goes on until its input ends. Then
it prints how often each outcome was seen, as JSON: a status, or the name of an error.
"""

import asyncio
import json
import sys
from collections import Counter

import httpx


async def _call(url: str, headers: dict[str, str], seen: Counter[str], end: asyncio.Event) -> None:
    async with httpx.AsyncClient(timeout=20, trust_env=False, headers=headers) as client:
        while not end.is_set():
            try:
                answer = await client.get(url)
            except httpx.HTTPError as error:
                seen[type(error).__name__] += 1
            else:
                seen[str(answer.status_code)] += 1
            # Each is somebody who thinks a little between two questions.
            await asyncio.sleep(0.05)


async def _main(url: str, number: int) -> None:
    name, _, value = sys.stdin.readline().strip().partition(": ")
    end, seen = asyncio.Event(), Counter[str]()
    callers = [asyncio.create_task(_call(url, {name: value}, seen, end)) for _ in range(number)]
    await asyncio.to_thread(sys.stdin.read)
    end.set()
    await asyncio.gather(*callers)
    print(json.dumps(seen))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
