"""`ODDITIES`: calls that keep to HTTP/2, and that are none to the method or say more to gRPC, by name."""

import random
from collections.abc import Callable
from typing import Final

from support.beside_grpcio.speaker import Plan, request
from support.peers.check_door_peer import message

Oddity = Callable[[random.Random, bytes], Plan]
"""Makes a call of a message."""


def _changed(header: str, *values: str | None) -> Oddity:
    """Return a call with another value of a header, or without it."""
    return lambda chance, content: Plan(
        request(**{header: chance.choice(values)}), message(content)
    )


def _with(header: str, *values: str) -> Oddity:
    """Return a call with one header more."""
    return lambda chance, content: Plan(
        [*request(), (header, chance.choice(values))], message(content)
    )


def _of(body: Callable[[random.Random, bytes], bytes]) -> Oddity:
    """Return a call with another body."""
    return lambda chance, content: Plan(request(), body(chance, content))


def _compressed(chance: random.Random, content: bytes) -> Plan:
    encoding = chance.choice([None, "identity", "gzip", "x"])
    more = [] if encoding is None else [("grpc-encoding", encoding)]
    return Plan([*request(), *more], b"\1" + message(content)[1:])


def _several(chance: random.Random, content: bytes) -> bytes:
    return message(content) + message(chance.randbytes(20)) * chance.randrange(1, 3)


def _longer(chance: random.Random, content: bytes) -> bytes:
    more = chance.choice([1, 100, 2**20, 2**31])
    return b"\0" + (len(content) + more).to_bytes(4, "big") + content


def _shorter(chance: random.Random, content: bytes) -> bytes:
    return b"\0" + chance.randrange(len(content) + 1).to_bytes(4, "big") + content + b"x"


ODDITIES: Final[dict[str, Oddity]] = {
    "another path": _changed("_path", "/service/Other", "/", "/service/check", "*"),
    "another method": _changed("_method", "GET", "PUT", "OPTIONS", "post"),
    "another content type": _changed(
        "content_type", "text/plain", "application/json", "application/grpcx", "", None
    ),
    "parameter of the content type": _changed("content_type", "application/grpc;charset=utf-8"),
    "no te": _changed("te", None),
    "no authority": _changed("_authority", None),
    "odd timeout": _with("grpc-timeout", "1x", "S", "123456789S", "-1S", "1 S", "1.5S", "x"),
    "timeout that passes": _with("grpc-timeout", "1n", "0S", "10u"),
    "encoding that is not used": _with("grpc-encoding", "gzip", "identity", "x"),
    "binary header that is none": _with("x-bin", "%"),
    "compressed": _compressed,
    "odd mark of compression": _of(
        lambda chance, content: bytes([chance.choice([2, 128, 255])]) + message(content)[1:]
    ),
    "longer prefix": _of(_longer),
    "shorter prefix": _of(_shorter),
    "half a prefix": _of(lambda chance, _: bytes(chance.randrange(1, 5))),
    "no message": _of(lambda *_: b""),
    "several messages": _of(_several),
}
