"""A scripted service: says of Checks what the test tells it to, and remembers what it was asked.

To whoever asks for secrets it gives one token, the same for all.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

import grpc
from google.protobuf.any_pb2 import Any as WireAny

from authz._pb.base_pb2 import DataSource, HeaderValue, HeaderValueOption
from authz._pb.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from authz._pb.external_auth_pb2 import CheckRequest, CheckResponse, OkHttpResponse
from authz._pb.secret_pb2 import GenericSecret, Secret
from authz._pb.status_pb2 import Status
from authz.doors.envoy import sds
from authz.doors.envoy.conversation import TYPE_URL
from authz.doors.envoy.ext_authz import SERVICE
from authz.doors.envoy.grpc_server import GrpcServer, ServerSettings

Answer = Callable[[CheckRequest], CheckResponse]

PUSHED: Final = "Bearer pushed"
"""The secret of every name."""


def allow(*, headers: dict[str, str] | None = None, remove: tuple[str, ...] = ()) -> CheckResponse:
    """Return an answer that sets and removes headers, overwriting what is there."""
    overwrite = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    return CheckResponse(
        status=Status(code=0),
        ok_response=OkHttpResponse(
            headers=[
                HeaderValueOption(
                    header=HeaderValue(key=name, value=value), append_action=overwrite
                )
                for name, value in (headers or {}).items()
            ],
            headers_to_remove=remove,
        ),
    )


class ExtAuthzServer:
    """Our own gRPC server in a thread of its own, with scripted answers, as a context manager.

    Args:
        settings: Where it listens.

    Attributes:
        answer: Called for each Check; may be replaced at any time. An exception is a gRPC error.
        requests: What was asked, in order.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: GrpcServer | None = None
        self.address = settings.address
        """Where it listens, as `listen.grpc` writes it; the real port once it does."""
        self.requests: list[CheckRequest] = []
        self.answer: Answer = lambda _: allow()

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self) -> None:
        """Listen, if it does not; after `stop`, again at the same place."""
        self._run(self._start())

    def stop(self) -> None:
        """Stop listening, and cut the calls under way."""
        self._run(self._stop())

    def _run(self, task: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(task, self._loop).result(timeout=10)

    async def _start(self) -> None:
        if self._server is not None:
            return
        method = grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=CheckRequest.FromString,
            response_serializer=CheckResponse.SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(SERVICE, {"Check": method})
        stream = grpc.stream_stream_rpc_method_handler(
            self._stream_secrets,
            request_deserializer=DiscoveryRequest.FromString,
            response_serializer=DiscoveryResponse.SerializeToString,
        )
        secrets = grpc.method_handlers_generic_handler(sds.SERVICE, {"StreamSecrets": stream})
        settings = replace(self._settings, address=self.address)
        self._server = GrpcServer(settings, [handler, secrets])
        await self._server.start()
        await self._server.set_serving(serving=True)
        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{self._server.port}"

    async def _stop(self) -> None:
        if self._server is not None:
            await self._server.stop()
            self._server = None

    async def _check(
        self, request: CheckRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> CheckResponse:
        self.requests.append(request)
        return self.answer(request)

    async def _stream_secrets(
        self,
        requests: AsyncIterator[DiscoveryRequest],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        async for request in requests:
            if request.response_nonce:
                continue
            answer = DiscoveryResponse(version_info="1", nonce="1", type_url=TYPE_URL)
            for name in request.resource_names:
                value = GenericSecret(secret=DataSource(inline_string=PUSHED))
                packed = WireAny()
                packed.Pack(Secret(name=name, generic_secret=value))
                answer.resources.append(packed)
            await context.write(answer)
