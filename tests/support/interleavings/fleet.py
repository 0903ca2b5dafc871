"""`Fleet`: one service, three agents of two tenants with an Envoy each, and the users who call them."""

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final, Self

import httpx

from authz.config.reading.document import parse
from authz_dev.emulator import Emulator
from authz_dev.emulator.entities import User
from support.faults.output import Reader
from support.interleavings.explanations import Ledger
from support.programs.set_clock import SetClock
from support.programs.stack import GRAPH, Clock, Process, World
from support.proxy.sidecar import Authority, Sidecar

TOKENS: Final = 4
"""Most tokens that a user keeps."""
ENTRIES: Final = 200
"""Most entries of each cache of the service, and references: they are full soon, and evict from then on."""

ROUTES: Final[Mapping[str, Mapping[str, str]]] = {
    "desk": {
        "desk-graph": "graph.example",
        "desk-own": "own.example",
        "desk-account": "account.example",
        "moving": "moving.example",
        "reports-graph": "reports.example",
        "reports-own": "app.example",
        "plain": "plain.example",
    },
    "clerk": {"clerk-graph": "graph.example", "clerk-own": "own.example"},
    "branch": {"branch-graph": "graph.example", "branch-own": "own.example"},
}
"""Hosts of each agent's Envoy, by egress route."""


@dataclass(slots=True)
class Caller:
    """A user with tokens, each with the number of the signing key that it was signed with."""

    object_id: str
    tenant_id: str
    tokens: dict[str, list[tuple[str, int]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent with its Envoy."""

    name: str
    client_id: str
    tenant_id: str
    blueprint: str
    forward: str
    sidecar: Sidecar


class Fleet:
    """A context manager; stopped whole.

    Args:
        world: The emulated Entra.
        truth: Its clock.
        seed: Which users there are does not depend on it, who does what does.
        users: Users of the first tenant; of the second there are a quarter as many.
        checks: Whether Checks have a socket of their own.

    Attributes:
        ledger: What has been injected.
        agents: By name.
        callers: The users, by tenant id.
        generation: How often the signing key was changed.
        moving: Client ids that the route `moving` may give tokens of at this moment.
        output: Reads the service's log.
        clock: Sets the service's clock.
    """

    def __init__(
        self, world: World, truth: Clock, *, seed: int, users: int = 40, checks: bool = False
    ) -> None:
        self.world = world
        self._checks = checks
        self.clock = SetClock(world.folder / "clock", truth)
        self.random = Random(f"fleet {seed}")  # noqa: S311 - to be repeated
        self.ledger = Ledger()
        self.generation = 0
        self.callers = {
            world.tenant_id: self._people(world.tenant, users),
            world.other_tenant["tenant_id"]: self._people(world.other_tenant, max(2, users // 4)),
        }
        self.moving = frozenset({world.agent["client_id"]})
        self.agents: dict[str, Agent] = {}
        self.output = Reader()
        self.restarting = False
        self._stack = ExitStack()
        self.config_file = world.folder / "authz.yaml"
        self.admin_socket = world.folder / "admin.sock"
        other = world.other_tenant["blueprints"][0]
        self.other_secret_file = world.folder / "other-secret"
        self.other_secret_file.write_text(other["client_secret"])

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.output)
            document = self.document()
            self.write(document)
            # Before the Envoys: they open when they have their secrets.
            self._start()
            stack.callback(self._stop)
            transport = httpx.HTTPTransport(uds=str(self.admin_socket))
            self.admin = stack.enter_context(
                # One connection a request: the service closes those that have nothing to say.
                httpx.Client(
                    transport=transport,
                    base_url="http://admin",
                    timeout=10,
                    headers={"connection": "close"},
                )
            )
            self._wait_ready()
            config = parse(json.dumps(document), {})
            authority = Authority.create(self.world.folder)
            self._grant()
            for name, (client_id, tenant_id, blueprint, forward) in self._identities().items():
                hosts = ROUTES[name]
                sidecar = Sidecar(
                    config,
                    authz_address=document["listen"]["grpc"],
                    authority=authority,
                    certificates={host: (host,) for host in hosts.values()},
                    inbound_route=name,
                    egress_hosts={route: (host,) for route, host in hosts.items()},
                )
                self.agents[name] = Agent(
                    name, client_id, tenant_id, blueprint, forward, stack.enter_context(sidecar)
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def restart(self) -> None:
        """Kill the service and start it again."""
        self.restarting = True
        self.authz.signal(signal.SIGKILL)
        self.authz.wait()
        old = self.authz
        self._start()
        old.close()
        self._wait_ready()
        self.restarting = False

    def _start(self) -> None:
        self.authz = Process(
            "serve",
            "--config",
            str(self.config_file),
            output=self.output.writing,
            environ=self.clock.environ,
        )

    def _stop(self) -> None:
        self.output.go_on()
        self.authz.close()

    def _wait_ready(self) -> None:
        end = monotonic() + 60
        while True:
            assert self.authz.running, self.authz.log()
            # The socket of a killed one is there until the next one takes its place.
            with suppress(httpx.HTTPError):
                if self.admin_socket.exists() and self.admin.get("/readyz").is_success:
                    return
            assert monotonic() < end, "the service did not become ready"

    def _people(self, tenant: Mapping[str, Any], number: int) -> list[Caller]:
        people = []
        for index in range(number):
            user = User(
                tenant["tenant_id"],
                f"{index:08x}-0000-4000-8000-00000000feed",
                f"user{index}@{tenant['domain']}",
                f"User {index}",
            )
            self.world.emulator.directory.add_user(user)
            people.append(Caller(user.object_id, user.tenant_id))
        return people

    def _identities(self) -> dict[str, tuple[str, str, str, str]]:
        world = self.world
        other = world.other_tenant["blueprints"][0]
        support = world.blueprint["client_id"]
        return {
            "desk": (world.agent["client_id"], world.tenant_id, support, "handle"),
            "clerk": (world.sibling["client_id"], world.tenant_id, support, "placeholder"),
            "branch": (
                other["agents"][0]["client_id"],
                world.other_tenant["tenant_id"],
                other["client_id"],
                "bearer",
            ),
        }

    def _grant(self) -> None:
        """Consent of administrators, for everybody."""
        directory = self.world.emulator.directory
        identities = [
            (client_id, tenant_id) for client_id, tenant_id, _, _ in self._identities().values()
        ]
        for client_id, tenant_id in [
            *identities,
            (self.world.reports["client_id"], self.world.tenant_id),
        ]:
            graph, client = (
                directory.resource(tenant_id, "https://graph.microsoft.com"),
                directory.client(tenant_id, client_id),
            )
            assert graph is not None
            assert client is not None
            directory.grant_scopes(client, graph, ["User.Read"], None)

    def document(self) -> dict[str, Any]:
        """Return the configuration as it is at first."""
        world = self.world
        base = world.config()
        other = world.other_tenant
        blueprint = other["blueprints"][0]
        graph = {"scopes": [GRAPH]}
        base["blueprints"]["other"] = {
            "tenant_id": other["tenant_id"],
            "client_id": blueprint["client_id"],
            "credentials": [{"client_secret": {"file": str(self.other_secret_file)}}],
        }
        base["agents"]["branch"] = {
            "blueprint": "other",
            "agent_identity": blueprint["agents"][0]["client_id"],
        }
        return {
            **base,
            "listen": {
                "grpc": f"unix:{world.folder}/authz.sock",
                **({"checks": f"unix:{world.folder}/checks.sock"} if self._checks else {}),
                "admin": f"unix:{self.admin_socket}",
                # The server of a socket that was removed ends when its connections have aged.
                "max_connection_age": "2m",
                "max_connection_age_grace": "10s",
            },
            "entra": {
                **base["entra"],
                "timeout": "2s",
                "exchange_timeout": "4s",
                "keys": {
                    "refresh_interval": "1m",
                    "retry_interval": "1s",
                    "unknown_key_interval": "1s",
                },
            },
            "inbound": {
                name: {"agent": name, "scopes": ["access_agent"], "forward": forward}
                for name, (_, _, _, forward) in self._identities().items()
            },
            "egress": {
                "desk-graph": {
                    "flow": "on_behalf_of",
                    "agent": "desk",
                    "subject": ["bearer", "handle"],
                    **graph,
                },
                "desk-own": {"flow": "autonomous", "agent": "desk", **graph},
                "desk-account": {"flow": "agent_user", "agent": "desk", "push": False, **graph},
                "moving": {"flow": "on_behalf_of", "agent": "desk", **graph},
                "reports-graph": {"flow": "app_on_behalf_of", "application": "reports", **graph},
                "reports-own": {"flow": "app", "application": "reports", "push": False, **graph},
                "plain": {"flow": "none"},
                "clerk-graph": {
                    "flow": "on_behalf_of",
                    "agent": "clerk",
                    "subject": ["placeholder", "bearer"],
                    **graph,
                },
                "clerk-own": {"flow": "autonomous", "agent": "clerk", "push": False, **graph},
                "branch-graph": {"flow": "on_behalf_of", "agent": "branch", **graph},
                "branch-own": {"flow": "autonomous", "agent": "branch", **graph},
            },
            "cache": {
                "edge": {"max_ttl": "1s"},
                **{
                    name: {"max_entries": ENTRIES}
                    for name in ("tokens", "principals", "failures", "answers")
                },
            },
            "subject": {"max_entries": ENTRIES},
            "reload_interval": "200ms",
        }

    def write(self, document: Mapping[str, Any]) -> None:
        """Put a configuration in place, at one stroke."""
        fresh = self.config_file.with_suffix(".new")
        fresh.write_text(json.dumps(document))
        fresh.replace(self.config_file)

    def token(
        self, caller: Caller, audience: str, pick: Random, fresh: float = 0.05
    ) -> tuple[str, int]:
        """Return a token of a user for an audience, now and then a new one, and which key signed it."""
        kept = caller.tokens.setdefault(audience, [])
        if not kept or pick.random() < fresh:
            made = self.world.emulator.mint_user_token(
                tenant_id=caller.tenant_id, user=caller.object_id, audience=audience
            )
            kept.append((made, self.generation))
            del kept[:-TOKENS]
        return pick.choice(kept)

    def roll(self, *, withdraw: bool) -> None:
        """Let Entra sign with a new key. Users have none of the tokens that end with the old one."""
        self.world.emulator.roll_signing_key(withdraw_old=withdraw)
        self.generation += 1
        if withdraw:
            self._take_new_tokens()

    def let_pass(self, seconds: float) -> None:
        """Let time pass for the service and for Entra. Users come with new tokens afterwards."""
        self.clock.advance(seconds)
        self._take_new_tokens()

    def _take_new_tokens(self) -> None:
        for caller in (one for tenant in self.callers.values() for one in tenant):
            caller.tokens.clear()

    def forget(self) -> None:
        """Forget every request that arrived anywhere so far."""
        for agent in self.agents.values():
            agent.sidecar.forget()


@contextmanager
def fleet_of(folder: Path, *, seed: int, users: int = 40, checks: bool = False) -> Iterator[Fleet]:
    """Run a fleet with an emulated Entra of its own."""
    truth = Clock()
    with (
        Emulator(clock=truth) as emulator,
        Fleet(World(emulator, folder), truth, seed=seed, users=users, checks=checks) as fleet,
    ):
        yield fleet
