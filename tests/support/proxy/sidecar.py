"""The whole of an agent's pod but the service: Envoy as we render it, the agent, and the destinations.

Who answers Checks is given: the scripted server of `ext_authz_server`, or the service itself.
"""

import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import trustme

from authz.config import Config
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import AuthzTls, SidecarSettings, Upstream
from support.peers.upstream import EchoUpstream
from support.proxy.envoy import EnvoyProcess
from support.proxy.plain_http import NO_TLS

EXAMPLE_ENVIRONMENT = {
    "TENANT_ID": "11111111-0000-4000-8000-000000000001",
    "BLUEPRINT_CLIENT_ID": "22222222-0000-4000-8000-000000000001",
    "AGENT_CLIENT_ID": "44444444-0000-4000-8000-000000000001",
}
"""What `docs/examples/sidecar.yaml` takes from the environment."""

AUTHZ_TIMEOUT: Final = 2.0
"""Seconds for which these Envoys wait for a decision."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority of a test, with its certificate in a file."""

    ca: trustme.CA
    file: Path

    @classmethod
    def create(cls, directory: Path) -> Self:
        """Make an authority whose certificate lies in `directory`."""
        ca, file = trustme.CA(), directory / "ca.pem"
        ca.cert_pem.write_to_path(file)
        return cls(ca, file)

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Return the TLS side of a server with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        return context


class Sidecar:
    """Envoy for a configuration, on free loopback ports, as a context manager.

    Args:
        config: The configuration to render for.
        authz_address: Where Checks are answered.
        authority: Signs the destinations' certificates, and is the only one Envoy trusts.
        certificates: Names in the certificate of each destination, by egress host.
        authz_tls: How Envoy talks TLS to whoever answers Checks.
        https_address: Where TLS of the agent itself is ended, if the configuration has `https`.
        inbound_route: Inbound route of this agent, where there are several.
        egress_hosts: Hosts by egress route of this agent, where the configuration names none.
        servers: Addresses of destinations that somebody else serves, by egress host.
        changes: Other settings, by name.
        threads: How many worker threads Envoy has.

    Attributes:
        app: The agent.
        destinations: The destinations, by egress host.
        envoy: The running Envoy.
        inbound_port: Where callers arrive.
        egress_port: Where the agent sends its calls.
        caller: A client of the agent.
        agent: The agent's own client, with Envoy as its proxy.
    """

    def __init__(
        self,
        config: Config,
        *,
        authz_address: str,
        authority: Authority,
        certificates: Mapping[str, tuple[str, ...]],
        authz_tls: AuthzTls | None = None,
        https_address: str = "127.0.0.1:0",
        inbound_route: str | None = None,
        egress_hosts: Mapping[str, tuple[str, ...]] | None = None,
        servers: Mapping[str, str] | None = None,
        changes: Mapping[str, Any] | None = None,
        threads: int = 1,
    ) -> None:
        self._threads = threads
        self._changes = changes or {}
        self._servers = servers or {}
        self._https_address = https_address
        self._config = config
        self._inbound_route = inbound_route
        self._egress_hosts = egress_hosts or {}
        self._authz_address = authz_address
        self._authz_tls = authz_tls
        self._ca_file = authority.file
        self._stack = ExitStack()
        self.app = EchoUpstream()
        self.destinations = {
            host: EchoUpstream(authority.server_context(*names))
            for host, names in certificates.items()
        }

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in (self.app, *self.destinations.values()):
                stack.enter_context(server)
            self.envoy = stack.enter_context(
                EnvoyProcess(self.bootstrap(), self.environ(), threads=self._threads)
            )
            self.inbound_port = self.envoy.port("inbound")
            self.egress_port = self.envoy.port("egress")
            inbound = f"http://127.0.0.1:{self.inbound_port}"
            egress = f"http://127.0.0.1:{self.egress_port}"
            # The environment's own proxy settings must not come between.
            self.caller = stack.enter_context(
                httpx.Client(base_url=inbound, trust_env=False, verify=NO_TLS)
            )
            self.agent = stack.enter_context(
                httpx.Client(proxy=egress, trust_env=False, verify=NO_TLS)
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def bootstrap(self) -> str:
        """Return the configuration that Envoy is started with."""
        return render(self._config, self.settings())

    def environ(self) -> dict[str, str]:
        """Return Envoy's environment variables beyond this process's."""
        return {}

    def settings(self) -> SidecarSettings:
        """Return what it is rendered by."""
        settings = SidecarSettings(
            inbound_address="127.0.0.1:0",
            egress_address="127.0.0.1:0",
            https_address=self._https_address,
            admin_address="127.0.0.1:0",
            app_address=self.app.address,
            authz_address=self._authz_address,
            authz_tls=self._authz_tls,
            authz_timeout=AUTHZ_TIMEOUT,
            inbound_route=self._inbound_route,
            egress_hosts=self._egress_hosts,
            upstream_ca_file=self._ca_file,
            upstreams={
                **{host: Upstream(address) for host, address in self._servers.items()},
                **{host: Upstream(server.address) for host, server in self.destinations.items()},
            },
        )
        return replace(settings, **self._changes)

    def forget(self) -> None:
        """Forget every request that arrived anywhere so far."""
        for server in (self.app, *self.destinations.values()):
            server.received.clear()
