"""An agent of the A2A SDK behind Envoy, and the same agent as an API that another one calls.

What is tried is in `compatibility`; clients of HTTP and gRPC have `trial`.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from authz.config.reading.document import parse
from authz.envoy_config.settings import AppProtocol
from authz_dev.emulator import Emulator
from recipes.agents import ENVIRONMENT, Program, require_environment
from recipes.compatibility import Client
from recipes.trial import FOLDER, execute
from support.programs.stack import Process, World
from support.proxy.envoy import free_port
from support.proxy.sidecar import Authority, Sidecar

_PATHS: Final = {"JSONRPC": "/rpc", "HTTP+JSON": "/rest"}
_WEB: Final = "agent.example"
_RPC: Final = "rpc.example"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything around the client.

    Attributes:
        world: Names of the emulated tenant.
        token: A user's, for the agent.
        web: Envoy of the agent, for JSON-RPC and REST.
        rpc: Envoy of the same agent, for gRPC.
    """

    world: World
    token: str
    web: Sidecar
    rpc: Sidecar

    def run(self, client: Client, direction: str) -> dict[str, Any]:
        """Let the client talk to the agent; return what it prints."""
        binding = client.environ["BINDING"]
        sidecar = self.rpc if binding == "GRPC" else self.web
        if direction == "inbound":
            origin = f"127.0.0.1:{sidecar.inbound_port}"
        else:
            origin = f"{_RPC}:80" if binding == "GRPC" else _WEB
        target = origin if binding == "GRPC" else f"http://{origin}{_PATHS[binding]}"
        return execute(
            client,
            {"TARGET": target, "TOKEN": self.token},
            sidecar.egress_port if direction == "egress" else None,
            FOLDER,
        )


@contextmanager
def talking(authority: Authority) -> Iterator[Conversation]:
    """Start everything; files go where the authority's are."""
    require_environment()
    folder = authority.file.parent
    web, rpc = free_port(), free_port()
    addresses = {
        f"http://{_WEB}": f"127.0.0.1:{web}",
        f"http://{_RPC}": f"127.0.0.1:{rpc}",
    }
    with ExitStack() as stack:
        world = World(stack.enter_context(Emulator()), folder)
        document = world.config()
        route = {**document["egress"]["graph"], "hosts": list(addresses)}
        document["egress"] = {"agent": {**route, "token_over_plain_http": True}}
        file = folder / "authz.yaml"
        file.write_text(json.dumps(document))
        stack.enter_context(
            Program(
                [str(ENVIRONMENT / "bin/python"), str(FOLDER / "python/a2a_agent.py")],
                environ={"PORT": str(web), "GRPC_PORT": str(rpc)},
                folder=folder,
                ready_url=f"http://127.0.0.1:{web}/healthz",
                log=folder / "agent.log",
            )
        )
        service = stack.enter_context(Process("serve", "--config", str(file)))
        first, second = (
            stack.enter_context(
                Sidecar(
                    parse(file.read_text(), {}),
                    authz_address=document["listen"]["grpc"],
                    authority=authority,
                    certificates={},
                    servers=addresses,
                    changes={"app_address": f"127.0.0.1:{port}", "app_protocol": protocol},
                )
            )
            for port, protocol in ((web, AppProtocol.HTTP1), (rpc, AppProtocol.HTTP2))
        )
        service.wait_ready()
        yield Conversation(world, world.token(), first, second)
