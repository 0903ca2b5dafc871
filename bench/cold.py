"""Cold exchanges: what a Check takes beyond Entra's own answers, measured in pairs."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.checks import Caller, request
from bench.documents import DELEGATED
from bench.population import APIS
from bench.scene import Scene


@dataclass(frozen=True, slots=True)
class Cold:
    """Medians in milliseconds.

    Attributes:
        cold_obo_ms: A Check with nothing cached, T1 included: two calls to Entra.
        cold_obo_entra_ms: Entra's answers to the same two calls, one after the other.
        cold_obo_extra_ms: The difference, pair by pair.
        warm_t1_ms: A Check with a cached T1: one call.
        warm_t1_entra_ms: Entra's answer to that call.
        warm_t1_extra_ms: The difference, pair by pair.
    """

    cold_obo_ms: float
    cold_obo_entra_ms: float
    cold_obo_extra_ms: float
    warm_t1_ms: float
    warm_t1_entra_ms: float
    warm_t1_extra_ms: float

    def figures(self) -> dict[str, float]:
        """Return them by name."""
        return asdict(self)


def measure(scene: Scene, number: int) -> Cold:
    """Ask for a token that nobody has, through the service and without it, in turn.

    Each pair takes an agent that was never used, so that neither service nor MSAL knows anything of it.

    Raises:
        LoadError: A Check was denied.
    """
    entra, graph = scene.entra, APIS["graph"]
    agents = entra.cold_agents[:number]
    caller = Caller(f"unix:{scene.socket}")
    two: list[tuple[float, float]] = []
    one: list[tuple[float, float]] = []
    try:
        # Connections are open afterwards, ours to the service and its own to Entra.
        for _ in range(32):
            caller.ask(request("egress", DELEGATED, entra.mint()))
        for agent in agents:
            t1, first = entra.ask_t1(agent)
            _, second = entra.ask_obo(agent, t1, entra.mint(), graph)
            two.append((_seconds(caller, request("egress", agent, entra.mint())), first + second))
            _, answer = entra.ask_obo(agent, t1, entra.mint(), graph)
            one.append((_seconds(caller, request("egress", agent, entra.mint())), answer))
    finally:
        caller.close()
    return Cold(
        cold_obo_ms=_milliseconds([check for check, _ in two]),
        cold_obo_entra_ms=_milliseconds([answers for _, answers in two]),
        cold_obo_extra_ms=_milliseconds([check - answers for check, answers in two]),
        warm_t1_ms=_milliseconds([check for check, _ in one]),
        warm_t1_entra_ms=_milliseconds([answer for _, answer in one]),
        warm_t1_extra_ms=_milliseconds([check - answer for check, answer in one]),
    )


def _seconds(caller: Caller, prepared: bytes) -> float:
    started = time.perf_counter()
    caller.ask(prepared)
    return time.perf_counter() - started


def _milliseconds(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1e3, 2)
