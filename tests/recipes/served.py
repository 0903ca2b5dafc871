"""An app of a real SDK as the agent, behind Envoy and the service, for callers of any kind."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from authz.config.reading.document import parse
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import SidecarSettings, Upstream
from authz_dev.emulator import Emulator
from recipes.agents import APPS, Program, require_environment
from support.programs.stack import Process, World
from support.proxy.envoy import EnvoyProcess, free_port
from support.proxy.hurry import hurried
from support.proxy.sidecar import Authority

TOOLS: Final = "tools.apps.svc:8000"


@dataclass
class Place:
    """Where callers of the agent arrive, and the agent's proxy."""

    world: World
    inbound: str
    egress: str

    @contextmanager
    def caller(self, user: str) -> Iterator[httpx.Client]:
        """A client of a user who has signed in."""
        headers = {"authorization": f"Bearer {self.world.token(user)}"}
        with httpx.Client(
            base_url=self.inbound, headers=headers, trust_env=False, timeout=30
        ) as one:
            yield one


@contextmanager
def behind_envoy(
    app: str,
    authority: Authority,
    *,
    bound: bool,
    tools: str | None = None,
    resource: str | None = None,
    route: Mapping[str, Any] | None = None,
    idle: float = 3600.0,
    hurry: float | None = None,
) -> Iterator[Place]:
    """Run an app of a real SDK behind Envoy and the service.

    Args:
        app: Its module.
        authority: Signs certificates of destinations; files go where its own is.
        bound: Whether the app has the recipe that binds sessions to callers.
        tools: Address of a service without TLS that the app may call as `TOOLS`.
        resource: Path at which clients call the app. Its URL is an App ID URI of the blueprint, and
            clients that have nothing else learn where to sign in.
        route: What else its inbound route says.
        idle: Seconds of silence after which Envoy ends a request.
        hurry: Seconds for which its listeners wait, in place of five minutes.
    """
    require_environment()
    folder = Path(tempfile.mkdtemp(dir=authority.file.parent))
    port, inbound = free_port(), free_port()
    with Emulator() as emulator:
        world = World(emulator, folder)
        document = world.config()
        if tools is not None:
            document["egress"]["tools"] = {"flow": "none", "hosts": [f"http://{TOOLS}"]}
        if resource is not None:
            _describe(world, document, f"http://127.0.0.1:{inbound}{resource}")
        document["inbound"]["agent"] |= route or {}
        file = folder / "authz.yaml"
        file.write_text(json.dumps(document))
        settings = SidecarSettings(
            inbound_address=f"127.0.0.1:{inbound}",
            egress_address="127.0.0.1:0",
            admin_address="127.0.0.1:0",
            app_address=f"127.0.0.1:{port}",
            authz_address=document["listen"]["grpc"],
            upstream_ca_file=authority.file,
            upstreams={f"http://{TOOLS}": Upstream(tools)} if tools is not None else {},
            inbound_idle_timeout=idle,
        )
        bootstrap = render(parse(file.read_text(), {}), settings)
        with (
            Process("serve", "--config", str(file)) as authz,
            EnvoyProcess(bootstrap if hurry is None else hurried(bootstrap, hurry)) as envoy,
            Program(
                ["uvicorn", f"{app}:app", "--port", str(port)],
                environ={"BOUND": "1" if bound else ""},
                folder=APPS,
                ready_url=f"http://127.0.0.1:{port}/healthz",
                log=folder / "agent.log",
            ),
        ):
            authz.wait_ready()
            ports = (envoy.port("inbound"), envoy.port("egress"))
            yield Place(world, *(f"http://127.0.0.1:{port}" for port in ports))


def _describe(world: World, document: dict[str, Any], url: str) -> None:
    """Let clients ask for tokens by the agent's URL, and learn so."""
    client_id = world.blueprint["client_id"]
    world.emulator.directory.update_application(world.tenant_id, client_id, identifier_uris=(url,))
    document["blueprints"]["support"]["audiences"] = [client_id, url]
    document["inbound"]["agent"]["resource"] = url
