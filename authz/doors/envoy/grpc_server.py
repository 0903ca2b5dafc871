"""The gRPC server: where it listens, with which certificate, and how it starts, ages and drains.

What it serves is handed in. Health follows readiness by `set_serving`.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from authz.config.shown import shown_file
from authz.core.address import (
    EVERY_ADDRESS,
    TcpAddress,
    UnixAddress,
    parse_address,
    parse_tcp_address,
)
from authz.doors.envoy.ext_authz import SERVICE
from authz.system import listen_fault
from authz.system.files import BoundedFile, FileFault
from authz.system.unix_socket import Place, SocketPath

_log = structlog.get_logger(__name__)
_IPV6: Final = 6
MAX_CHECK_BYTES: Final = 1024 * 1024
"""Largest CheckRequest accepted: headers, which Envoy limits to 60 KiB by default, and where rules go by MCP
tool a body of up to 512 KiB."""
MOST_CONNECTIONS: Final = 10_000
"""At a time. Further ones are closed at once."""
HANDSHAKE_PATIENCE: Final = 10.0
"""Seconds in which a connection must have come to its first HTTP/2 settings, TLS included."""
IDLE_PATIENCE: Final = 600.0
"""Seconds for which a connection without calls is kept; one with a stream of secrets has a call."""
LARGEST_PEM: Final = 4 * 1024 * 1024
"""Bytes of a certificate file: a bundle of all public authorities has a quarter of a MiB."""
MOST_RETIRING: Final = 4
"""Servers of removed sockets that serve their connections on. Of more, the oldest is stopped at once."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the server's certificate; read again for each new connection.

    Attributes:
        certificate_file: Certificate chain.
        key_file: Private key.
        client_ca_file: With it, clients must show a certificate that this authority signed.
    """

    certificate_file: Path
    key_file: Path
    client_ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """How the server listens.

    Attributes:
        address: `host:port` or `unix:PATH`.
        tls: Certificate files; None for plain text.
        socket_mode: Permissions of a Unix socket.
        socket_group: Group that owns a Unix socket; None leaves it.
        max_connection_age: Seconds after which a connection is asked to go away, so that Envoys
            spread over replicas that came later.
        max_connection_age_grace: Seconds that a connection's last calls get.
        reuse_port: Whether several processes may share the port.
        max_connections: Connections at a time; further ones are closed at once.
    """

    address: str
    tls: TlsFiles | None = None
    socket_mode: int = 0o600
    socket_group: str | None = None
    max_connection_age: float = 1800.0
    max_connection_age_grace: float = 30.0
    reuse_port: bool = False
    max_connections: int = MOST_CONNECTIONS


class ListenError(RuntimeError):
    """The server could not listen: address in use, path not writable, certificate unreadable."""


class GrpcServer:
    """A `grpc.aio` server for handlers that are given to it.

    Args:
        settings: How to listen.
        handlers: What to serve, beside the health service.
    """

    def __init__(
        self, settings: ServerSettings, handlers: Sequence[grpc.GenericRpcHandler]
    ) -> None:
        self._settings = settings
        self._handlers = tuple(handlers)
        self._health = health.aio.HealthServicer()
        address = parse_address(settings.address)
        self._socket = (
            SocketPath(Path(address.path), mode=settings.socket_mode, group=settings.socket_group)
            if isinstance(address, UnixAddress)
            else None
        )
        self._server = self._new_server()
        self._retiring: dict[asyncio.Task[None], grpc.aio.Server] = {}
        self.port: int | None = None
        """Port of a TCP address, once started."""

    def _new_server(self) -> grpc.aio.Server:
        settings = self._settings
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", int(settings.reuse_port)),
                ("grpc.max_receive_message_length", MAX_CHECK_BYTES),
                # A client that connects and says nothing is closed; gRPC would wait for two minutes.
                ("grpc.server_handshake_timeout_ms", _milliseconds(HANDSHAKE_PATIENCE)),
                ("grpc.max_connection_idle_ms", _milliseconds(IDLE_PATIENCE)),
                ("grpc.max_allowed_incoming_connections", settings.max_connections),
                ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age)),
                (
                    "grpc.max_connection_age_grace_ms",
                    _milliseconds(settings.max_connection_age_grace),
                ),
                # Envoy pings idle connections; a server that objects would cut them.
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ]
        )
        server.add_generic_rpc_handlers(self._handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            ListenError: The address cannot be had, with the reason.
        """
        await self.set_serving(serving=False)
        address = self._settings.address
        try:
            if self._socket is not None:
                await self._serve_at(self._socket)
            else:
                self.port = self._add_port(address)
                await self._server.start()
        except (RuntimeError, OSError) as error:
            cause = listen_fault.words(error)
            raise ListenError(f"listen.grpc: cannot listen on {address}: {cause}") from error

    async def mend(self) -> str | None:
        """Serve at the socket's path again, if the socket there is gone.

        Connections that there are stay. Called each second or so.

        Returns:
            Why nobody can connect; None if that is possible.
        """
        if self._socket is None:
            return None
        place = self._socket.place()
        if place is Place.OURS:
            return None
        if place is Place.TAKEN:
            return f"another process has taken {self._settings.address}"
        old, self._server = self._server, self._new_server()
        try:
            await self._serve_at(self._socket)
        except (RuntimeError, OSError) as error:
            self._server = old
            return f"{self._settings.address} is gone, and cannot be had again: {error}"
        _log.warning("socket was gone, serving at a new one", address=self._settings.address)
        task = asyncio.get_running_loop().create_task(self._retire(old))
        self._retiring[task] = old
        task.add_done_callback(lambda done: self._retiring.pop(done, None))
        if len(self._retiring) > MOST_RETIRING:
            oldest, server = next(iter(self._retiring.items()))
            oldest.cancel()
            await server.stop(None)
        return None

    async def _serve_at(self, path: SocketPath) -> None:
        private = path.private_name()
        _try_path(private)
        # gRPC creates the socket with the process's umask; it must never be open to others, not even
        # for the moment until chmod.
        mask = os.umask(0o177)
        try:
            self._server.add_insecure_port(str(UnixAddress(str(private))))
        finally:
            os.umask(mask)
        await self._server.start()
        path.publish(private)

    async def _retire(self, server: grpc.aio.Server) -> None:
        """Stop a server that nobody can connect to, once its connections have aged."""
        settings = self._settings
        await asyncio.sleep(settings.max_connection_age + settings.max_connection_age_grace)
        await server.stop(None)

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checkers whether to send Checks here."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        for service in ("", SERVICE):
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self) -> None:
        """Stop at once. Streams that never end by themselves, such as health watches, are cut."""
        if self._socket is not None:
            self._socket.remove()
        for task, server in list(self._retiring.items()):
            task.cancel()
            await server.stop(None)
        await self._server.stop(None)

    def _add_port(self, address: str) -> int:
        _try_port(parse_tcp_address(address), reuse=self._settings.reuse_port)
        if self._settings.tls is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, _credentials(self._settings.tls))


def _try_port(address: TcpAddress, *, reuse: bool) -> None:
    """Raise what the system says of an address that cannot be taken: gRPC keeps the reason to itself."""
    if not address.is_ip:
        return  # a name: gRPC resolves it
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        # Without IPv6, gRPC takes the addresses of IPv4 for [::].
        if address.host != EVERY_ADDRESS or error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise


def _try_path(path: Path) -> None:
    """Raise what the system says of a path that cannot be had: gRPC keeps that to itself, too."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(str(path))
    path.unlink()


class _Certificate:
    """The server's certificate, read again for each new connection."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._readers = (
            _reader(files.certificate_file),
            _reader(files.key_file),
            None if files.client_ca_file is None else _reader(files.client_ca_file),
        )
        self._contents = self._read()
        _check(files)
        self._refused: tuple[bytes, ...] | None = None
        self._complained: str | None = None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Return what the files hold now, or the last version that could be used."""
        try:
            contents = self._read()
            if contents not in (self._contents, self._refused):
                _check(self._files)
                self._contents, self._refused = contents, None
                _log.info("certificate renewed", file=shown_file(self._files.certificate_file))
            if contents == self._contents and self._complained is not None:
                self._complained = None
                _log.info("certificate usable again", file=shown_file(self._files.certificate_file))
        except (OSError, FileFault) as error:  # ssl.SSLError is an OSError
            self._refuse(error)
        certificate, key, authorities = self._contents
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=authorities or None
        )

    def _refuse(self, error: Exception) -> None:
        with contextlib.suppress(FileFault):
            self._refused = self._read()
        if str(error) == self._complained:
            return
        self._complained = str(error)
        _log.error(
            "certificate not usable, the previous one stays in use",
            file=shown_file(self._files.certificate_file),
            cause=str(error),
        )

    def _read(self) -> tuple[bytes, bytes, bytes]:
        certificate, key, authorities = self._readers
        return certificate.read(), key.read(), b"" if authorities is None else authorities.read()


def _reader(file: Path) -> BoundedFile:
    return BoundedFile(file, max_bytes=LARGEST_PEM)


def _check(files: TlsFiles) -> None:
    """Raise ssl.SSLError where certificate, key or authorities do not parse or do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # With a pass phrase, which is wrong: without one, OpenSSL would ask for it on the terminal.
    context.load_cert_chain(files.certificate_file, files.key_file, password="")
    if files.client_ca_file is not None:
        context.load_verify_locations(files.client_ca_file)


def _credentials(files: TlsFiles) -> grpc.ServerCredentials:
    try:
        certificate = _Certificate(files)
    except (OSError, FileFault) as error:
        raise ListenError(f"cannot use the certificate of listen.tls: {error}") from error
    return grpc.dynamic_ssl_server_credentials(
        certificate.configuration(),
        certificate.configuration,
        require_client_authentication=files.client_ca_file is not None,
    )


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
