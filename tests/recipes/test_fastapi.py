"""A FastAPI agent that forwards nothing, with many users at a time, in every way to make a call."""

import asyncio
from collections.abc import Iterator

import pytest

from recipes.deployment import FOREIGN_BAGGAGE, Deployment, deployed
from support.proxy.sidecar import Authority

pytestmark = pytest.mark.recipes

USERS = 300


@pytest.fixture(scope="module")
def shared(authority: Authority) -> Iterator[Deployment]:
    """The agent with its users."""
    with deployed("FastAPI", authority, users=USERS) as running:
        yield running


@pytest.fixture
def deployment(shared: Deployment) -> Deployment:
    """The agent, and an API that nobody has called yet."""
    shared.api.received.clear()
    return shared


@pytest.mark.parametrize(
    ("style", "rounds", "calls"),
    [
        ("await", 7, 1),
        ("gather", 4, 2),
        ("child-task", 7, 1),
        ("to-thread", 7, 1),
        ("thread-pool", 7, 1),
        ("new-thread", 7, 1),
        ("sync-endpoint", 7, 1),
        ("aiohttp", 7, 1),
    ],
)
async def test_every_call_is_made_for_the_user_who_asked(
    deployment: Deployment, style: str, rounds: int, calls: int
) -> None:
    """More than 2,000 calls: the right user's token each time, foreign baggage, and nothing of ours."""
    statuses = await deployment.ask(style, rounds=rounds)

    expected = USERS * rounds * calls
    assert {200: expected} == statuses
    assert {"right user": expected} == deployment.outcomes()
    assert [] == deployment.references()
    assert {FOREIGN_BAGGAGE} == deployment.foreign_baggage()


@pytest.mark.parametrize("style", ["queue-task", "queue-thread", "urllib"])
async def test_call_that_lost_its_user_is_refused(deployment: Deployment, style: str) -> None:
    """Workers that were there before, and clients that nothing instruments; others' calls go on meanwhile."""
    before = deployment.refusals()

    statuses, of_others = await asyncio.gather(
        deployment.ask(style, rounds=1), deployment.ask("await", rounds=1)
    )

    assert {401: USERS} == statuses
    assert {"missing_token": USERS} == deployment.refusals() - before
    assert {200: USERS} == of_others
    assert {"right user": USERS} == deployment.outcomes()


@pytest.mark.parametrize("style", ["late-task", "late-thread"])
async def test_worker_that_a_request_starts_keeps_the_user_of_that_request(
    deployment: Deployment, style: str
) -> None:
    """No instrumentation can tell: docs/recipes.md says to start workers before the first request."""
    statuses = await deployment.ask(style, rounds=1)

    assert {200: USERS} == statuses
    assert {"right user": 1, "wrong user": USERS - 1} == deployment.outcomes()
