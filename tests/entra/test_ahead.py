"""T1 and T2 ahead of time: nobody waits for a leg that could be foreseen."""

import pytest

from authz.entra.exchange import EntraExchange
from authz_dev.emulator import Fault, Match
from authz_dev.emulator.claims import APP_LIFETIME
from support.programs.stack import Clock, Stack, World, issued, stack

STANDING_FAILURE = 5.0
"""Seconds, and more, for which a failed refresh is not tried again."""


async def _landed(service: Stack) -> None:
    """Wait for every flight, those of the assertions included."""
    tokens = service.engine.service._snapshot.tokens
    assert isinstance(tokens._exchange, EntraExchange)
    await tokens.drain()
    await tokens._exchange.assertions.drain()


@pytest.mark.parametrize(
    ("flow", "assertion"), [("autonomous", "t1"), ("agent_user", "t1"), ("agent_user", "t2")]
)
async def test_an_assertion_is_fetched_ahead_of_its_end(
    world: World, clock: Clock, flow: str, assertion: str
) -> None:
    """Past its refresh time the old one still serves, and its successor is there before it ends."""
    route = {"flow": flow, "agent": "desk", "scopes": ["https://graph.microsoft.com/.default"]}
    document = world.config()
    # Tokens of their own, by the same assertions.
    for name in ("first", "second", "third", "fourth"):
        document["egress"][name] = {**route, "claims": {"access_token": {name: None}}}
    async with stack(world, clock=clock, document=document) as service:
        issued(await service.egress("first"))
        clock.ahead = APP_LIFETIME * 0.8
        world.emulator.faults.add(Fault("down", match=Match(leg=assertion)))
        during = await service.egress("second")
        await _landed(service)
        world.emulator.faults.clear()
        clock.ahead += STANDING_FAILURE
        world.emulator.calls.reset()
        await service.egress("third")
        await _landed(service)
        renewed = service.calls
        world.emulator.calls.reset()
        clock.ahead = APP_LIFETIME * 1.1
        after = await service.egress("fourth")

        assert issued(during)["appid"] == issued(after)["appid"] == world.agent["client_id"]
        assert 1 == renewed[assertion]
        assert {flow if flow == "autonomous" else "user_fic": 1} == service.calls
