"""A scenario of the demo: what happens, what must come of it, and how both are compared.

Which scenarios there are is in `tour`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from authz_dev.demo.visitor import Visitor

Json = dict[str, Any]

_AGENT_FACET: Final = "11"
"""What Entra puts among an actor's facets when it is an agent identity."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that can happen.

    Attributes:
        name: In kebab-case.
        words: What happens and what is seen, for people: at most 68 characters, so that no line is cut.
        sent: What the caller sent, in a few words.
        held: What the agent app had in its hands.
        play: Makes it happen; returns what the caller learned.
        expected: What must be observed, whole.
    """

    name: str
    words: str
    sent: str
    held: str
    play: Callable[[Visitor], Mapping[str, Any]]
    expected: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chapter:
    """Scenarios that show one thing.

    Attributes:
        title: What that is.
        scenarios: Returns them, in order.
    """

    title: str
    scenarios: Callable[[], Iterator[Scenario]]


@dataclass(frozen=True, slots=True)
class Result:
    """A scenario, and what was observed.

    Attributes:
        scenario: What was played.
        observed: In the terms of `Scenario.expected`.
        seconds: What the caller waited.
    """

    scenario: Scenario
    observed: Mapping[str, Any]
    seconds: float
    ok: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ok", self.observed == self.scenario.expected)

    def as_json(self) -> Json:
        """Return the machine-readable form."""
        return {
            "name": self.scenario.name,
            "expected": dict(self.scenario.expected),
            "observed": dict(self.observed),
            "ok": self.ok,
            "entra_calls": self.observed["entra_calls"],
            "ms": round(self.seconds * 1000, 1),
        }


def play(scenario: Scenario, visitor: Visitor) -> Result:
    """Let a scenario happen, and look everywhere: at Entra, at the app, at the APIs."""
    app_calls, entra_calls = visitor.app_calls(), visitor.entra_calls()
    elapsed = visitor.elapsed
    try:
        observed = dict(scenario.play(visitor))
    except httpx.TransportError as error:
        observed = {"status": type(error).__name__}
    seen = [_identity(record, visitor) for record in visitor.new_arrivals()]
    observed["api_saw"] = seen[0] if len(seen) == 1 else seen or None
    observed["app_called"] = visitor.app_calls() > app_calls
    observed["entra_calls"] = visitor.entra_calls() - entra_calls
    return Result(scenario, observed, visitor.elapsed - elapsed)


def _identity(record: Json, visitor: Visitor) -> Json:
    claims = record["claims"]
    seen: Json = {
        name: visitor.name(claims[name]) for name in ("azp", "appid", "oid") if name in claims
    }
    seen["idtyp"] = claims.get("idtyp")
    seen["agent"] = _AGENT_FACET in claims.get("xms_act_fct", "").split()
    return seen if record["refused"] is None else {**seen, "refused": record["refused"]}
