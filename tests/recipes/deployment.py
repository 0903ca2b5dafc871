"""An agent where it is meant to be: behind a real Envoy, `authz serve` and an emulated Entra, with users."""

import asyncio
import json
import re
import ssl
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from authz.config.reading.document import parse
from authz.envoy_config.bootstrap import render
from authz.envoy_config.settings import SidecarSettings, Upstream
from authz_dev.emulator import Emulator
from authz_dev.emulator.entities import User
from recipes.agents import Program, agent, configuration, require_environment
from support.peers.upstream import EchoUpstream
from support.programs.stack import Process, World, claims
from support.proxy.envoy import EnvoyProcess, free_port
from support.proxy.sidecar import Authority

API: Final = "api.example"
FOREIGN_BAGGAGE: Final = "team=blue"
_REFERENCE: Final = re.compile("authz[-_](?:subject|placeholder)", re.IGNORECASE)
_BACKLOG: Final = 1024
_UNUSED: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Spares each of many clients, which talk no TLS, to load all authorities there are."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user, signed in.

    Attributes:
        object_id: Who it is.
        token: What the agent is called with.
    """

    object_id: str
    token: str


class Recorder(EchoUpstream):
    """An API: answers everything, and remembers what came."""

    def __init__(self, authority: Authority, host: str) -> None:
        super().__init__(authority.server_context(host))
        # Envoy opens many connections at once, and one that has to be tried again costs a second.
        self._server.socket.listen(_BACKLOG)


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything around one agent.

    Attributes:
        people: Users that call the agent.
        agent_id: Client id of the agent identity.
        api: The API, as far as calls went there.
        authz: The service.
        program: The agent.
        inbound: Where callers of the agent arrive.
        checks: Where the service answers Checks.
    """

    people: list[Person]
    agent_id: str
    api: Recorder
    authz: Process
    program: Program
    inbound: str
    checks: str

    async def ask(self, style: str, *, rounds: int) -> Counter[int]:
        """Let all users call the agent at the same time, each for some rounds.

        Returns:
            What the agent was answered where it called, and how often.
        """
        statuses: Counter[int] = Counter()

        async def one(number: int, person: Person) -> None:
            headers = {"authorization": f"Bearer {person.token}", "baggage": FOREIGN_BAGGAGE}
            # A connection each, as users have.
            async with httpx.AsyncClient(
                base_url=self.inbound, headers=headers, trust_env=False, verify=_UNUSED, timeout=90
            ) as client:
                for turn in range(rounds):
                    answer = await client.get(f"/{style}/{number}-{turn}")
                    assert 200 == answer.status_code, (answer.text, self.program.log[-2000:])
                    statuses.update(answer.json())

        async with asyncio.TaskGroup() as group:
            for number, person in enumerate(self.people):
                group.create_task(one(number, person))
        return statuses

    def outcomes(self) -> Counter[str]:
        """Return how many calls reached the API with the token of the right user, and otherwise."""
        return Counter(
            self.whose(seen.path.rpartition("/")[2], seen.values("authorization"))
            for seen in self.api.received
        )

    def whose(self, item: str, authorization: list[str]) -> str:
        """Return whether a call has exactly one token, which the agent got for the user of this item."""
        if len(authorization) != 1:
            return "no token"
        found = claims(authorization[0].removeprefix("Bearer "))
        if found["azp"] != self.agent_id:
            return "no token of the agent"
        person = self.people[int(item.partition("-")[0])]
        return "right user" if found["oid"] == person.object_id else "wrong user"

    def references(self) -> list[tuple[str, str]]:
        """Return the header lines that reached the API with something of ours in them."""
        return references(line for seen in self.api.received for line in seen.headers)

    def foreign_baggage(self) -> set[str]:
        """Return the `baggage` values that reached the API."""
        return {value for seen in self.api.received for value in seen.values("baggage")}

    def refusals(self) -> Counter[str]:
        """Return how many Checks of calls to APIs were denied so far, by reason."""
        text = self.authz.admin("/metrics").text
        return Counter(
            {
                sample.labels["reason"]: int(sample.value)
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == "authz_checks_total"
                and sample.labels["direction"] == "egress"
                and sample.labels["decision"] == "deny"
            }
        )


def references(lines: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the header lines that have something of ours in them."""
    return [line for line in lines if _REFERENCE.search(": ".join(line))]


@contextmanager
def deployed(
    title: str,
    authority: Authority,
    *,
    users: int,
    others: Mapping[str, str] = MappingProxyType({}),
    environ: Mapping[str, str] = MappingProxyType({}),
    reference: str = "handle",
) -> Iterator[Deployment]:
    """Run the agent of a recipe, and everything around it.

    Args:
        title: Heading of the recipe.
        authority: Signs the destinations' certificates; files go where its own is.
        users: How many there shall be.
        others: Addresses of destinations besides the API, by host.
        environ: Variables of the agent that are not as the recipe says.
        reference: What the agent receives for the user's token.
    """
    require_environment()
    # Several may run at a time, and a socket's place belongs to one of them.
    folder = Path(tempfile.mkdtemp(dir=authority.file.parent))
    with Emulator() as emulator, Recorder(authority, API) as api:
        world = World(emulator, folder)
        people = sign_up(world, users)
        upstreams = {API: api.address, **others}
        document = world.config(**configuration())
        document["inbound"]["agent"]["forward"] = reference
        document["egress"]["api"]["subject"] = [reference]
        for host in others:
            document["egress"][host.partition(".")[0]] = {
                **document["egress"]["api"],
                "hosts": [host],
            }
        file = folder / "authz.yaml"
        file.write_text(json.dumps(document))
        app_port = free_port()
        settings = SidecarSettings(
            inbound_address="127.0.0.1:0",
            egress_address="127.0.0.1:0",
            admin_address="127.0.0.1:0",
            app_address=f"127.0.0.1:{app_port}",
            authz_address=document["listen"]["grpc"],
            upstream_ca_file=authority.file,
            upstreams={host: Upstream(address) for host, address in upstreams.items()},
        )
        bootstrap = render(parse(file.read_text(), {}), settings)
        with (
            Process("serve", "--config", str(file)) as authz,
            EnvoyProcess(bootstrap) as envoy,
            agent(
                title,
                port=app_port,
                egress_port=envoy.port("egress"),
                log=folder / "agent.log",
                environ=environ,
            ) as program,
        ):
            authz.wait_ready()
            yield Deployment(
                people=people,
                agent_id=world.agent["client_id"],
                api=api,
                authz=authz,
                program=program,
                inbound=f"http://127.0.0.1:{envoy.port('inbound')}",
                checks=document["listen"]["grpc"],
            )


def sign_up(world: World, number: int) -> list[Person]:
    """Add users for whom the agent may call the API, each with a token for the agent."""
    directory = world.emulator.directory
    applications = {one.name: one for one in directory.applications(world.tenant_id)}
    blueprint, orders = applications["support blueprint"], applications["orders"]
    people = []
    for count in range(number):
        name = f"user{count}"
        user = User(world.tenant_id, str(uuid.uuid4()), f"{name}@contoso.example", name)
        directory.add_user(user)
        directory.grant_scopes(blueprint, orders, ["Orders.Read"], user)
        token = world.emulator.mint_user_token(
            user=user.object_id, audience=world.blueprint["client_id"]
        )
        people.append(Person(user.object_id, token))
    return people
