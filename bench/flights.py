"""How often Entra is asked: many Checks at once on one cold key, and a mixed load of many users."""

import random
from dataclasses import dataclass
from typing import Final

from bench import caller
from bench.checks import request
from bench.documents import DELEGATED
from bench.population import APIS
from bench.scene import Scene

AT_ONCE: Final = 200
_IN_FLIGHT: Final = 32
_LEGS: Final = 2
_LAST: Final = 5


@dataclass(frozen=True, slots=True)
class Mixed:
    """Calls to Entra under a mixed load: users and APIs drawn at random, evenly.

    Attributes:
        users: Users.
        apis: Delegated APIs that each may call.
        requests: Requests in all, starting with nothing cached.
        calls: Calls to Entra's token endpoint that they caused.
        last_calls: Those that the last fifth of the requests caused.
    """

    users: int
    apis: int
    requests: int
    calls: int
    last_calls: int

    def figures(self) -> dict[str, float]:
        """Return them by name."""
        return {
            "mixed_users": self.users,
            "mixed_apis": self.apis,
            "mixed_requests": self.requests,
            "entra_calls_per_1000_requests": round(1000 * self.calls / self.requests, 1),
            "entra_calls_per_1000_requests_of_the_last_fifth": round(
                1000 * self.last_calls / (self.requests // _LAST), 1
            ),
            "entra_calls_per_1000_requests_without_caches": 1000.0 * _LEGS,
        }


def one_key(scene: Scene, at_once: int = AT_ONCE) -> int:
    """Send Checks for one token that was never seen, all at once; return the exchanges that it took.

    Raises:
        LoadError: A Check was denied.
    """
    cold = request("egress", DELEGATED, scene.entra.mint())
    before = scene.entra.calls()["agent_obo"]
    caller.send(f"unix:{scene.socket}", [cold], number=at_once, in_flight=at_once)
    return scene.entra.calls()["agent_obo"] - before


def mixed(scene: Scene, *, users: int, requests: int) -> Mixed:
    """Send a mixed load of delegated Checks and count the calls to Entra.

    Raises:
        LoadError: A Check was denied.
    """
    people = [scene.entra.mint(user) for user in scene.entra.users[:users]]
    drawn = random.Random(1)  # noqa: S311 - the same load each time
    load = [
        request("egress", drawn.choice(list(APIS)), drawn.choice(people)) for _ in range(requests)
    ]
    last = requests // _LAST
    counts = [scene.entra.calls()["total"]]
    for part in (load[:-last], load[-last:]):
        caller.send(f"unix:{scene.socket}", part, number=len(part), in_flight=_IN_FLIGHT)
        counts.append(scene.entra.calls()["total"])
    return Mixed(
        users=len(people),
        apis=len(APIS),
        requests=requests,
        calls=counts[2] - counts[0],
        last_calls=counts[2] - counts[1],
    )
