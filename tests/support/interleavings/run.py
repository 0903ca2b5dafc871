"""`run`: many callers and some disturbers at a time, and a report of what became of every request."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from time import monotonic
from typing import Any, Final

import httpx

from support.interleavings.cases import Cases, Outcome
from support.interleavings.disturbances import DISTURBANCES, Disturbance
from support.interleavings.explanations import LATE, LOST
from support.interleavings.fleet import Fleet
from support.interleavings.wire import Connections
from support.proxy.sidecar import AUTHZ_TIMEOUT

CALLERS: Final = 16
DISTURBERS: Final = 3
_KEPT: Final = 20
"""Most findings that are kept in words."""


@dataclass(slots=True)
class Report:
    """What was seen.

    Attributes:
        outcomes: Number of requests by kind and result.
        explained: Denials that an injected fault explains, by reason.
        wrong: Requests that were allowed with another identity than they must have, the first in words.
        wrongs: How many there were.
        unexplained: Denials that no injected fault explains, the first in words.
        unexplaineds: How many there were.
        disturbances: How often each was done.
        probes: Answers of `/livez`, by status.
        slowest_probe: Seconds of the slowest one.
        complaints: Records of the service's log that tell of a defect.
        seconds: How long it took.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    disturbances: Counter[str] = field(default_factory=Counter)
    probes: Counter[str] = field(default_factory=Counter)
    slowest_probe: float = 0.0
    complaints: list[str] = field(default_factory=list)
    seconds: float = 0.0
    wrongs: int = 0
    unexplaineds: int = 0

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return self.outcomes.total()

    @property
    def failed(self) -> bool:
        """Whether anything was seen that must not be."""
        return bool(self.wrongs or self.unexplaineds or self.complaints)

    def as_json(self) -> dict[str, Any]:
        """The report, for people and programs."""
        kinds: dict[str, dict[str, int]] = {}
        for (kind, result), count in sorted(self.outcomes.items()):
            kinds.setdefault(kind, {})[result] = count
        return {
            "requests": self.requests,
            "wrong_identities": self.wrongs,
            "unexplained_denials": self.unexplaineds,
            "explained_denials": dict(self.explained.most_common()),
            "kinds": kinds,
            "disturbances": dict(self.disturbances.most_common()),
            "livez": {**self.probes, "slowest_seconds": round(self.slowest_probe, 3)},
            "seconds": round(self.seconds, 1),
            "wrong": self.wrong,
            "unexplained": self.unexplained,
            "complaints": self.complaints,
        }


class Run:
    """One run.

    Args:
        fleet: Who is called, and disturbed.
        seed: What is drawn; moments are not repeated.
        disturbances: What may happen.
        thinking: Mean seconds between two requests of a caller.
        longest: Most seconds for which a disturbance lasts, before what it takes to end it.
    """

    def __init__(
        self,
        fleet: Fleet,
        seed: int,
        disturbances: Sequence[Disturbance] = DISTURBANCES,
        thinking: float = 0.0,
        longest: float = 4.0,
    ) -> None:
        self._longest = longest
        self._thinking = thinking
        self._fleet = fleet
        self._seed = seed
        self._disturbances = disturbances
        self._locks: dict[str, asyncio.Lock] = {}
        self._on: list[tuple[float, str]] = []
        self.report = Report()
        self._over = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether it has come to its end."""
        return self._over.is_set()

    async def until(self, over: Callable[[Report], bool]) -> Report:
        """Go on until a report is enough, and return it."""
        began = monotonic()
        callers = [asyncio.create_task(self._call(number, over)) for number in range(CALLERS)]
        others = [asyncio.create_task(self._disturb(number)) for number in range(DISTURBERS)]
        others += [asyncio.create_task(self._probe()), asyncio.create_task(self._forget())]
        try:
            await asyncio.gather(*callers)
        finally:
            self._over.set()
            await asyncio.gather(*others)
        self.report.seconds = monotonic() - began
        self._look_at_log()
        return self.report

    async def _call(self, number: int, over: Callable[[Report], bool]) -> None:
        pick = Random(f"caller {self._seed} {number}")  # noqa: S311
        async with Connections() as wire:
            cases = Cases(self._fleet, f"caller {self._seed} {number}", wire)
            while not over(self.report):
                began = monotonic()
                self._note(await cases.next(), began)
                if self._thinking:
                    await self._pause(pick.expovariate(1 / self._thinking))

    def _note(self, outcome: Outcome, began: float) -> None:
        now, report = monotonic(), self.report
        report.outcomes[outcome.kind, outcome.result] += 1
        if outcome.result in ("right", "refused"):
            return
        if outcome.result == LOST and now - began >= AUTHZ_TIMEOUT:
            outcome = replace(outcome, result=LATE)
        words = f"{now - began:.3f} s, {outcome.kind}: {outcome.result}, {outcome.whose}, {outcome.detail}; {self._recent(now)}"
        if outcome.result == "wrong":
            report.wrongs += 1
            report.wrong = [*report.wrong, words][:_KEPT]
        elif self._fleet.ledger.explains(outcome.whose, outcome.result, began, now):
            report.explained[outcome.result] += 1
        else:
            report.unexplaineds += 1
            report.unexplained = [*report.unexplained, words][:_KEPT]

    async def _disturb(self, number: int) -> None:
        pick = Random(f"disturber {self._seed} {number}")  # noqa: S311
        weights = [each.weight for each in self._disturbances]
        while not self.over:
            await self._pause(pick.uniform(0.0, self._longest / 4))
            (each,) = pick.choices(self._disturbances, weights)
            async with self._locks.setdefault(each.alone or f"own {number}", asyncio.Lock()):
                self.report.disturbances[each.name] += 1
                self._on = [*self._on[-20:], (monotonic(), each.name)]
                async with each.do(self._fleet, pick):
                    await self._pause(pick.uniform(0.2, self._longest))

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than the run lasts."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    async def _probe(self) -> None:
        """Ask whether the process lives, twice a second, as a kubelet does."""
        transport = httpx.AsyncHTTPTransport(uds=str(self._fleet.admin_socket))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://admin", timeout=5
        ) as client:
            while not self.over:
                began = monotonic()
                # As a kubelet does: on a connection of its own.
                try:
                    status = str(
                        (await client.get("/livez", headers={"connection": "close"})).status_code
                    )
                except httpx.HTTPError as error:
                    status = type(error).__name__
                    if self._fleet.restarting:
                        status = "while restarting"
                self.report.probes[status] += 1
                self.report.slowest_probe = max(self.report.slowest_probe, monotonic() - began)
                await self._pause(0.5)

    async def _forget(self) -> None:
        """Keep this process small: destinations remember every request."""
        while not self.over:
            await self._pause(1.0)
            self._fleet.forget()

    def _recent(self, now: float) -> str:
        return ", ".join(f"{name} {now - at:.1f} s ago" for at, name in self._on[-8:])

    def _look_at_log(self) -> None:
        self.report.complaints = self._fleet.output.complaints[:_KEPT]


def told(report: Report) -> str:
    """Return a report as text."""
    return json.dumps(report.as_json(), indent=2, ensure_ascii=False)
