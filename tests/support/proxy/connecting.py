"""A pod whose agent asks its proxy for connections: Envoy, `authz serve`, and destinations of each kind."""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import trustme

from authz.config.reading.document import parse
from support.peers.grpc_echo import GrpcEcho
from support.peers.websocket_peer import WebSocketServer
from support.programs.stack import Process, World, claims
from support.proxy.edge import exchange, first_line
from support.proxy.edge import until as wait_until
from support.proxy.sidecar import Authority, Sidecar

GRAPH: Final = "graph.microsoft.com"
WEATHER: Final = "weather.example"
LEGACY: Final = "legacy.example"
ORDERS: Final = "orders.internal:8443"
RPC: Final = "rpc.example"
SPEECH: Final = "speech.example"
"""An API by gRPC that takes no token of Entra's."""
TALK: Final = "talk.example"
"""The same by WebSocket."""
COLLECTOR: Final = "collector.example:4317"
"""Telemetry goes there by gRPC, without TLS, as in a cluster."""
NAMES: Final = (GRAPH, WEATHER, LEGACY, ORDERS)

_PROXIES: Final = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy")
"""As the manifests set them."""


def document(world: World, *, forward: str = "placeholder", https: bool = False) -> dict[str, Any]:
    """A route for users, a pushed one, and hosts that get no token: with tunnels, and without."""
    found = world.config()
    routes = found["egress"]
    for_user = {**routes["graph"], "subject": [forward]}
    found["inbound"]["agent"]["forward"] = forward
    found["egress"] = {
        "graph": {**for_user, "hosts": [GRAPH, RPC]},
        "orders": {**routes["autonomous"], "hosts": [ORDERS]},
        "weather": {"flow": "none", "hosts": [WEATHER]},
        "spoken": {"flow": "none", "hosts": [SPEECH, TALK]},
        "legacy": {"flow": "none", "hosts": [LEGACY], "tunnel": False},
        "telemetry": {"flow": "none", "hosts": [f"http://{COLLECTOR}"]},
    }
    if https:
        names = {"ca_file": "pod.pem", "bundle_file": "bundle.pem", "key_file": "pod.key"}
        found["https"] = {key: str(world.folder / name) for key, name in names.items()}
    return found


class Pod:
    """Service, Envoy and destinations, with a user whose call has reached the agent."""

    def __init__(
        self,
        world: World,
        sidecar: Sidecar,
        process: Process,
        collector: GrpcEcho,
        talk: WebSocketServer,
    ) -> None:
        self.world = world
        self.sidecar = sidecar
        self.process = process
        self.collector = collector
        self.talk = talk
        self.token = world.token()
        self.authority = sidecar._ca_file
        sidecar.caller.get("/", headers={"authorization": f"Bearer {self.token}"})
        (seen,) = sidecar.app.received
        (self.held,) = seen.values("authorization")
        """What the agent has of the user."""

    @property
    def proxy(self) -> str:
        """What the agent's proxy variables say."""
        return f"http://127.0.0.1:{self.sidecar.egress_port}"

    def connect(self, host: str, **headers: str) -> tuple[int, dict[str, Any]]:
        """Ask for a connection; return status and problem of the refusal."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        text = f"CONNECT {host} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n".encode()
        status = int(first_line(self.sidecar.egress_port, text).split()[1])
        if status == 200:
            # The connection is there, and stays for as long as somebody wants it.
            return status, {}
        return status, json.loads(
            exchange(self.sidecar.egress_port, text).rpartition(b"\r\n\r\n")[2]
        )

    def get(self, url: str, **headers: str) -> httpx.Response:
        """Call an API as a client with proxy variables does, trusting the destinations' authority."""
        context = ssl.create_default_context(cafile=self.authority)
        with httpx.Client(proxy=self.proxy, verify=context, trust_env=False, timeout=20) as client:
            return client.get(url, headers={"authorization": self.held, **headers})

    def refused_tls(self, name: str) -> dict[str, Any]:
        """Wait for the log line of TLS for a name that Envoy refused, and return it."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            lines = self.sidecar.envoy.log.splitlines()
            found[:] = [json.loads(line) for line in lines if f'"tls_name":"{name}"' in line]
            return bool(found)

        wait_until(is_there)
        return found[0]

    def values(self, name: str = "authorization") -> list[str]:
        """Every value of a header that reached any destination."""
        return [
            value
            for server in self.sidecar.destinations.values()
            for seen in server.received
            for value in seen.values(name)
        ]

    def acts_for_the_user(self, headers: Any) -> bool:
        """Whether the one `Authorization` that an API saw is the agent's own token for the user."""
        (value,) = [value for name, value in headers if name == "authorization"]
        found = claims(value.removeprefix("Bearer "))
        user = self.world.users["alice"]["object_id"]
        return (found["appid"], found["oid"]) == (self.world.agent["client_id"], user)

    def python(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program in Python as the agent."""
        return self.agent([sys.executable, "-c", *arguments], **more)

    def agent(self, command: Sequence[str | Path], **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the variables of the agent's container, and none of this process's."""
        environ = {
            "PATH": os.environ["PATH"],
            **dict.fromkeys(_PROXIES, self.proxy),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1"),
            **more,
        }
        return subprocess.run(
            command,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


class Deployed:
    """Runs a pod for a document, and other settings of Envoy, as a context manager."""

    def __init__(self, world: World, found: dict[str, Any], tmp_path: Path, **changes: Any) -> None:
        self._world = world
        self._found = found
        self._changes = changes
        self.file = world.folder / "authz.yaml"
        folder = tmp_path / "destinations"
        folder.mkdir()
        self._authority = Authority.create(folder)

    def __enter__(self) -> Pod:
        self.file.write_text(json.dumps(self._found))
        with ExitStack() as stack:
            pod = self._started(stack)
            self._stack = stack.pop_all()
        return pod

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _started(self, stack: ExitStack) -> Pod:
        certificate = _pem(self._authority.ca.issue_cert(RPC, SPEECH))
        rpc = stack.enter_context(GrpcEcho(certificate=certificate))
        collector = stack.enter_context(GrpcEcho())
        talk = stack.enter_context(WebSocketServer(self._authority.server_context(TALK)))
        sidecar = Sidecar(
            parse(json.dumps(self._found), {}),
            authz_address=self._found["listen"]["grpc"],
            authority=self._authority,
            certificates={name: (name.partition(":")[0],) for name in NAMES},
            servers={
                **dict.fromkeys((RPC, SPEECH), f"127.0.0.1:{rpc.port}"),
                TALK: talk.address,
                f"http://{COLLECTOR}": f"127.0.0.1:{collector.port}",
            },
            changes=self._changes,
        )
        process = stack.enter_context(Process("serve", "--config", str(self.file)))
        process.wait_ready()
        stack.enter_context(sidecar)
        return Pod(self._world, sidecar, process, collector, talk)


def _pem(certificate: trustme.LeafCert) -> tuple[bytes, bytes]:
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    return certificate.private_key_pem.bytes(), chain
