"""From the configuration's section `listen` to the gRPC server's settings, and to the Check door."""

from pathlib import Path

from authz.config import Config
from authz.core.address import UNIX
from authz.doors.envoy.ext_authz import SERVICE, ExtAuthz
from authz.doors.envoy.grpc_server import MOST_CONNECTIONS, ServerSettings, TlsFiles
from authz.doors.envoy.http2.server import CheckServer
from authz.system.descriptors import raise_limit


def server_settings(config: Config, *, shared_address: str | None) -> ServerSettings:
    """Return how to listen; `shared_address` is a port that several processes share, if they do."""
    listen = config.listen
    tls = listen.tls
    return ServerSettings(
        address=shared_address or listen.grpc,
        tls=TlsFiles(
            Path(tls.certificate_file),
            Path(tls.key_file),
            Path(tls.client_ca_file) if tls.client_ca_file is not None else None,
        )
        if tls is not None
        else None,
        socket_mode=int(listen.socket_mode, 8),
        socket_group=listen.socket_group,
        max_connection_age=listen.max_connection_age,
        max_connection_age_grace=listen.max_connection_age_grace,
        reuse_port=shared_address is not None,
        # The other half is for the other doors, and for calls to Entra.
        max_connections=min(MOST_CONNECTIONS, raise_limit() // 2),
    )


def check_server(config: Config, checks: ExtAuthz) -> CheckServer | None:
    """Return the Check door; None where there is none."""
    listen = config.listen
    if listen.checks is None:
        return None
    return CheckServer(
        Path(listen.checks.removeprefix(UNIX)),
        f"/{SERVICE}/Check",
        checks,
        mode=int(listen.socket_mode, 8),
        group=listen.socket_group,
        max_age=listen.max_connection_age,
        grace=listen.max_connection_age_grace,
    )
