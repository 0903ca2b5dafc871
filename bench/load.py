"""The client: sends prepared Checks in a closed loop, and prints how long each took, as JSON.

Arguments: socket, file of requests (length-prefixed, sent in turn), number of calls, calls in flight.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import grpc
import uvloop

from authz._pb.external_auth_pb2 import CheckResponse

METHOD = "/envoy.service.auth.v3.Authorization/Check"


def requests(file: Path) -> Iterator[bytes]:
    """Read the prepared requests."""
    content = file.read_bytes()
    while content:
        length = int.from_bytes(content[:4], "big")
        yield content[4 : 4 + length]
        content = content[4 + length :]


async def run(socket: str, prepared: list[bytes], number: int, in_flight: int) -> dict[str, object]:
    """Send the calls and return durations in seconds, denials and the time in all."""
    durations: list[float] = []
    denied = 0
    queue = islice(cycle(prepared), number)
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, CheckResponse] = channel.unary_unary(
            METHOD, response_deserializer=CheckResponse.FromString
        )
        await channel.channel_ready()

        async def caller() -> None:
            nonlocal denied
            for request in queue:
                started = time.perf_counter()
                answer = await call(request, timeout=10)
                durations.append(time.perf_counter() - started)
                denied += answer.status.code != 0

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        took = time.perf_counter() - started
    return {"durations": durations, "denied": denied, "seconds": took}


if __name__ == "__main__":
    socket, file, number, in_flight = sys.argv[1:5]
    prepared = list(requests(Path(file)))
    print(json.dumps(uvloop.run(run(socket, prepared, int(number), int(in_flight)))))
