"""On-behalf-of exchanges by MSAL as it comes, as an agent that knows no authz would carry them out.

As a program: reads an `Order` as JSON, exchanges each token once by one client in several threads, and prints
the processor time that an exchange took, in milliseconds. `bench.exchanges` runs it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import msal

from bench.load import LoadError


@dataclass(frozen=True, slots=True)
class Order:
    """What to exchange.

    Attributes:
        authority: Entra's address with the tenant.
        ca_file: Whom to trust.
        agent: Client id of the agent.
        t1: Its client assertion.
        scope: What to ask for.
        tokens: Users' tokens. The first opens the connections, and does not count.
        threads: How many exchanges are under way at a time.
    """

    authority: str
    ca_file: str
    agent: str
    t1: str
    scope: str
    tokens: Sequence[str]
    threads: int


def milliseconds(order: Order) -> float:
    """Return the processor time of an exchange, measured in a process of its own.

    Raises:
        LoadError: Entra refused one.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.msal_alone"],
        input=json.dumps(asdict(order)),
        capture_output=True,
        text=True,
        check=False,
        # Of the machine that runs the bench, both go before what a session says.
        env={**os.environ, "REQUESTS_CA_BUNDLE": order.ca_file, "NO_PROXY": "*"},
    )
    if done.returncode:
        raise LoadError(f"MSAL alone: {done.stderr[-1000:]}")
    return float(done.stdout)


def _exchange(order: Order) -> float:
    application = msal.ConfidentialClientApplication(
        order.agent,
        client_credential={"client_assertion": order.t1},
        authority=order.authority,
        instance_discovery=False,
    )

    def exchange(token: str) -> None:
        answer = application.acquire_token_on_behalf_of(token, [order.scope])
        if "access_token" not in answer:
            raise LoadError(str(answer.get("error_description")))

    with ThreadPoolExecutor(order.threads) as threads:
        first, *others = order.tokens
        exchange(first)
        started = time.process_time()
        for _ in threads.map(exchange, others):
            pass
    return (time.process_time() - started) / len(others) * 1e3


if __name__ == "__main__":
    print(_exchange(Order(**json.load(sys.stdin))))
