"""Compare the service with the floor of Python gRPC and with Entra's own answers: ratios, in one run.

What each row means is in README.md. Prints a table and writes results/latest.json.
"""

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from authz import __version__
from authz._pb.external_auth_pb2 import CheckRequest
from authz.emulator import Emulator

HERE = Path(__file__).parent
GRAPH = "https://graph.microsoft.com/.default"
ROUNDS = 3
HITS = 6000
COLD = 400
IN_FLIGHT = 16


@dataclass(frozen=True)
class Row:
    """One measured thing; medians over the rounds, with the spread of the rates."""

    name: str
    requests_per_second: float
    p50_us: float
    p99_us: float
    cpu_us: float
    spread: float


class Server:
    """A server process on a Unix socket."""

    def __init__(self, command: Sequence[str], socket: Path) -> None:
        self.socket = socket
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"did not start: {' '.join(command)}")

    def cpu_seconds(self) -> float:
        """Return the processor time used so far, by every thread."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def request(direction: str, route: str, token: str) -> bytes:
    """Prepare a Check of about the size that Envoy sends."""
    wire = CheckRequest()
    http = wire.attributes.request.http
    http.method, http.host, http.path = "GET", "graph.microsoft.com", "/v1.0/me"
    http.headers["authorization"] = f"Bearer {token}"
    for name in ("user-agent", "accept", "x-request-id", "traceparent", "x-forwarded-proto"):
        http.headers[name] = "v" * 40
    wire.attributes.context_extensions["authz.direction"] = direction
    wire.attributes.context_extensions["authz.route"] = route
    content = wire.SerializeToString()
    return len(content).to_bytes(4, "big") + content


def load(server: Server, prepared: Sequence[bytes], number: int, in_flight: int) -> dict[str, Any]:
    """Send Checks from another process; return what it measured, and the server's time."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(prepared))
        file.flush()
        before = server.cpu_seconds()
        command = [sys.executable, str(HERE / "load.py"), str(server.socket), file.name]
        output = subprocess.run(
            [*command, str(number), str(in_flight)], check=True, capture_output=True, text=True
        ).stdout
        measured: dict[str, Any] = json.loads(output)
    if measured["denied"]:
        raise SystemExit(f"{measured['denied']} of {number} Checks were denied")
    return {**measured, "cpu": server.cpu_seconds() - before}


def row(name: str, runs: Sequence[dict[str, Any]]) -> Row:
    """Summarize the rounds of one row."""
    rates = [len(run["durations"]) / run["seconds"] for run in runs]
    quantiles = [statistics.quantiles(run["durations"], n=100) for run in runs]
    return Row(
        name=name,
        requests_per_second=round(statistics.median(rates), 1),
        p50_us=round(statistics.median(q[49] for q in quantiles) * 1e6, 1),
        p99_us=round(statistics.median(q[98] for q in quantiles) * 1e6, 1),
        cpu_us=round(statistics.median(r["cpu"] / len(r["durations"]) for r in runs) * 1e6, 1),
        spread=round((max(rates) - min(rates)) / statistics.median(rates), 3),
    )


class Scene:
    """An emulated Entra, the service in front of it, and the floor."""

    def __init__(self, entra: Emulator, folder: Path) -> None:
        self.entra = entra
        self.tenant = entra.describe()["tenants"][0]
        self.blueprint = self.tenant["blueprints"][0]
        (folder / "secret").write_text(self.blueprint["client_secret"])
        socket = folder / "authz.sock"
        (folder / "authz.yaml").write_text(json.dumps(self._config(folder, socket)))
        self.service = Server(
            [sys.executable, "-m", "authz", "serve", "--config", str(folder / "authz.yaml")], socket
        )
        floor = folder / "floor.sock"
        self.floor = Server([sys.executable, str(HERE / "floor.py"), str(floor)], floor)

    def token(self) -> str:
        """Mint a token of the user, unlike every other one."""
        return self.entra.mint_user_token(
            user="alice@contoso.example", audience=self.blueprint["client_id"]
        )

    def ask_entra(self, number: int) -> dict[str, Any]:
        """Time the one call that a cold exchange with a cached T1 makes, without the service."""
        agent = self.blueprint["agents"][0]["client_id"]
        url = f"{self.entra.authority}/{self.tenant['tenant_id']}/oauth2/v2.0/token"
        tokens = [self.token() for _ in range(number)]
        with httpx.Client(verify=str(self.entra.ca_file), trust_env=False) as client:
            t1 = client.post(
                url,
                data={
                    "client_id": self.blueprint["client_id"],
                    "client_secret": self.blueprint["client_secret"],
                    "grant_type": "client_credentials",
                    "scope": "api://AzureADTokenExchange/.default",
                    "fmi_path": agent,
                },
            ).json()["access_token"]
            durations = []
            for token in tokens:
                form = {
                    "client_id": agent,
                    "client_assertion": t1,
                    "client_assertion_type": (
                        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
                    ),
                    "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                    "assertion": token,
                    "requested_token_use": "on_behalf_of",
                    "scope": f"{GRAPH} openid profile offline_access",
                }
                started = time.perf_counter()
                client.post(url, data=form).raise_for_status()
                durations.append(time.perf_counter() - started)
        return {"durations": durations, "seconds": sum(durations), "cpu": 0.0}

    def stop(self) -> None:
        """End both servers."""
        self.service.stop()
        self.floor.stop()

    def _config(self, folder: Path, socket: Path) -> dict[str, Any]:
        return {
            "listen": {"grpc": f"unix:{socket}", "admin": None},
            "entra": {"authority": self.entra.authority, "ca_file": str(self.entra.ca_file)},
            "blueprints": {
                "b": {
                    "tenant_id": self.tenant["tenant_id"],
                    "client_id": self.blueprint["client_id"],
                    "credentials": [{"client_secret": {"file": str(folder / "secret")}}],
                }
            },
            "agents": {
                "a": {
                    "blueprint": "b",
                    "agent_identity": self.blueprint["agents"][0]["client_id"],
                }
            },
            "inbound": {"agent": {"agent": "a"}},
            "egress": {"graph": {"flow": "on_behalf_of", "agent": "a", "scopes": [GRAPH]}},
        }


@contextmanager
def scene() -> Iterator[Scene]:
    """Start everything, and end it afterwards."""
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder, Emulator() as entra:
        running = Scene(entra, Path(folder))
        try:
            yield running
        finally:
            running.stop()


def measure(running: Scene) -> list[Row]:
    """Measure every row, in alternating rounds."""
    known = running.token()
    hit, inbound = request("egress", "graph", known), request("inbound", "agent", known)
    load(running.service, [hit, inbound], 200, 1)
    runs: dict[str, list[dict[str, Any]]] = {}
    for _ in range(ROUNDS):
        fresh = [running.token() for _ in range(2 * COLD)]
        cold = [request("inbound", "agent", token) for token in fresh[:COLD]]
        exchange = [request("egress", "graph", token) for token in fresh[COLD:]]
        outcomes = {
            "floor": load(running.floor, [hit], HITS, IN_FLIGHT),
            "check_hit": load(running.service, [hit], HITS, IN_FLIGHT),
            "inbound_hit": load(running.service, [inbound], HITS, IN_FLIGHT),
            "inbound_cold": load(running.service, cold, COLD, IN_FLIGHT),
            "obo_cold": load(running.service, exchange, COLD, 1),
            "entra": running.ask_entra(COLD),
        }
        for name, outcome in outcomes.items():
            runs.setdefault(name, []).append(outcome)
    return [row(name, outcomes) for name, outcomes in runs.items()]


def main() -> None:
    """Measure, print and write."""
    console = Console()
    console.print("bench: about a minute; nothing else should be running", style="dim")
    with scene() as running:
        rows = measure(running)
    by_name = {entry.name: entry for entry in rows}
    ratios = {
        "check_vs_floor": by_name["check_hit"].requests_per_second
        / by_name["floor"].requests_per_second,
        "check_cpu_vs_floor": by_name["check_hit"].cpu_us / by_name["floor"].cpu_us,
        "cold_obo_vs_entra": by_name["obo_cold"].p50_us / by_name["entra"].p50_us,
    }
    table = Table(box=None, pad_edge=False)
    for title in ("row", "requests/s", "p50 µs", "p99 µs", "CPU µs", "spread"):
        table.add_column(title, justify="left" if title == "row" else "right")
    for entry in rows:
        table.add_row(*(str(value) for value in asdict(entry).values()))
    console.print(table)
    for name, ratio in ratios.items():
        console.print(f"{name}  {ratio:.2f}")
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    document = {
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "authz": __version__,
        },
        "rows": [asdict(entry) for entry in rows],
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
    }
    (results / "latest.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
