"""The recipes' own agents, called by a user who has another one's handle: no call is for the other one."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterable
from typing import Final

import pytest

from authz.core.baggage import MEMBER
from recipes.deployment import Deployment, Person, deployed
from support.peers.lines import Caller
from support.programs.stack import Client as Asker
from support.proxy.sidecar import Authority
from support.proxy.spellings import Headers, Speller

pytestmark = pytest.mark.recipes

NUMBER: Final = int(os.environ.get("AUTHZ_TEST_AGENT_SPELLINGS", "1000"))
"""How many spellings each agent is called with."""
SEED: Final = 20261129
CALLERS: Final = 8
STYLES: Final = {"FastAPI": "await", "Flask": "call", "LangChain": "ask", "Node.js": "fetch"}
PYTHON: Final = {"OTEL_PROPAGATORS": "tracecontext,baggage,jaeger,ottrace"}
ENVIRON: Final = {
    # As the recipe has it, and with all that OpenTelemetry for Python can read baggage from.
    "FastAPI": PYTHON,
    "Flask": PYTHON,
    "LangChain": {},
    "Node.js": {},
}


async def handle_of(deployment: Deployment, person: Person) -> str:
    """Return the handle that the agent receives for a user."""
    async with Asker(deployment.checks) as asker:
        answer = await asker.check("inbound", "agent", person.token)
    (value,) = (
        option.header.value
        for option in answer.ok_response.headers
        if option.header.key == "baggage"
    )
    return str(value.removeprefix(f"{MEMBER}="))


def call(
    deployment: Deployment, style: str, requests: Iterable[tuple[int, Headers]]
) -> Counter[int]:
    """Call the agent as the first user, and return what it was answered where it called.

    What Envoy refused on the way to the agent is counted below zero.
    """
    token = f"Bearer {deployment.people[0].token}".encode()
    statuses: Counter[int] = Counter()
    port = int(deployment.inbound.rpartition(":")[2])
    for number, lines in requests:
        with Caller(port) as caller:
            status, body = caller.get(f"/{style}/0-{number}", [("authorization", token), *lines])
        statuses.update(json.loads(body) if status == 200 else [-status])
    return statuses


@pytest.mark.parametrize("title", STYLES)
async def test_no_spelling_makes_an_agent_call_for_another_user(
    authority: Authority, title: str
) -> None:
    """Each call has the token of the user who asked; what Envoy itself refuses does not get that far."""
    with deployed(title, authority, users=2, environ=ENVIRON[title]) as deployment:
        victim = await handle_of(deployment, deployment.people[1])
        requests = list(enumerate(Speller(SEED, victim).spellings(NUMBER)))
        counted = await asyncio.gather(
            *(
                asyncio.to_thread(call, deployment, STYLES[title], requests[first::CALLERS])
                for first in range(CALLERS)
            )
        )
        statuses: Counter[int] = sum(counted, Counter())
        calls = 2 if title == "LangChain" else 1

        assert {"right user": statuses[200]} == deployment.outcomes()
        assert {} == deployment.refusals()
        assert statuses[200] > NUMBER * calls * 3 / 4, statuses
        # Too many header lines, which the propagators of Jaeger and OpenTracing make of many members.
        assert {200, -400, 431} >= set(statuses)
        assert NUMBER * calls == statuses.total() - statuses[-400] + statuses[-400] * calls
        assert [] == deployment.references()
