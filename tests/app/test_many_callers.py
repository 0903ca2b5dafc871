"""Two hundred callers at once, each with its own identity and overrides: nobody gets another's token.

The sidecar's first version kept one request's agent for others. `AUTHZ_SOAK_SECONDS=60` runs it for a minute.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from authz_dev.emulator.entities import User
from support.programs.stack import World, claims
from support.programs.token_api import Sidecar

CALLERS = 200
ROUNDS = 3
SECONDS = float(os.environ.get("AUTHZ_SOAK_SECONDS", "0"))
USERS = 40
ACQUIRE = "optionsOverride.AcquireTokenOptions."


@dataclass(frozen=True)
class Case:
    """One request and who must be in its token."""

    path: str
    parameters: dict[str, str]
    token: str | None
    client: str
    subject: str | None


class Callers:
    """Makes requests of every kind.

    Args:
        world: Whose identities they use.
        seed: The same requests for the same seed.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - to be repeated
        self._blueprint = world.blueprint["client_id"]
        self._agents = [agent["client_id"] for agent in (world.agent, world.sibling)]
        self._agent_user = world.agent["agent_user"]
        directory = world.emulator.directory
        graph = directory.resource(world.tenant_id, "https://graph.microsoft.com")
        assert graph is not None
        for agent_id in self._agents:
            agent = directory.agent(world.tenant_id, agent_id)
            assert agent is not None
            # Consent of an administrator, for everybody.
            directory.grant_scopes(agent, graph, ["User.Read"], None)
        self._users = []
        for number in range(USERS):
            user = User(
                world.tenant_id,
                f"{number:08x}-0000-4000-8000-00000000cafe",
                f"caller{number}@{world.tenant['domain']}",
                f"Caller {number}",
            )
            directory.add_user(user)
            audience = world.blueprint["client_id"]
            token = world.emulator.mint_user_token(user=user.object_id, audience=audience)
            self._users.append((user.object_id, token))

    def case(self) -> Case:
        """Return one at random."""
        pick = self._random
        user, token = pick.choice(self._users)
        agent = pick.choice(self._agents)
        kind = pick.choice(["user", "agent", "blueprint", "account", "known agent"])
        known = kind in ("user", "known agent") or pick.random() < 0.3
        parameters: dict[str, str] = {}
        client, subject = agent, None
        match kind:
            case "user":
                parameters = {"optionsOverride.RequestAppToken": "false"}
                subject = user
            case "account":
                agent = client = self._agents[0]
                parameters = {"AgentUsername": self._agent_user}
                subject = self._agent_user
            case "blueprint":
                client = self._blueprint
        if kind != "blueprint":
            parameters["AgentIdentity"] = agent
        if pick.random() < 0.02:
            parameters[f"{ACQUIRE}ForceRefresh"] = "true"
        if pick.random() < 0.3:
            # Another set of overrides, and so another token.
            wanted = {"access_token": {"xms_cc": {"values": [f"cp{pick.randrange(3)}"]}}}
            parameters[f"{ACQUIRE}Claims"] = json.dumps(wanted)
        downstream = pick.random() < 0.3
        name = "DownstreamApi" if downstream else "AuthorizationHeader"
        if downstream:
            parameters["optionsOverride.RelativePath"] = "whoami"
        path = f"/{name}{'' if known else 'Unauthenticated'}/graph"
        return Case(path, parameters, token if known else None, client, subject)


def identity_of(answer: dict[str, Any]) -> dict[str, Any]:
    """The claims of the token that was given, or that the API saw."""
    if "authorizationHeader" in answer:
        return claims(answer["authorizationHeader"].removeprefix("Bearer "))
    assert answer["statusCode"] == 200, answer
    return dict(json.loads(answer["content"]))


async def test_nobody_gets_another_callers_token(
    world: World, start: Callable[..., Sidecar]
) -> None:
    """Users, agents, user accounts, the blueprint; headers and calls; forced and cached, all at once."""
    sidecar = start()
    end = time.monotonic() + SECONDS
    answered: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=CALLERS, max_keepalive_connections=CALLERS)
    async with httpx.AsyncClient(
        base_url=f"http://{sidecar.address}", limits=limits, timeout=60, trust_env=False
    ) as client:
        callers = Callers(world, seed=7)

        async def call() -> None:
            rounds = 0
            while rounds < ROUNDS or time.monotonic() < end:
                rounds += 1
                case = callers.case()
                headers = {"authorization": f"Bearer {case.token}"} if case.token else {}
                method = "POST" if "Downstream" in case.path else "GET"
                response = await client.request(
                    method, case.path, params=case.parameters, headers=headers
                )
                assert response.status_code == 200, (case, response.text)
                found = identity_of(response.json())
                assert case.client == found["appid"], case
                assert case.subject is None or case.subject in (found["oid"], found.get("upn")), (
                    case
                )
                assert ("app" if case.subject is None else "user") == found["idtyp"], case
                answered[case.path] += 1

        await asyncio.gather(*(call() for _ in range(CALLERS)))
    assert sum(answered.values()) >= CALLERS * ROUNDS
    if SECONDS:
        print(dict(answered))  # noqa: T201 - whoever asked for a long run wants to see it
