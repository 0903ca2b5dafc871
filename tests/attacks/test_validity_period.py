"""`nbf` and `exp` bound a token, with the leeway and not a moment more."""

from dataclasses import replace
from typing import Final

import pytest

from authz.core.errors import TokenFault
from support.fakes.attack import accepted, fault_of
from support.fakes.clock import START, Clock
from support.fakes.scene import Scene
from support.fakes.tenant import ABSENT, FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())
LEEWAY: Final = 60.0
EPSILON: Final = 0.001


async def test_a_token_is_accepted_until_its_expiry_and_leeway() -> None:
    """One millisecond before the end it still counts; at the end it does not."""
    assert await accepted(ENTRA.user_token(exp=START - LEEWAY + EPSILON))
    assert TokenFault.EXPIRED is await fault_of(ENTRA.user_token(exp=START - LEEWAY))


async def test_a_token_is_accepted_from_its_beginning_less_the_leeway() -> None:
    """At the leeway's beginning it counts; one millisecond earlier it does not."""
    assert await accepted(ENTRA.user_token(nbf=START + LEEWAY))
    assert TokenFault.NOT_YET_VALID is await fault_of(
        ENTRA.user_token(nbf=START + LEEWAY + EPSILON)
    )


async def test_without_leeway_the_bounds_are_exact() -> None:
    """`exp` is the first moment at which a token is refused (RFC 7519 section 4.1.4)."""
    scene = Scene()
    expectation = ENTRA.expectation(leeway=0.0)
    scene.configure(replace(scene.inbound_route, expectation=expectation))

    assert await accepted(ENTRA.user_token(nbf=START, exp=START + EPSILON), scene)
    assert not await accepted(ENTRA.user_token(exp=START), scene)
    assert not await accepted(ENTRA.user_token(nbf=START + EPSILON), scene)


@pytest.mark.parametrize("exp", [0, 1, START - 3600.0, START - LEEWAY - EPSILON])
async def test_a_token_of_the_past_is_refused(exp: float) -> None:
    """Zero is a moment too, and long gone."""
    assert TokenFault.EXPIRED is await fault_of(ENTRA.user_token(exp=exp, nbf=0))


@pytest.mark.parametrize("nbf", [START + 3600.0, 9e11])
async def test_a_token_of_the_future_is_refused(nbf: float) -> None:
    """Even one that expires later still."""
    assert TokenFault.NOT_YET_VALID is await fault_of(ENTRA.user_token(nbf=nbf, exp=9.5e11))


@pytest.mark.parametrize("name", ["exp", "nbf"])
async def test_a_token_without_a_bound_is_refused(name: str) -> None:
    """Neither bound is optional."""
    assert TokenFault.MISSING_CLAIM is await fault_of(ENTRA.user_token(**{name: ABSENT}))


async def test_a_token_that_ends_before_it_begins_is_never_valid() -> None:
    """Both rules apply, whichever comes first."""
    token = ENTRA.user_token(nbf=START + 1000.0, exp=START - 1000.0)

    assert TokenFault.EXPIRED is await fault_of(token)
