"""The shared topology: `authz serve` with the configuration of its overlay, and the Envoys of its agents."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trustme
import yaml

from authz.config import Config, load
from authz.envoy_config.settings import AuthzTls
from support.fakes.workload import workload_certificate
from support.kubernetes.manifests import Manifests
from support.programs.stack import Process, World
from support.proxy.sidecar import Authority, Sidecar

GRAPH: Final = "graph.microsoft.com"
NAME: Final = "authz.authz.svc"
"""What the service's certificate is for."""


@dataclass(frozen=True)
class Shared:
    """A running authz for two agents.

    Attributes:
        world: The emulated Entra.
        config: The configuration of the overlay.
        process: The service.
        servers: Signs for the service and the APIs.
        workloads: Signs for workloads.
    """

    world: World
    config: Config
    process: Process
    servers: Authority
    workloads: trustme.CA

    def identity(self, agent: str) -> str:
        """Return the application id of an agent."""
        return self.config.agents[agent].agent_identity

    def workload(self, agent: str) -> str:
        """Return the SPIFFE id of the workload that may act as an agent."""
        (found,) = self.config.agents[agent].workloads
        return found

    def envoy(self, agent: str, spiffe_id: str) -> Sidecar:
        """Return the Envoy of an agent, with a certificate of some workload; not started yet."""
        chain, key = workload_certificate(self.workloads, spiffe_id)
        files = [self.world.folder / f"{agent}.{end}" for end in ("crt", "key")]
        for file, content in zip(files, (chain, key), strict=True):
            file.write_bytes(content)
        return self.envoy_with(agent, AuthzTls(self.servers.file, NAME, *files))

    def envoy_with(self, agent: str, authz_tls: AuthzTls) -> Sidecar:
        """Return the Envoy of an agent that talks to the service in this way; not started yet."""
        return Sidecar(
            self.config,
            authz_address=self.process.event("serving")["grpc"],
            authority=self.servers,
            certificates={GRAPH: (GRAPH,)},
            authz_tls=authz_tls,
            inbound_route=agent,
            egress_hosts={f"{agent}-graph": (GRAPH,)},
        )


@contextmanager
def serving(overlay: Manifests, world: World, folder: Path) -> Iterator[Shared]:
    """Run the service of the overlay, with what only a cluster has replaced."""
    servers, workloads = Authority.create(folder), trustme.CA()
    leaf = servers.ca.issue_cert(NAME)
    files = {name: str(folder / name) for name in ("tls.crt", "tls.key", "clients.pem")}
    leaf.cert_chain_pems[0].write_to_path(files["tls.crt"])
    leaf.private_key_pem.write_to_path(files["tls.key"])
    workloads.cert_pem.write_to_path(files["clients.pem"])
    document: dict[str, Any] = yaml.safe_load(overlay.files["authz.yaml"])
    document["listen"] = {
        "grpc": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "tls": dict(zip(document["listen"]["tls"], files.values(), strict=True)),
    }
    secret = {"client_secret": {"file": str(world.secret_file)}}
    document["blueprints"]["agents"]["credentials"] = [secret]
    document["entra"] = {
        "authority": world.emulator.authority,
        "ca_file": str(world.emulator.ca_file),
    }
    file = folder / "authz.yaml"
    file.write_text(json.dumps(document))
    identity = _identity(world)
    with Process("serve", "--config", str(file), environ=identity) as process:
        process.wait_ready()
        yield Shared(world, load(file, identity).config, process, servers, workloads)


def _identity(world: World) -> Mapping[str, str]:
    return {
        "TENANT_ID": world.tenant_id,
        "CLIENT_ID": world.blueprint["client_id"],
        "DESK_AGENT_IDENTITY": world.agent["client_id"],
        "CLERK_AGENT_IDENTITY": world.sibling["client_id"],
    }
