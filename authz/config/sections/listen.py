"""Section `listen`: where the service is reached, by whom, and how it stops."""

from typing import Annotated, Literal

from pydantic import Field

from authz.config.sections.section import Section
from authz.config.sections.values import (
    Address,
    File,
    GroupName,
    Name,
    UnixSocket,
    count,
    duration,
)
from authz.core.address import UnixAddress, parse_address
from authz.core.request import Direction
from authz.core.route import PeerSource


class Tls(Section):
    """TLS of the gRPC listener. Files are read again when they change."""

    certificate_file: File = Field(description="Certificate chain, PEM.")
    key_file: File = Field(description="Private key, PEM.")
    client_ca_file: File | None = Field(
        default=None,
        description="Authorities of client certificates, PEM. With it a client certificate is "
        "required, and its SPIFFE id is the verified peer.",
    )


class Listen(Section):
    """Where the service listens."""

    grpc: Address = Field(
        default="unix:/run/authz/authz.sock",
        description="Server for Envoy, decisions and secrets: `unix:/PATH` or `host:port`.",
    )
    checks: UnixSocket | None = Field(
        default=None,
        description="A second Unix socket, `unix:/PATH`, for Checks alone, for an Envoy of the same pod. It answers "
        "about five times as many a second as `grpc` does. `authz envoy` lets Envoy ask there where it is set. "
        "Without it Envoy asks at `grpc` (docs/performance.md).",
    )
    socket_mode: Literal["0600", "0660"] = Field(
        default="0600",
        description="Permissions of the Unix sockets. `0660` needs `socket_group`.",
    )
    socket_group: GroupName | None = Field(
        default=None,
        description="Group that owns the Unix sockets, for an Envoy that runs as another user.",
    )
    admin: Address | None = Field(
        default="127.0.0.1:9902",
        description="Health, metrics and status over HTTP. `null` turns it off.",
    )
    api: Address | None = Field(
        default=None,
        description="Token API by HTTP, as the Entra SDK sidecar has it, for apps that ask for tokens "
        "themselves (docs/sidecar-api.md). Off by default. What callers may do is section `api`.",
    )
    tls: Tls | None = Field(default=None, description="TLS of `grpc`. Not for a Unix socket.")
    workers: Annotated[int, count(least=1, most=64)] = Field(
        default=1,
        description="Processes that share the port. A Unix socket is served by one.",
    )
    max_connection_age: Annotated[float, duration(least=1)] = Field(
        default=1800.0,
        description="Age at which a gRPC connection is closed gracefully, so that Envoy spreads "
        "its connections again.",
    )
    max_connection_age_grace: Annotated[float, duration()] = Field(
        default=30.0, description="Time that checks under way have after that."
    )
    drain_delay: Annotated[float, duration(most=3600)] = Field(
        default=0.0,
        description="Time between turning not ready and refusing connections, when stopping.",
    )
    drain_timeout: Annotated[float, duration(most=3600)] = Field(
        default=20.0, description="Time that checks under way have when stopping."
    )
    direction: Direction | None = Field(
        default=None,
        description="Direction of requests for which Envoy sends no `authz.direction`. "
        "Without either, they are denied.",
    )
    inbound_route: Name | None = Field(
        default=None,
        description="Inbound route of requests for which Envoy sends no `authz.route`. "
        "Default: the only inbound route, if there is just one.",
    )
    readiness: Literal["any", "all"] = Field(
        default="any",
        description="What the service needs to be ready. `any`: every issuer was asked for its signing keys, and "
        "one tenant and one client at least can be served; metric `authz_unserved` names the others. "
        "`all`: signing keys of every issuer, and a usable credential of every client.",
    )
    workload_identity: PeerSource = Field(
        default=PeerSource.CONNECTION,
        description="Whose word says which workload is asking: the client certificate of the "
        "`connection`, or with `source_principal` the certificate that Envoy saw of its client (only for an "
        "Envoy that alone can reach us, with `include_peer_certificate: true` in its ext_authz filter).",
    )

    @property
    def socket_path(self) -> str | None:
        """Path of the Unix socket, or None when `grpc` is a TCP address."""
        found = parse_address(self.grpc)
        return found.path if isinstance(found, UnixAddress) else None
