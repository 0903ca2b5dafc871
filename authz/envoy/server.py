"""The gRPC server: where it listens, with which certificate, and how it starts, ages and drains.

What it serves is handed in. Health follows readiness by `set_serving`.
"""

import contextlib
import os
import shutil
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

_log = structlog.get_logger(__name__)
MAX_CHECK_BYTES: Final = 1024 * 1024
"""Largest CheckRequest accepted. Headers only: Envoy limits them to 60 KiB by default."""


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
    """

    address: str
    tls: TlsFiles | None = None
    socket_mode: int = 0o600
    socket_group: str | None = None
    max_connection_age: float = 1800.0
    max_connection_age_grace: float = 30.0
    reuse_port: bool = False


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
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", int(settings.reuse_port)),
                ("grpc.max_receive_message_length", MAX_CHECK_BYTES),
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
        self._server.add_generic_rpc_handlers(tuple(handlers))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port: int | None = None
        """Port of a TCP address, once started."""

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            ListenError: The address cannot be had, with the reason.
        """
        await self.set_serving(serving=False)
        address = self._settings.address
        path = Path(address.removeprefix("unix:")) if address.startswith("unix:") else None
        if path is not None:
            _make_room(path)
        # gRPC creates the socket with the process's umask; it must never be open to others, not even
        # for the moment until chmod.
        mask = os.umask(0o177)
        try:
            if path is None:
                self.port = self._add_port(address)
            else:
                self._server.add_insecure_port(f"unix:{path}")
            await self._server.start()
        except RuntimeError as error:
            raise ListenError(f"cannot listen on {address}: {error}") from error
        finally:
            os.umask(mask)
        if path is not None:
            self._give_away(path)

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checkers whether to send Checks here."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        for service in ("", "envoy.service.auth.v3.Authorization"):
            await self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self) -> None:
        """Stop at once. Streams that never end by themselves, such as health watches, are cut."""
        await self._server.stop(None)

    def _add_port(self, address: str) -> int:
        if self._settings.tls is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, _credentials(self._settings.tls))

    def _give_away(self, path: Path) -> None:
        if self._settings.socket_group is not None:
            group = self._settings.socket_group
            try:
                # A number need not be known to the system by a name, least of all in a container.
                shutil.chown(path, group=int(group) if group.isdigit() else group)
            except (LookupError, OSError) as error:
                raise ListenError(f"cannot give {path} to group {group!r}: {error}") from error
        path.chmod(self._settings.socket_mode)


def _make_room(path: Path) -> None:
    """Remove the socket that an earlier process left; refuse to remove anything else."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise ListenError(f"cannot listen on unix:{path}: the path exists and is no socket")
        path.unlink()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ListenError(f"cannot listen on unix:{path}: {error}") from error


class _Certificate:
    """The server's certificate, read again for each new connection."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._contents = self._read()
        self._refused: tuple[bytes, ...] | None = None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Return what the files hold now, or the last version that could be used."""
        try:
            contents = self._read()
            if contents not in (self._contents, self._refused):
                _check(self._files)
                self._contents, self._refused = contents, None
                _log.info("certificate renewed", file=str(self._files.certificate_file))
        except OSError as error:  # ssl.SSLError is one
            self._refuse(error)
        certificate, key, authorities = self._contents
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=authorities or None
        )

    def _refuse(self, error: OSError) -> None:
        with contextlib.suppress(OSError):
            self._refused = self._read()
        _log.error(
            "certificate not usable, the old one goes on",
            file=str(self._files.certificate_file),
            cause=str(error),
        )

    def _read(self) -> tuple[bytes, bytes, bytes]:
        files = self._files
        return (
            files.certificate_file.read_bytes(),
            files.key_file.read_bytes(),
            files.client_ca_file.read_bytes() if files.client_ca_file is not None else b"",
        )


def _check(files: TlsFiles) -> None:
    """Raise ssl.SSLError where certificate, key or authorities do not parse or do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate_file, files.key_file)
    if files.client_ca_file is not None:
        context.load_verify_locations(files.client_ca_file)


def _credentials(files: TlsFiles) -> grpc.ServerCredentials:
    try:
        _check(files)
        certificate = _Certificate(files)
    except OSError as error:
        raise ListenError(f"cannot use the certificate of listen.tls: {error}") from error
    return grpc.dynamic_ssl_server_credentials(
        certificate.configuration(),
        certificate.configuration,
        require_client_authentication=files.client_ca_file is not None,
    )


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
