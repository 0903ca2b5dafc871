"""How the Envoy beside an agent is set up: `SidecarSettings`. What is made of them is in `bootstrap`.

Nothing here needs `envoy-data-plane`, so settings can be read where nothing is rendered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from authz.core.address import SocketAddress, TcpAddress, parse_address
from authz.core.request import Direction

SECRET_NAMES: Final = ("authz-certificate", "authz-ca")
"""Secrets in `AuthzTls.secrets_folder`: Envoy's certificate with its key, and the authorities."""

HEALTH_PATHS: Final = ("/healthz", "/readyz", "/livez")

_EVERYWHERE: Final = {"0.0.0.0", "::"}  # noqa: S104 - rendered, not bound
_LONGEST_IDLE: Final = 86400


class RenderError(ValueError):
    """No Envoy configuration can be made of these settings; says which of them and why."""


def socket_address(text: str, *, name: str = "") -> SocketAddress:
    """Read an address.

    Args:
        text: The address.
        name: The setting that has it.

    Raises:
        RenderError: It is none.
    """
    try:
        return parse_address(text)
    except ValueError as error:
        raise RenderError(f"{name}: {error}" if name else str(error)) from None


def must_be_ip(name: str, where: str) -> None:
    """Refuse a host name where Envoy is to listen.

    Raises:
        RenderError: The setting of this name has one.
    """
    found = socket_address(where)
    if isinstance(found, TcpAddress) and not found.is_ip:
        raise RenderError(f"{name}: found {where}, expected an IP address")


@dataclass(frozen=True, slots=True)
class Upstream:
    """What is special about one destination.

    Attributes:
        address: `host:port` to connect to, when not where the destination's name leads. Name and
            certificate asked for stay the destination's. For demonstrations and tests.
        ca_file: PEM file of the authorities to trust; None for those of every destination. Of no meaning for
            a destination of plain HTTP.
    """

    address: str | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class AuthzTls:
    """How Envoy talks TLS to a service whose `listen.tls` is set.

    Attributes:
        ca_file: PEM file of the authorities that sign the service's certificate.
        server_name: DNS name in that certificate.
        certificate_file: Envoy's own certificate chain, where the service asks for one.
        key_file: Its private key.
        secrets_folder: In place of these three, a folder with a file for each of Envoy's secrets
            (`SECRET_NAMES`) that says where they are. Envoy then takes renewed ones while it runs;
            the three it reads once.
    """

    ca_file: Path | None
    server_name: str
    certificate_file: Path | None = None
    key_file: Path | None = None
    secrets_folder: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate_file is None) != (self.key_file is None):
            raise RenderError("authz TLS: certificate_file and key_file go together")
        if (self.ca_file is None) == (self.secrets_folder is None):
            raise RenderError("authz TLS: either ca_file or secrets_folder is needed")
        if self.secrets_folder is not None and self.certificate_file is not None:
            raise RenderError("authz TLS: certificate_file is named in secrets_folder already")

    @property
    def has_certificate(self) -> bool:
        """Whether Envoy has a certificate of its own."""
        return self.certificate_file is not None or self.secrets_folder is not None


class Transparent(StrEnum):
    """What becomes of TLS that the agent speaks itself, where its connections are redirected to Envoy."""

    PASS_TLS = "pass-tls"
    """It passes untouched to where it was going, but not to the hosts of egress routes."""
    REFUSE_TLS = "refuse-tls"


class AppProtocol(StrEnum):
    """Which version of HTTP the app speaks, without TLS."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    """With prior knowledge (RFC 9113 section 3.3), as servers of gRPC do."""
    SAME = "same"
    """Both: that of the caller is used."""


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """What Envoy's configuration needs beyond the service's own.

    Attributes:
        inbound_address: Where callers of the agent arrive.
        app_address: Where the agent listens.
        app_protocol: What the agent speaks there.
        egress_address: Where the agent sends its calls (`HTTP_PROXY`).
        https_address: Where TLS that the agent starts itself is ended, if the configuration has `https`.
        transparent: Set where the kernel redirects the agent's connections to `egress_address`,
            which then must be on 127.0.0.1; None where the agent knows its proxy.
        admin_address: Envoy's administration; loopback, and only paths that change nothing.
        statistics_address: Where Prometheus finds Envoy's statistics; None for nowhere.
        ipv6: Whether listeners take IPv6 beside IPv4: on `::` beside `0.0.0.0`, on `::1` beside `127.0.0.1`.
            Without support for it in the kernel Envoy would not start; addresses there need not be.
        inbound_route: Inbound route of this agent; None where the configuration leaves no choice.
        egress_hosts: Hosts by egress route, where the service has several agents that call the same
            ones. These routes and no others are rendered. Empty: those of the configuration.
        health_paths: Paths, matched exactly, whose GET, HEAD and OPTIONS need no token.
        paths_as_sent: Whether the agent gets paths as callers write them. Else `//` and `..` are resolved,
            and requests with `%2F` or `%5C` in their path refused.
        authz_address: Where the service is reached, `host:port` or `unix:PATH`; None for what
            `listen.grpc` says, with the wildcard address read as loopback.
        authz_tls: TLS to the service; needed exactly when `listen.tls` is set.
        authz_timeout: Seconds until Envoy stops waiting for a decision and refuses.
        inbound_idle_timeout: Seconds of silence after which a caller's request ends.
        egress_idle_timeout: The same for the agent's own.
        websockets: Directions in which a request may become a WebSocket.
        upstream_ca_file: PEM file of the authorities trusted for destinations.
        upstreams: Exceptions by egress host, written as in the configuration.
    """

    inbound_address: str = "0.0.0.0:8080"
    app_address: str = "127.0.0.1:8000"
    app_protocol: AppProtocol = AppProtocol.HTTP1
    egress_address: str = "127.0.0.1:15001"
    https_address: str = "127.0.0.1:15443"
    transparent: Transparent | None = None
    admin_address: str = "127.0.0.1:15000"
    statistics_address: str | None = None
    ipv6: bool = True
    inbound_route: str | None = None
    egress_hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    health_paths: tuple[str, ...] = HEALTH_PATHS
    paths_as_sent: bool = False
    authz_address: str | None = None
    authz_tls: AuthzTls | None = None
    authz_timeout: float = 5.0
    inbound_idle_timeout: float = 3600.0
    egress_idle_timeout: float = 3600.0
    websockets: frozenset[Direction] = frozenset()
    upstream_ca_file: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.authz_timeout <= 0:
            # Envoy reads 0 as "no limit", and a request would then wait for ever.
            raise RenderError(f"authz_timeout: found {self.authz_timeout}, expected more than 0")
        for name in ("inbound_idle_timeout", "egress_idle_timeout"):
            if not 0 < getattr(self, name) <= _LONGEST_IDLE:
                found = getattr(self, name)
                raise RenderError(f"{name}: found {found}, expected seconds up to {_LONGEST_IDLE}")
        if self.authz_address is not None:
            socket_address(self.authz_address, name="authz_address")
        self._must_differ()
        if Direction.INBOUND in self.websockets and self.app_protocol is AppProtocol.HTTP2:
            raise RenderError(
                "websockets: inbound, and app_protocol is http2: they need http1 or same"
            )
        if self.transparent is not None:
            self._must_be_reached_by_redirection()
        for path in self.health_paths:
            if not path.startswith("/") or path == "/":
                raise RenderError(f"health_paths: found {path!r}, expected a path such as /healthz")

    def _must_differ(self) -> None:
        """Refuse two uses of one port: Envoy would not start, or would ask itself for the app."""
        names = ("inbound", "app", "egress", "https", "admin", "statistics")
        taken: list[tuple[str, TcpAddress]] = []
        for name in names:
            key = f"{name}_address"
            where = getattr(self, key)
            socket = None if where is None else socket_address(where, name=key)
            if not isinstance(socket, TcpAddress):
                continue
            for other, there in taken:
                same = socket.host == there.host or {socket.host, there.host} & _EVERYWHERE
                if same and socket.port == there.port != 0:
                    raise RenderError(f"{name}_address: found {where}, which {other}_address has")
            taken.append((name, socket))

    def _must_be_reached_by_redirection(self) -> None:
        where = self.egress_address
        found = socket_address(where)
        # Netfilter turns to 127.0.0.1 and ::1, and both need the same port.
        if not isinstance(found, TcpAddress) or found.host != "127.0.0.1":
            raise RenderError(f"egress_address: found {where}, expected 127.0.0.1 with transparent")
        if found.port == 0:
            raise RenderError("egress_address: found port 0, expected a real one with transparent")
