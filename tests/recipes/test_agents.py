"""Agents of other frameworks, and another language, that forward nothing."""

from collections.abc import Iterator

import pytest

from recipes.deployment import FOREIGN_BAGGAGE, Deployment, deployed
from support.proxy.sidecar import Authority

pytestmark = pytest.mark.recipes

USERS = 20
ROUNDS = 5


@pytest.fixture(scope="module")
def flask(authority: Authority) -> Iterator[Deployment]:
    """The Flask agent."""
    with deployed("Flask", authority, users=USERS) as running:
        yield running


@pytest.fixture(scope="module")
def langchain(authority: Authority) -> Iterator[Deployment]:
    """The LangChain agent."""
    with deployed("LangChain", authority, users=USERS) as running:
        yield running


@pytest.fixture(scope="module")
def node(authority: Authority) -> Iterator[Deployment]:
    """The Node.js agent."""
    with deployed("Node.js", authority, users=USERS) as running:
        yield running


@pytest.mark.parametrize(
    ("fixture", "style", "calls"),
    [
        ("flask", "call", 1),
        ("langchain", "ask", 2),
        ("node", "fetch", 1),
        ("node", "all", 2),
        ("node", "http", 1),
        ("node", "timer", 1),
    ],
)
async def test_every_call_is_made_for_the_user_who_asked(
    request: pytest.FixtureRequest, fixture: str, style: str, calls: int
) -> None:
    """The API gets the agent's token for the right user, foreign baggage, and nothing of ours."""
    deployment: Deployment = request.getfixturevalue(fixture)
    deployment.api.received.clear()

    statuses = await deployment.ask(style, rounds=ROUNDS)

    expected = USERS * ROUNDS * calls
    assert {200: expected} == statuses
    assert {"right user": expected} == deployment.outcomes()
    assert [] == deployment.references()
    assert {FOREIGN_BAGGAGE} == deployment.foreign_baggage()


async def test_queue_of_a_node_agent_loses_the_user_and_is_refused(node: Deployment) -> None:
    """A loop that runs from the start belongs to no request."""
    node.api.received.clear()
    before = node.refusals()

    statuses = await node.ask("queue", rounds=ROUNDS)

    assert {401: USERS * ROUNDS} == statuses
    assert {"missing_token": USERS * ROUNDS} == node.refusals() - before
    assert [] == node.api.received


async def test_agent_that_copies_no_baggage_is_refused(authority: Authority) -> None:
    """A setting that leaves `baggage` out of what is copied fails closed."""
    environ = {"OTEL_PROPAGATORS": "tracecontext"}
    with deployed("Flask", authority, users=USERS, environ=environ) as deployment:
        statuses = await deployment.ask("call", rounds=1)

        assert {401: USERS} == statuses
        assert {"missing_token": USERS} == deployment.refusals()
        assert [] == deployment.api.received
