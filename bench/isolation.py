"""What users of one tenant notice while another tenant's endpoint is in trouble: `python -m bench.isolation`.

Users of tenant B, each one new to the service, ask for an on-behalf-of token at a steady rate. Meanwhile
40 users of tenant A ask again and again, and A's token endpoint hangs, drips, throttles, fails or is well
(`quiet`: nobody of A asks). The situations alternate in rounds, so that a busy machine disturbs all alike.
It prints JSON; the figures depend on the machine and belong to no published run.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import httpx

from authz._pb.external_auth_pb2 import CheckResponse
from authz_dev.demo.processes import Program, free_ports, stop_all
from bench.checks import METHOD, request
from bench.population import APIS
from bench.programs import wait

QUIET: Final = "quiet"
SITUATIONS: Final[Mapping[str, Mapping[str, Any] | None]] = {
    QUIET: None,
    "well": {},
    "hangs": {"kind": "hang"},
    "drips": {"kind": "drip", "part": "head", "seconds": 0.1},
    "throttles": {"kind": "status", "status": 429, "retry_after": 1},
    "fails": {"kind": "status", "status": 503},
}
CROWD: Final = 40
"""Users of tenant A who ask at a time."""
RATE: Final = 10.0
"""New users of tenant B a second."""
PATIENCE: Final = 5.0
"""Seconds that a Check has, as Envoy gives it."""
TOKENS: Final = 400
"""Tokens of tenant A. A user who was refused asks with another one."""


@dataclass(slots=True)
class Figures:
    """One situation, over all rounds."""

    seconds: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def add(self, answers: list[tuple[float, str]]) -> None:
        """Add a round: seconds and outcome of each user."""
        seconds = sorted(took for took, _ in answers)
        self.seconds += seconds
        cuts = statistics.quantiles(seconds, n=100, method="inclusive")
        self.p50_ms.append(round(cuts[49] * 1e3, 1))
        self.p99_ms.append(round(cuts[98] * 1e3, 1))
        for _, outcome in answers:
            if outcome:
                self.errors[outcome] = self.errors.get(outcome, 0) + 1

    def summary(self) -> dict[str, Any]:
        """Return the figures over all users, with those of each round for the spread."""
        cuts = statistics.quantiles(sorted(self.seconds), n=100, method="inclusive")
        return {
            "users": len(self.seconds),
            "errors": self.errors,
            "p50_ms": round(cuts[49] * 1e3, 1),
            "p99_ms": round(cuts[98] * 1e3, 1),
            "p50_ms_of_each_round": self.p50_ms,
            "p99_ms_of_each_round": self.p99_ms,
        }


class Emulated:
    """The running emulator, by its own endpoints.

    Args:
        folder: Where it left its files.
    """

    def __init__(self, folder: Path) -> None:
        self.about = json.loads((folder / "emulator.json").read_text())
        self.tenants = self.about["tenants"]
        self._http = httpx.Client(verify=self.about["ca_file"], trust_env=False)

    def mint(self, tenant: dict[str, Any], number: int = 0) -> str:
        """Return a new token of one of the tenant's users, for its first blueprint."""
        users = tenant["users"]
        order = {
            "tenant_id": tenant["tenant_id"],
            "user": users[number % len(users)]["object_id"],
            "audience": tenant["blueprints"][0]["client_id"],
        }
        return str(self._http.post(self.about["mint_url"], json=order).json()["access_token"])

    def trouble(self, fault: Mapping[str, Any] | None) -> None:
        """Put a fault of the first tenant's token endpoint in force, in place of any other."""
        faults = f"{self.about['control_url']}/faults"
        self._http.delete(faults)
        if fault:
            match = {"tenant": self.tenants[0]["tenant_id"], "leg": "agent_obo"}
            self._http.post(faults, json={**fault, "match": match}).raise_for_status()

    def close(self) -> None:
        """End the connections."""
        self._http.close()


def document(emulated: Emulated, folder: Path, socket: Path) -> dict[str, Any]:
    """Return a configuration with an on-behalf-of route for each tenant: `a` and `b`."""
    config: dict[str, Any] = {
        "listen": {"grpc": f"unix:{socket}", "admin": f"127.0.0.1:{free_ports(1)[0]}"},
        "entra": {
            "authority": emulated.about["authority"],
            "ca_file": str(emulated.about["ca_file"]),
        },
        "log": {"decisions": "none"},
    }
    for name, tenant in zip("ab", emulated.tenants, strict=False):
        blueprint = tenant["blueprints"][0]
        secret = folder / f"secret-{name}"
        secret.write_text(blueprint["client_secret"])
        config.setdefault("blueprints", {})[name] = {
            "tenant_id": tenant["tenant_id"],
            "client_id": blueprint["client_id"],
            "credentials": [{"client_secret": {"file": str(secret)}}],
        }
        agent = {"blueprint": name, "agent_identity": blueprint["agents"][0]["client_id"]}
        config.setdefault("agents", {})[name] = agent
        config.setdefault("inbound", {})[name] = {"agent": name}
        route = {"flow": "on_behalf_of", "agent": name, "scopes": [APIS["graph"]]}
        config.setdefault("egress", {})[name] = route
    return config


class Users:
    """Callers of the service.

    Args:
        socket: Its gRPC socket.
    """

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}")
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, CheckResponse] = (
            self._channel.unary_unary(METHOD, response_deserializer=CheckResponse.FromString)
        )

    async def ask(self, route: str, token: str) -> tuple[float, str]:
        """Ask once; return the seconds that it took, and why it was denied, if it was."""
        started = time.perf_counter()
        try:
            answer = await self._call(request("egress", route, token), timeout=PATIENCE)
            outcome = answer.status.message if answer.status.code else ""
        except grpc.aio.AioRpcError as error:
            outcome = error.code().name
        return time.perf_counter() - started, outcome

    @asynccontextmanager
    async def crowd(self, tokens: list[str]) -> AsyncIterator[None]:
        """Have users of tenant A ask through the block."""
        left = iter(tokens)

        async def keep_asking() -> None:
            for token in left:
                took, _ = await self.ask("a", token)
                # A user who is denied at once does not try again at once.
                await asyncio.sleep(max(0.0, 1.0 - took))

        crowd = [asyncio.create_task(keep_asking()) for _ in range(CROWD)]
        try:
            # Until they have taken what they get.
            await asyncio.sleep(1.0 if tokens else 0.0)
            yield
        finally:
            for user in crowd:
                user.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*crowd, return_exceptions=True)

    async def steadily(self, tokens: list[str]) -> list[tuple[float, str]]:
        """Have new users of tenant B ask, one after the other at a steady rate, whatever becomes of them."""
        asking = []
        for token in tokens:
            asking.append(asyncio.create_task(self.ask("b", token)))
            await asyncio.sleep(1 / RATE)
        return await asyncio.gather(*asking)

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()


async def measure(
    emulated: Emulated, socket: Path, *, rounds: int, users: int
) -> dict[str, dict[str, Any]]:
    """Go through the situations in rounds; return their figures by name."""
    callers = Users(socket)
    a, b = emulated.tenants[:2]
    found = {name: Figures() for name in SITUATIONS}
    for route, tenant in (("a", a), ("b", b)):
        for _ in range(5):
            await callers.ask(route, emulated.mint(tenant))
    for number in range(rounds):
        for name, fault in SITUATIONS.items():
            crowd = [] if fault is None else [emulated.mint(a, n) for n in range(TOKENS)]
            tokens = [emulated.mint(b) for _ in range(users)]
            emulated.trouble(fault)
            async with callers.crowd(crowd):
                answers = await callers.steadily(tokens)
            emulated.trouble(None)
            found[name].add(answers)
            print(
                f"round {number + 1}: {name}: p50 {found[name].p50_ms[-1]} ms, "
                f"p99 {found[name].p99_ms[-1]} ms, errors {found[name].errors}",
                file=sys.stderr,
            )
            # What A has left hanging ends with its exchange, so the next situation begins clean.
            await asyncio.sleep(0 if fault is None else 16)
    await callers.close()
    return {name: figures.summary() for name, figures in found.items()}


def main() -> None:
    """Start emulator and service, measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=60, help="of tenant B, in each situation")
    arguments = parser.parse_args()
    programs: list[Program] = []
    with tempfile.TemporaryDirectory(prefix="authz-isolation-") as name:
        folder = Path(name)
        try:
            emulator = Program(
                "emulator",
                [
                    sys.executable,
                    "-m",
                    "authz",
                    "emulator",
                    *("--listen", "127.0.0.1:0", "--out", name),
                ],
                log=folder / "emulator.log",
                ready=(folder / "emulator.json").exists,
            )
            programs.append(emulator)
            emulator.start()
            wait([emulator])
            emulated = Emulated(folder)
            socket = folder / "authz.sock"
            config = document(emulated, folder, socket)
            file = folder / "authz.json"
            file.write_text(json.dumps(config))
            service = Program(
                "authz",
                [sys.executable, "-m", "authz", "serve", "--config", str(file)],
                log=folder / "authz.log",
                ready=lambda: _is_ready(config["listen"]["admin"]),
            )
            programs.append(service)
            service.start()
            wait([service])
            figures = asyncio.run(
                measure(emulated, socket, rounds=arguments.rounds, users=arguments.users)
            )
            emulated.close()
        finally:
            stop_all(programs)
    print(json.dumps(figures, indent=2))


def _is_ready(admin: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://{admin}/readyz", trust_env=False).status_code == httpx.codes.OK
    return False


if __name__ == "__main__":
    main()
