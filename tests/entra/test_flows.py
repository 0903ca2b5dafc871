"""Every flow against the strict emulator: the right identity, the right number of token calls."""

import asyncio

import pytest

from authz.core.errors import Reason
from support.programs.stack import World, denied, issued, stack

COLD = {
    "graph": {"t1": 1, "agent_obo": 1},
    "autonomous": {"t1": 1, "autonomous": 1},
    "agent-user": {"t1": 1, "t2": 1, "user_fic": 1},
    "blueprint": {"blueprint": 1},
    "app-obo": {"app_obo": 1},
    "app": {"app": 1},
}
WITH_ASSERTIONS = {
    "graph": {"agent_obo": 1},
    "autonomous": {"autonomous": 1},
    "agent-user": {"user_fic": 1},
}


def token_for(world: World, route: str, user: str = "alice") -> str | None:
    """The user's token that a route needs, if it needs one."""
    match route:
        case "graph" | "graph-clerk":
            return world.token(user)
        case "app-obo":
            return world.token(user, audience=world.reports["client_id"], scopes=None)
        case _:
            return None


@pytest.mark.parametrize("route", COLD)
async def test_cold_key_costs_exactly_the_flows_calls_for_200_at_once(
    world: World, route: str
) -> None:
    """200 concurrent Checks on one cold key cause the flow's cold number of token calls."""
    async with stack(world) as service:
        token = token_for(world, route)

        records = await asyncio.gather(*(service.egress(route, token) for _ in range(200)))

        assert COLD[route] == service.calls
        assert len({issued(record)["uti"] for record in records}) == 1


@pytest.mark.parametrize("route", WITH_ASSERTIONS)
async def test_assertions_are_shared_by_all_users_of_an_agent(world: World, route: str) -> None:
    """With T1 (and T2) cached, a further exchange of the agent costs one call."""
    async with stack(world) as service:
        await service.egress("agent-user")
        world.emulator.calls.reset()
        other = "autonomous" if route == "agent-user" else route
        await service.egress(other, token_for(world, other))

        assert WITH_ASSERTIONS[other] == service.calls


async def test_each_flow_speaks_as_the_identity_that_its_route_names(world: World) -> None:
    """Who the token is for, and who acts, is what the configuration says."""
    async with stack(world) as service:
        agent, blueprint = world.agent["client_id"], world.blueprint["client_id"]
        alice = world.users["alice"]["object_id"]

        obo = issued(await service.egress("graph", world.token("alice")))
        autonomous = issued(await service.egress("autonomous"))
        as_user = issued(await service.egress("agent-user"))
        own = issued(await service.egress("blueprint"))
        app = issued(await service.egress("app"))

        assert (agent, alice, "user") == (obo["appid"], obo["oid"], obo["idtyp"])
        assert (agent, agent, "app") == (
            autonomous["appid"],
            autonomous["oid"],
            autonomous["idtyp"],
        )
        assert (agent, "user") == (as_user["appid"], as_user["idtyp"])
        assert as_user["upn"] == world.agent["agent_user"]
        assert (blueprint, "app") == (own["appid"], own["idtyp"])
        assert (world.reports["client_id"], "app") == (app["appid"], app["idtyp"])


async def test_warm_check_asks_nobody(world: World) -> None:
    """A second Check of the same user and route makes no token call."""
    async with stack(world) as service:
        token = world.token()
        first = issued(await service.egress("graph", token))
        world.emulator.calls.reset()

        second = issued(await service.egress("graph", token))

        assert first["uti"] == second["uti"]
        assert service.calls == {}


async def test_obo_route_without_user_is_denied_and_asks_nobody(world: World) -> None:
    """Law 1: there is no other flow to fall to."""
    async with stack(world) as service:
        records = [
            await service.egress("graph"),
            await service.egress(
                "graph",
                world.emulator.mint_user_token(user=None, audience=world.blueprint["client_id"]),
            ),
        ]

        assert [denied(r) for r in records] == [Reason.MISSING_TOKEN, Reason.SUBJECT_NOT_ALLOWED]
        assert service.calls == {}


async def test_concurrent_users_and_agents_get_their_own_tokens(world: World) -> None:
    """Many users of two agents at once: each token names its own user and agent."""
    async with stack(world) as service:
        users = ["alice", "alice2", "alice3"] * 20
        agents = {"graph": world.agent["client_id"], "graph-clerk": world.sibling["client_id"]}
        asked = [(user, route) for user in users for route in agents]

        records = await asyncio.gather(
            *(service.egress(route, world.token(user)) for user, route in asked)
        )

        wrong = [
            (user, route)
            for (user, route), record in zip(asked, records, strict=True)
            if issued(record)["oid"] != world.users[user]["object_id"]
            or issued(record)["appid"] != agents[route]
        ]
        assert wrong == []
