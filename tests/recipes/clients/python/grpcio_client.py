"""Every kind of call, by grpcio. The proxy is the environment's."""

import json
import os
import sys
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import grpc

SERVICE = "/test.Echo/"
TOKEN = (("authorization", f"Bearer {os.environ['TOKEN']}"),)
PATIENCE = 60

with grpc.insecure_channel(os.environ["TARGET"]) as channel:
    unary: Any = channel.unary_unary(f"{SERVICE}Unary")
    collect: Any = channel.stream_unary(f"{SERVICE}Collect")
    tell: Any = channel.unary_stream(f"{SERVICE}Tell")
    talk: Any = channel.stream_stream(f"{SERVICE}Talk")
    try:
        unary(b"hello", timeout=PATIENCE)
        denied = "OK"
    except grpc.RpcError as error:
        denied = error.code().name
    heard: list[str] = []
    begun: SimpleQueue[Iterator[bytes]] = SimpleQueue()

    def speak() -> Iterator[bytes]:
        """Send a message once the one before is answered."""
        answers = begun.get(timeout=PATIENCE)
        for message in (b"a", b"b"):
            yield message
            heard.append(next(answers).decode())

    found = {
        "version": grpc.__version__,
        "denied": denied,
        "unary": unary(b"hello", metadata=TOKEN, timeout=PATIENCE).decode(),
        "collect": collect(iter([b"a", b"b"]), metadata=TOKEN, timeout=PATIENCE).decode(),
        "tell": [part.decode() for part in tell(b"x", metadata=TOKEN, timeout=PATIENCE)],
    }
    answers = talk(speak(), metadata=TOKEN, timeout=PATIENCE)
    begun.put(answers)
    answers.code()
    found["talk"] = heard
json.dump(found, sys.stdout)
