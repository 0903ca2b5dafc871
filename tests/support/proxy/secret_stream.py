"""`SecretStream`: one stream of secrets, spoken by hand over real gRPC, of either kind."""

import asyncio
from types import TracebackType
from typing import Any, Final, Self

import grpc

from authz._pb.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from authz._pb.secret_pb2 import Secret
from authz._pb.status_pb2 import Status
from authz.doors.envoy.conversation import TYPE_URL
from authz.doors.envoy.sds import SERVICE

ENDED: Final = grpc.aio.EOF
PATIENCE: Final = 60.0
"""Seconds to wait for an answer; without a limit, a missing one would stop the whole run of tests."""


class SecretStream:
    """A stream as Envoy opens it, as an async context manager.

    Args:
        address: gRPC target.
        credentials: For TLS.
        delta: Which kind.
    """

    def __init__(
        self,
        address: str,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        delta: bool = False,
    ) -> None:
        options = [("grpc.ssl_target_name_override", "localhost")] if credentials else []
        self._channel = (
            grpc.aio.insecure_channel(address)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options)
        )
        request, response = (
            (DeltaDiscoveryRequest, DeltaDiscoveryResponse)
            if delta
            else (DiscoveryRequest, DiscoveryResponse)
        )
        self._call: Any = self._channel.stream_stream(
            f"/{SERVICE}/{'DeltaSecrets' if delta else 'StreamSecrets'}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )()
        self.last: Any = None
        """The last answer."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call.cancel()
        await self._channel.close()

    async def ask(
        self, *names: str, nonce: str = "", error: str | None = None, **fields: Any
    ) -> None:
        """Send a request of the state of the world; `error` makes it a refusal of the last answer."""
        request = DiscoveryRequest(
            resource_names=names, response_nonce=nonce, **{"type_url": TYPE_URL, **fields}
        )
        await self._write(request, error)

    async def acknowledge(self, *names: str, error: str | None = None) -> None:
        """Say that the last answer is in use, or why not."""
        version = self.last.version_info if error is None else ""
        await self.ask(*names, nonce=self.last.nonce, error=error, version_info=version)

    async def change(
        self,
        subscribe: tuple[str, ...] = (),
        unsubscribe: tuple[str, ...] = (),
        *,
        nonce: str = "",
        error: str | None = None,
        had: dict[str, str] | None = None,
        type_url: str = TYPE_URL,
    ) -> None:
        """Send a delta request."""
        request = DeltaDiscoveryRequest(
            type_url=type_url,
            resource_names_subscribe=subscribe,
            resource_names_unsubscribe=unsubscribe,
            initial_resource_versions=had or {},
            response_nonce=nonce,
        )
        await self._write(request, error)

    async def hear(self) -> dict[str, str]:
        """Wait for the next answer; returns the values by name."""
        async with asyncio.timeout(PATIENCE):
            self.last = await self._call.read()
        assert self.last is not ENDED, await self._call.details()
        assert TYPE_URL == self.last.type_url
        packed = [getattr(resource, "resource", resource) for resource in self.last.resources]
        found = {}
        for one in packed:
            secret = Secret()
            assert one.Unpack(secret)
            assert "inline_string" == secret.generic_secret.secret.WhichOneof("specifier")
            found[secret.name] = secret.generic_secret.secret.inline_string
        return found

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """Wait for the end; returns its code and what was said of it."""
        return await self._call.code(), await self._call.details()

    async def finish(self) -> None:
        """Say nothing more."""
        await self._call.done_writing()

    async def _write(self, request: Any, error: str | None) -> None:
        if error is not None:
            request.error_detail.CopyFrom(Status(code=13, message=error))
        await self._call.write(request)
