"""A token for another API is refused, though everything else about it is right."""

from dataclasses import replace
from typing import Final

import pytest

from authz.core.errors import TokenFault
from support.fakes.attack import accepted, fault_of
from support.fakes.clock import Clock
from support.fakes.scene import Scene
from support.fakes.tenant import AGENT, AUDIENCE, FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())


@pytest.mark.parametrize(
    "audience",
    [
        "https://graph.microsoft.com",
        "00000003-0000-0000-c000-000000000000",
        "api://AzureADTokenExchange",
        AGENT,
        f"api://{AUDIENCE}",
        AUDIENCE.upper(),
        AUDIENCE[:-1],
        f"{AUDIENCE}/",
        f" {AUDIENCE}",
        f"{AUDIENCE}\x00",
        f"{AUDIENCE} {AGENT}",
    ],
)
async def test_another_audience_is_refused(audience: str) -> None:
    """Audiences are compared exactly: no prefix, no case, no other form of the same id."""
    assert TokenFault.AUDIENCE is await fault_of(ENTRA.user_token(audience))


@pytest.mark.parametrize(
    "audience", [[AUDIENCE], [AUDIENCE, AGENT], [], {AUDIENCE: 1}, {}, 1, None, True, ""], ids=repr
)
async def test_an_audience_is_one_text(audience: object) -> None:
    """Entra issues exactly one; a list that merely contains ours is for others as well."""
    assert TokenFault.MISSING_CLAIM is await fault_of(ENTRA.user_token(aud=audience))


async def test_a_token_for_a_sibling_route_is_refused() -> None:
    """Two routes of one service are two audiences."""
    scene = Scene()
    sibling = replace(scene.inbound_route, name="sibling", expectation=ENTRA.expectation("sibling"))
    scene.configure(sibling)

    assert TokenFault.AUDIENCE is await fault_of(ENTRA.user_token("sibling"), scene)


async def test_each_of_several_audiences_is_accepted() -> None:
    """A route may list the forms in which its API is asked for."""
    scene = Scene()
    expectation = ENTRA.expectation(AUDIENCE, f"api://{AUDIENCE}")
    scene.configure(replace(scene.inbound_route, expectation=expectation))

    assert await accepted(ENTRA.user_token(), scene)
    assert await accepted(ENTRA.v1_user_token(f"api://{AUDIENCE}"), scene)
