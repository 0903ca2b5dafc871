"""Runs unmodified clients through Envoy as we render it, with `authz serve` and an emulated Entra.

What is tried is in `compatibility`.
"""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from authz.config.reading.document import parse
from authz.envoy_config.settings import AppProtocol
from authz_dev.emulator import Emulator
from recipes.agents import ENVIRONMENT, ROOT, require_environment
from recipes.compatibility import JARS, Client, Needs
from support.peers.grpc_peer import GrpcServer
from support.peers.ordinary_server import OrdinaryServer
from support.peers.upstream import Seen
from support.programs.stack import Process, World, claims
from support.proxy.sidecar import Authority, Sidecar

API: Final = "api.example"
"""An API of a route on behalf of the user."""
OWN: Final = "pages.example"
"""An API of a route for the agent itself."""
RPC: Final = "rpc.example"
"""An API of gRPC, of the same route as `API`."""
MAVEN_PLUGIN: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
FOLDER: Final = ROOT / "tests/recipes/clients"
UPLOAD: Final = 10 * 1024**2
_PATIENCE: Final = 120
_PATIENCE_FOR_MAVEN: Final = 400
_NAMES: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class Trial:
    """Everything around the clients.

    Attributes:
        world: Names of the emulated tenant.
        token: A user's, for the agent.
        agent: The app behind Envoy's inbound listener.
        api: The destination of `API`.
        sidecar: Envoy.
        body: File of `UPLOAD` bytes.
        rpc_agent: Another agent, which speaks gRPC.
        rpc_api: The destination of `RPC`.
        rpc_sidecar: The Envoy of that agent.
    """

    world: World
    token: str
    agent: OrdinaryServer
    api: OrdinaryServer
    sidecar: Sidecar
    body: Path
    rpc_agent: GrpcServer
    rpc_api: GrpcServer
    rpc_sidecar: Sidecar

    def run(self, client: Client, direction: str) -> tuple[dict[str, Any], list[Seen]]:
        """Let a client do everything it does; return what it prints, and the requests that arrived."""
        server = self.agent if direction == "inbound" else self.api
        server.received.clear()
        printed = execute(
            client,
            {
                "BASE": f"http://127.0.0.1:{self.sidecar.inbound_port}"
                if direction == "inbound"
                else f"http://{OWN if client.own else API}",
                "TOKEN": self.token,
                "NAME": f"n{next(_NAMES)}",
                "BODY": str(self.body),
            },
            self.sidecar.egress_port if direction == "egress" else None,
            resolved(self.body.parent, client.version)
            if "{jars}" in client.command
            else self.body.parent,
        )
        named = {"version", *self.expected(client, direction)}
        told = {name: value for name, value in printed.items() if name in named}
        return told, list(server.received)

    def run_rpc(self, client: Client, direction: str) -> tuple[dict[str, Any], list[Seen]]:
        """Do the same with a client of gRPC; what arrived are calls."""
        inbound = direction == "inbound"
        server = self.rpc_agent if inbound else self.rpc_api
        server.received.clear()
        target = f"127.0.0.1:{self.rpc_sidecar.inbound_port}" if inbound else f"{RPC}:80"
        printed = execute(
            client,
            {"TARGET": target, "TOKEN": self.token},
            None if inbound else self.rpc_sidecar.egress_port,
            self.body.parent,
        )
        return printed, [Seen("POST", "", tuple(call.items())) for call in server.received]

    def expected(self, client: Client, direction: str) -> dict[str, Any]:
        """Return what a client prints where everything works."""
        digest = hashlib.sha256(self.body.read_bytes()).hexdigest()
        all_of_it = {
            "denied": 200 if client.own and direction == "egress" else 401,
            "kept": [200, 200, 200],
            "head": 200,
            "options": 200,
            "underscore": 200,
            "upload": digest,
            "chunked": digest,
            "events": ["first", "last"],
            "gzip": "squeezed",
            **client.also.get(direction, {}),
        }
        return {name: found for name, found in all_of_it.items() if name not in client.without}

    def whose(self, seen: Seen, direction: str) -> str:
        """Return on whose behalf a request arrived, if with one token of the agent or one user's name."""
        if direction == "inbound":
            (subject,) = seen.values("x-authz-subject")
            return self._name(subject)
        (authorization,) = seen.values("authorization")
        token = claims(authorization.removeprefix("Bearer "))
        assert self.world.agent["client_id"] == token["appid"]
        return "the agent" if token["idtyp"] == "app" else self._name(token["oid"])

    def _name(self, object_id: str) -> str:
        users: dict[str, str] = {user["object_id"]: name for name, user in self.world.users.items()}
        return users[object_id]

    def connections(self, direction: str) -> dict[str, int]:
        """Return how many connections Envoy has accepted so far, by version of HTTP."""
        stats, prefix = self.sidecar.envoy.stats(), f"http.{direction}.downstream_cx"
        return {version: stats[f"{prefix}_http{version}_total"] for version in ("1", "2")}


def execute(
    client: Client, environ: Mapping[str, str], proxy: int | None, jars: Path
) -> dict[str, Any]:
    """Run a client's program, by way of a proxy on a loopback port if there is one; return what it prints."""
    require(client)
    address = f"http://127.0.0.1:{proxy}"
    by_proxy = {
        "http_proxy": address,
        "HTTP_PROXY": address,
        "JAVA_TOOL_OPTIONS": f"-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort={proxy}",
    }
    programs = {
        "python": str(ENVIRONMENT / "bin/python"),
        "node": str(ENVIRONMENT / "bin/node"),
        "jars": str(jars / "*"),
    }
    command = [word.format(**programs) for word in client.command]
    done = subprocess.run(
        command,
        cwd=FOLDER,
        env={
            "PATH": os.environ["PATH"],
            **environ,
            **(by_proxy if proxy else {}),
            **client.environ,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def require(client: Client) -> None:
    """Skip the test of a client that is not installed."""
    if client.needs is Needs.RECIPES:
        require_environment()
        return
    # Java runs a source file where it has a compiler; a script is named like the program that it starts.
    first, *_, script = client.command
    program = "javac" if first == "java" else Path(script).stem
    if shutil.which(program) is None:
        pytest.skip(f"needs the program {program}")


@cache
def resolved(folder: Path, version: str) -> Path:
    """Let Maven put a version of Apache HttpClient into a folder, and return that.

    Skips the test where there is no Maven, or none of its repositories has them.
    """
    maven = shutil.which("mvn")
    if maven is None:
        pytest.skip("needs the program mvn")
    jars = folder / f"jars-{version}"
    done = subprocess.run(
        [
            *(maven, "--quiet", "--batch-mode", "--file", str(FOLDER / "java/pom.xml")),
            *(f"{MAVEN_PLUGIN}:copy-dependencies", f"-DoutputDirectory={jars}"),
            f"-Dhttpclient5.version={version}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_FOR_MAVEN,
    )
    if done.returncode:
        pytest.skip(f"Maven finds no Apache HttpClient: {done.stdout[-500:]}")
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars.iterdir()}
    assert JARS[version] == found
    return jars


@contextmanager
def running(authority: Authority) -> Iterator[Trial]:
    """Start everything; files go where the authority's are."""
    folder = authority.file.parent
    body = folder / "body"
    body.write_bytes(bytes(range(256)) * (UPLOAD // 256))
    page = (FOLDER / "page.html").read_bytes()
    with ExitStack() as stack:
        emulator = stack.enter_context(Emulator())
        world = World(emulator, folder)
        document = world.config()
        on_behalf = document["egress"]["graph"]
        document["egress"] = {
            "api": {**on_behalf, "hosts": [API, RPC]},
            "pages": {**document["egress"]["autonomous"], "hosts": [OWN]},
        }
        file = folder / "authz.yaml"
        file.write_text(json.dumps(document))
        agent = stack.enter_context(OrdinaryServer(page=page))
        tls = authority.server_context(API, OWN)
        api = stack.enter_context(OrdinaryServer(tls, page))
        rpc_agent = stack.enter_context(GrpcServer())
        rpc_api = stack.enter_context(GrpcServer(grpc_credentials(authority, RPC)))
        service = stack.enter_context(Process("serve", "--config", str(file)))
        config = parse(file.read_text(), {})

        def sidecar(app: str, protocol: AppProtocol) -> Sidecar:
            return stack.enter_context(
                Sidecar(
                    config,
                    authz_address=document["listen"]["grpc"],
                    authority=authority,
                    certificates={},
                    servers={API: api.address, OWN: api.address, RPC: rpc_api.address},
                    changes={"app_address": app, "app_protocol": protocol},
                )
            )

        service.wait_ready()
        yield Trial(
            world,
            world.token(),
            agent,
            api,
            sidecar(agent.address, AppProtocol.HTTP1),
            body,
            rpc_agent,
            rpc_api,
            sidecar(rpc_agent.address, AppProtocol.HTTP2),
        )


def grpc_credentials(authority: Authority, name: str) -> grpc.ServerCredentials:
    """Return the TLS side of a gRPC server with a certificate for a name."""
    issued = authority.ca.issue_cert(name)
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    return grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
