"""What an exchange takes of the processor, which bounds how many a process carries out in a second.

Beside it, in the same rounds: MSAL alone, with nothing around it. The exchanges are those of new users of an
agent that is known: one call to Entra each.
"""

import statistics
from dataclasses import dataclass
from typing import Final

from bench import caller, msal_alone
from bench.checks import request
from bench.documents import DELEGATED
from bench.msal_alone import Order
from bench.population import APIS
from bench.rows import Ratio
from bench.scene import Scene

_AT_ONCE: Final = 10
"""In flight: as many connections as MSAL keeps."""


@dataclass(frozen=True, slots=True)
class Exchanges:
    """Processor time of an exchange, in milliseconds, round by round.

    Attributes:
        ours: Of the service, the Check included.
        msal: Of MSAL alone.
    """

    ours: list[float]
    msal: list[float]

    def figures(self) -> dict[str, float]:
        """Return the medians by name."""
        return {
            "exchange_cpu_ms": round(statistics.median(self.ours), 2),
            "exchange_cpu_ms_msal": round(statistics.median(self.msal), 2),
        }

    def ratios(self) -> dict[str, Ratio]:
        """Return how many exchanges the service carries out while MSAL alone carries out one."""
        pairs = zip(self.msal, self.ours, strict=True)
        return {"exchange_vs_msal": Ratio.of_pairs([theirs / mine for theirs, mine in pairs])}


def measure(scene: Scene, *, rounds: int, number: int) -> Exchanges:
    """Carry out as many exchanges of either kind in each round.

    Raises:
        LoadError: One was denied.
    """
    entra = scene.entra
    found = Exchanges([], [])
    t1, _ = entra.ask_t1(entra.agent)
    for _ in range(rounds):
        checks = [request("egress", DELEGATED, entra.mint()) for _ in range(number)]
        before = scene.service.cpu_seconds()
        caller.send(f"unix:{scene.checks_socket}", checks, number=number, in_flight=_AT_ONCE)
        found.ours.append((scene.service.cpu_seconds() - before) / number * 1e3)
        order = Order(
            authority=f"{entra.authority}/{entra.tenant_id}",
            ca_file=str(entra.ca_file),
            agent=entra.agent,
            t1=t1,
            scope=APIS["graph"],
            tokens=[entra.mint() for _ in range(number + 1)],
            threads=_AT_ONCE,
        )
        found.msal.append(msal_alone.milliseconds(order))
    return found
