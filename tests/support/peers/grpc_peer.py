"""Both ends of gRPC for tests: a server with a method of each kind, and a client of them.

Messages are bytes. What the server gets of a call's metadata is on record.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Final, Self

import grpc

SERVICE: Final = "test.Echo"
_PATIENCE: Final = 20.0
_TRAILER: Final = ("x-checksum", "7")


@dataclass
class GrpcServer:
    """A server without TLS, or with it, on a free loopback port, as a context manager.

    Attributes:
        credentials: TLS to speak; None for none.
        received: Metadata of each call, in order.
        port: The port it listens on.
    """

    credentials: grpc.ServerCredentials | None = None
    received: list[Mapping[str, str]] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(8))
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "Collect": grpc.stream_unary_rpc_method_handler(self._collect),
            "Tell": grpc.unary_stream_rpc_method_handler(self._tell),
            "Talk": grpc.stream_stream_rpc_method_handler(self._talk),
        }
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, methods)]
        )
        self.port = (
            self._server.add_insecure_port("127.0.0.1:0")
            if self.credentials is None
            else self._server.add_secure_port("127.0.0.1:0", self.credentials)
        )
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait(_PATIENCE)

    @property
    def address(self) -> str:
        """`host:port` it listens on."""
        return f"127.0.0.1:{self.port}"

    def _note(self, context: grpc.ServicerContext) -> None:
        self.received.append(
            {str(name): str(value) for name, value in context.invocation_metadata()}
        )
        context.set_trailing_metadata((_TRAILER,))

    def _unary(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self._note(context)
        if message == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this")
        return message.upper()

    def _collect(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._note(context)
        return b"".join(messages)

    def _tell(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note(context)
        for number in range(3):
            yield message + str(number).encode()

    def _talk(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note(context)
        for message in messages:
            yield message.upper()


@dataclass
class GrpcClient:
    """A client of such a server, as a context manager.

    Attributes:
        port: Of 127.0.0.1: whom to call.
        host: `:authority` of its calls; empty for that address.
        metadata: Of each call.
    """

    port: int
    host: str = ""
    metadata: Sequence[tuple[str, str]] = ()

    def __enter__(self) -> Self:
        options = [("grpc.enable_http_proxy", 0)]
        if self.host:
            options.append(("grpc.default_authority", self.host))  # type: ignore[arg-type]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options)
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def unary(self, message: bytes) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        """Send a message, and return the answer with its trailers."""
        call: Any = self._channel.unary_unary(f"/{SERVICE}/Unary")
        answer, done = call.with_call(message, metadata=self.metadata, timeout=_PATIENCE)
        return answer, tuple((name, value) for name, value in done.trailing_metadata())

    def collect(self, messages: Sequence[bytes]) -> bytes:
        """Send several messages, and return the answer."""
        call: Any = self._channel.stream_unary(f"/{SERVICE}/Collect")
        answer: bytes = call(iter(messages), metadata=self.metadata, timeout=_PATIENCE)
        return answer

    def tell(self, message: bytes) -> list[bytes]:
        """Send a message, and return all answers."""
        call: Any = self._channel.unary_stream(f"/{SERVICE}/Tell")
        return list(call(message, metadata=self.metadata, timeout=_PATIENCE))

    def talk(self, messages: Sequence[bytes]) -> list[bytes]:
        """Send each message after the answer to the one before, and return the answers."""
        heard: list[bytes] = []
        begun: SimpleQueue[Iterator[bytes]] = SimpleQueue()

        def speak() -> Iterator[bytes]:
            answers = begun.get(timeout=_PATIENCE)
            for message in messages:
                yield message
                heard.append(next(answers))

        call: Any = self._channel.stream_stream(f"/{SERVICE}/Talk")
        # The request's own thread takes the answers, one for each message; it may run before there is a call.
        answers = call(speak(), metadata=self.metadata, timeout=_PATIENCE)
        begun.put(answers)
        assert grpc.StatusCode.OK is answers.code()
        return heard

    def status(
        self, message: bytes, path: str = f"/{SERVICE}/Unary"
    ) -> tuple[grpc.StatusCode, str, Mapping[str, str]]:
        """Send a message that is refused; return status, message and metadata of the answer."""
        call: Any = self._channel.unary_unary(path)
        try:
            call(message, metadata=self.metadata, timeout=_PATIENCE)
        except grpc.RpcError as error:
            refused: Any = error
            told = [*refused.initial_metadata(), *refused.trailing_metadata()]
            return refused.code(), refused.details(), dict(told)
        raise AssertionError("the call was not refused")
