"""Size is limited before anything is parsed, hashed or looked up."""

from dataclasses import replace
from typing import Final

import pytest

from authz.core.errors import TokenTooLarge
from authz.core.policy import Policy
from authz.core.record import CacheName
from support.fakes.attack import accepted
from support.fakes.clock import Clock
from support.fakes.scene import INBOUND, Scene
from support.fakes.tenant import FakeTenant

ENTRA: Final = FakeTenant(clock=Clock())
LIMIT: Final = Policy(version="v1").max_token_bytes


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("a" * (LIMIT + 1), id="no token at all"),
        pytest.param("." * (LIMIT + 1), id="nothing but dots"),
        pytest.param("a.b." + "=" * LIMIT, id="nothing but padding"),
        pytest.param("a" * 10_000_000, id="ten megabytes"),
        pytest.param(ENTRA.user_token(padding="x" * LIMIT), id="a genuine token"),
    ],
)
async def test_a_token_over_the_limit_is_refused_unread(token: str) -> None:
    """Neither caches nor keys are asked about it, so it is not even hashed."""
    scene = Scene()

    record = await scene.inbound(token)

    assert isinstance(record.error, TokenTooLarge)
    assert ([], []) == (scene.observer.results(CacheName.PRINCIPALS), scene.keys.finds)
    for record in scene.observer.records:
        assert record.request.authorization is not None
        assert record.request.authorization.credentials._digest is None


async def test_a_genuine_token_of_exactly_the_limit_is_accepted() -> None:
    """The limit is the route's promise, not a trap one byte below it."""
    scene = Scene()
    token = ENTRA.user_token()
    scene.configure(max_token_bytes=len(token))

    assert await accepted(token, scene)
    scene.configure(max_token_bytes=len(token) - 1)
    assert not await accepted(token, scene)


async def test_a_large_token_is_refused_even_if_it_was_verified_before_the_limit_changed() -> None:
    """The limit stands before the cache."""
    scene = Scene()
    token = ENTRA.user_token()
    await scene.inbound(token)
    scene.configure(replace(scene.inbound_route, name=INBOUND), max_token_bytes=100)
    record = await scene.inbound(token)

    assert isinstance(record.error, TokenTooLarge)
