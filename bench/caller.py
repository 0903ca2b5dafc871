"""Checks that differ from one another, which h2load cannot send: a gRPC client in a process of its own.

As a program: sends prepared Checks in a closed loop. Its arguments are a gRPC target, a file of requests
(length-prefixed, sent in turn), the number of calls and the calls in flight; it prints JSON. `send`
runs it. It is Python, so it costs as much as what it measures: compare its rows with one another only.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import grpc
import uvloop

from authz._pb.external_auth_pb2 import CheckResponse
from bench.checks import METHOD
from bench.load import LoadError, Run

_PREFIX = 4
_CALL_SECONDS = 30


def send(address: str, prepared: Sequence[bytes], *, number: int, in_flight: int) -> Run:
    """Send prepared Checks, in turn, from another process.

    Raises:
        LoadError: One was denied or not answered.
    """
    with tempfile.NamedTemporaryFile(prefix="authz-checks-") as file:
        for one in prepared:
            file.write(len(one).to_bytes(_PREFIX, "big") + one)
        file.flush()
        command = [sys.executable, "-m", "bench.caller", address, file.name]
        done = subprocess.run(
            [*command, str(number), str(in_flight)], capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise LoadError(f"Checks were not answered: {done.stderr[-1000:]}")
    measured = json.loads(done.stdout)
    if measured["denied"]:
        raise LoadError(f"{measured['denied']} of {number} Checks were denied: {measured['why']}")
    return Run(measured["seconds"], tuple(sorted(measured["latencies"])), measured["bytes"])


async def _run(
    address: str, prepared: list[bytes], number: int, in_flight: int
) -> dict[str, object]:
    latencies: list[int] = []
    denials: list[str] = []
    size = 0
    queue = islice(cycle(prepared), number)
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        await channel.channel_ready()

        async def caller() -> None:
            nonlocal size
            for request in queue:
                started = time.perf_counter()
                content = await call(request, timeout=_CALL_SECONDS)
                latencies.append(round((time.perf_counter() - started) * 1e6))
                size += len(content)
                answer = CheckResponse.FromString(content)
                if answer.status.code:
                    denials.append(answer.status.message)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        took = time.perf_counter() - started
    return {
        "latencies": latencies,
        "denied": len(denials),
        "why": denials[0] if denials else None,
        "seconds": took,
        "bytes": size,
    }


def _requests(file: Path) -> Iterator[bytes]:
    content = memoryview(file.read_bytes())
    while content:
        end = _PREFIX + int.from_bytes(content[:_PREFIX], "big")
        yield bytes(content[_PREFIX:end])
        content = content[end:]


if __name__ == "__main__":
    address, file, number, in_flight = sys.argv[1:5]
    outcome = uvloop.run(_run(address, list(_requests(Path(file))), int(number), int(in_flight)))
    print(json.dumps(outcome))
