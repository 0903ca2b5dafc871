"""The Check door with a real client, gRPC's: the same answers as grpcio's server, and how it ends."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from authz._pb.external_auth_pb2 import CheckResponse
from authz.core.exchange import Flow
from authz.doors.envoy.ext_authz import SERVICE, ExtAuthz
from authz.doors.envoy.grpc_server import GrpcServer, ServerSettings
from authz.doors.envoy.http2.calls import LARGEST_MESSAGE
from authz.doors.envoy.http2.server import CheckServer
from authz.doors.envoy.http2.session import Method
from support.fakes.questions import wire
from support.fakes.scene import INBOUND, Scene
from support.programs.stack import until

CHECK: Final = f"/{SERVICE}/Check"
Call = Any


class Echo:
    """A method that answers with what it is asked, at once or when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.waiting = 0
        self.cancelled = 0
        self.timeouts: list[float | None] = []

    def answer(self, message: bytes, timeout: float | None) -> Any:
        """Wait if the message says so, or fail."""
        self.timeouts.append(timeout)
        if message == b"fail":
            raise RuntimeError("a defect")
        if message == b"bad":
            raise ValueError("not a CheckRequest")
        return self._later(message) if message.startswith(b"wait") else message

    async def _later(self, message: bytes) -> bytes:
        self.waiting += 1
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        if message == b"wait and fail":
            raise RuntimeError("a defect")
        return message


@asynccontextmanager
async def serving(
    folder: Path, method: Method, **settings: Any
) -> AsyncIterator[tuple[CheckServer, Path]]:
    """Run a server."""
    path = folder / "checks.sock"
    server = CheckServer(path, CHECK, method, **settings)
    await server.start()
    try:
        yield server, path
    finally:
        await server.stop()


@asynccontextmanager
async def client(path: Path, method: str = CHECK) -> AsyncIterator[Call]:
    """Return a call of a method, bytes in and out."""
    # With channels of one process that have the same address gRPC shares connections.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
        yield channel.unary_unary(method)


async def code_of(call: Any) -> grpc.StatusCode:
    """Return the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code()


@pytest.mark.parametrize("size", [0, 1, 5, 16_379, 16_384, 65_535, 300_000, LARGEST_MESSAGE])
async def test_messages_of_every_size_are_answered(tmp_path: Path, size: int) -> None:
    """Beyond one frame, and beyond the window that a client begins with."""
    message = os.urandom(size)
    async with serving(tmp_path, Echo()) as (_, path), client(path) as call:
        assert message == await call(message)
        assert message == await call(message)


async def test_many_at_a_time_are_answered_each_with_its_own(tmp_path: Path) -> None:
    """At once and later, in any order, over one connection; the windows never run dry."""
    echo = Echo()
    messages = [b"wait %d " % number + os.urandom(number * 50) for number in range(300)]
    messages += [b"%d " % number + os.urandom(number * 50) for number in range(300)]
    async with serving(tmp_path, echo) as (_, path), client(path) as call:
        calls = [call(message) for message in messages]
        await until(lambda: echo.waiting == 300)
        echo.let.set()
        assert messages == await asyncio.gather(*calls)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"bad", grpc.StatusCode.INVALID_ARGUMENT),
        (b"fail", grpc.StatusCode.INTERNAL),
        (b"wait and fail", grpc.StatusCode.INTERNAL),
        (b"x" * (LARGEST_MESSAGE + 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["no message of the method's", "a defect", "a late defect", "too large"],
)
async def test_what_cannot_be_answered_has_its_code(
    tmp_path: Path, message: bytes, code: grpc.StatusCode
) -> None:
    """And the next call on the connection is answered."""
    echo = Echo()
    echo.let.set()
    async with serving(tmp_path, echo) as (_, path), client(path) as call:
        assert code == await code_of(call(message))
        assert b"next" == await call(b"next")


async def test_another_method_is_not_served(tmp_path: Path) -> None:
    """The health service, say."""
    async with (
        serving(tmp_path, Echo()) as (_, path),
        client(path, "/grpc.health.v1.Health/Check") as call,
    ):
        assert grpc.StatusCode.UNIMPLEMENTED == await code_of(call(b""))


async def test_compressed_messages_are_not_taken(tmp_path: Path) -> None:
    """Envoy sends none; what would be bombs is not unpacked."""
    async with serving(tmp_path, Echo()) as (_, path), client(path) as call:
        refused = call(b"x" * 5000, compression=grpc.Compression.Gzip)
        assert grpc.StatusCode.UNIMPLEMENTED == await code_of(refused)


async def test_the_method_hears_how_long_its_client_waits(tmp_path: Path) -> None:
    """In seconds; None without a deadline."""
    echo = Echo()
    async with serving(tmp_path, echo) as (_, path), client(path) as call:
        await call(b"")
        await call(b"", timeout=7)

    unbounded, bounded = echo.timeouts
    assert unbounded is None
    assert bounded is not None
    # gRPC rounds up.
    assert 6 < bounded < 7.1


async def test_a_cancelled_call_is_cancelled_here(tmp_path: Path) -> None:
    """And no other is."""
    echo = Echo()
    async with serving(tmp_path, echo) as (_, path), client(path) as call:
        given_up, kept = call(b"wait 1"), call(b"wait 2")
        await until(lambda: echo.waiting == 2)
        given_up.cancel()
        await until(lambda: echo.cancelled == 1)
        echo.let.set()
        assert b"wait 2" == await kept


async def test_calls_of_a_client_that_is_gone_are_cancelled(tmp_path: Path) -> None:
    """Nobody waits for them."""
    echo = Echo()
    async with serving(tmp_path, echo) as (_, path):
        async with client(path) as call:
            task = asyncio.ensure_future(call(b"wait"))
            await until(lambda: echo.waiting == 1)
            task.cancel()
        await until(lambda: echo.cancelled == 1)


async def test_connections_that_age_lose_no_call(tmp_path: Path) -> None:
    """Under load, while each of them ends and is followed by the next."""
    async with (
        serving(tmp_path, Echo(), max_age=0.05, grace=5.0) as (server, path),
        client(path) as call,
    ):
        seen = set()
        for number in range(3000):
            message = b"%d" % number
            assert message == await call(message)
            seen |= {id(connection) for connection in server._connections}

    assert len(seen) > 2


async def test_calls_under_way_are_answered_when_it_stops(tmp_path: Path) -> None:
    """Those that were taken; then the socket is gone."""
    echo = Echo()
    async with serving(tmp_path, echo) as (server, path), client(path) as call:
        calls = [asyncio.ensure_future(call(b"wait %d" % number)) for number in range(20)]
        await until(lambda: echo.waiting == 20)
        stopping = asyncio.ensure_future(server.stop())
        await asyncio.sleep(0)
        echo.let.set()
        assert [b"wait %d" % number for number in range(20)] == await asyncio.gather(*calls)
        await stopping
        assert not path.exists()
        assert grpc.StatusCode.UNAVAILABLE == await code_of(call(b""))


async def test_a_call_that_never_ends_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """It is cut after a moment."""
    echo = Echo()
    async with serving(tmp_path, echo) as (server, path), client(path) as call:
        task = asyncio.ensure_future(call(b"wait"))
        await until(lambda: echo.waiting == 1)
        await server.stop()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await task

    assert 1 == echo.cancelled


async def test_a_socket_that_is_gone_is_made_again(tmp_path: Path) -> None:
    """Connections that there are stay; one of another process is left alone."""
    async with serving(tmp_path, Echo(), mode=0o600) as (server, path), client(path) as first:
        assert b"1" == await first(b"1")
        assert await server.mend() is None
        path.unlink()
        assert await server.mend() is None
        assert 0o600 == path.stat().st_mode & 0o777
        async with client(path) as second:
            assert (b"2", b"1") == (await second(b"2"), await first(b"1"))
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            other.listen()
            cause = await server.mend()
            path.unlink()
        assert cause == f"another process has taken {path}"
        await server.mend()


async def test_both_doors_answer_alike(tmp_path: Path) -> None:
    """Byte for byte: allowances, repeated ones, denials of each direction, and what is no question."""
    scene = Scene()
    door = ExtAuthz(
        scene.service, timer=scene.timer, default_timeout=5.0, margin=0.05, peers_have_names=False,
        believes_source=False,
    )  # fmt: skip
    grpcio = GrpcServer(ServerSettings(f"unix:{tmp_path}/grpc.sock"), [door.handler()])
    await grpcio.start()
    token = scene.tenant.user_token()
    asked = [
        wire("egress", Flow.ON_BEHALF_OF, token),
        wire("egress", Flow.ON_BEHALF_OF, token, edge="3"),
        wire("egress", Flow.AUTONOMOUS, None, edge="3", x_authz_subject="mallory"),
        wire("egress", Flow.ON_BEHALF_OF, None),
        wire("egress", "nowhere", None),
        wire("inbound", INBOUND, token),
        wire("inbound", INBOUND, scene.tenant.user_token(aud="another")),
        b"",
    ]
    async with (
        serving(tmp_path, door) as (_, path),
        client(path) as ours,
        client(tmp_path / "grpc.sock") as theirs,
    ):
        for question in asked:
            first = await theirs(question)
            assert first == await ours(question) == await ours(question) == await theirs(question)
            assert CheckResponse.FromString(first).HasField("status")
        for call in (ours, theirs):
            assert grpc.StatusCode.INVALID_ARGUMENT == await code_of(call(b"\xff"))
    await grpcio.stop()
