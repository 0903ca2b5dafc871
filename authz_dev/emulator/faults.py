"""Faults to inject: which answers they spoil, how, and how often.

How they look on the wire is in `fault_response`.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from authz_dev.emulator.calls import LEGS

TARGETS: Final = ("token", "discovery", "jwks", "graph")
KINDS: Final = (
    "latency",
    "status",
    "error",
    "hang",
    "malformed",
    "huge",
    "redirect",
    "down",
    "truncated",
    "answer",
    "members",
    "drip",
    "heads",
)
PARTS: Final = ("head", "chunk", "body")
_ERROR_STATUSES = range(400, 600)
_STATUSES = range(200, 600)
_TOGETHER = frozenset({"latency", "members"})


@dataclass(frozen=True, slots=True)
class Match:
    """Which calls a fault is for; None matches every value.

    `leg`, `client_id` and `user` (UPN or object id) can match token calls only.
    """

    leg: str | None = None
    tenant: str | None = None
    client_id: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Members that its kind does not use are ignored.

    latency: `seconds` before the normal answer. status: `status` with an optional `retry_after`
    (seconds, or any text). error: AADSTS `code` with optional `suberror`, `claims` and `members`. hang:
    no answer until the client leaves. malformed: 200 that is not JSON. huge: 200 with `megabytes` of
    JSON. redirect: 307 to `location`. down: the connection is cut. truncated: it is cut in mid-body.
    answer: `status` with `headers` and any `body`; a text is sent as it is, all else as JSON. members:
    the normal document with `members` in place of its own. drip: a `part` of the answer (head, chunk:
    the line that announces one, or body) comes byte by byte, `seconds` apart, until the client leaves.
    heads: the answer has `lines` header lines of `width` bytes before its end.
    `count` is how often the fault applies, None until it is cleared.
    """

    kind: str
    target: str = "token"
    match: Match = Match()
    count: int | None = None
    seconds: float = 1.0
    status: int = 503
    retry_after: int | str | None = None
    code: int = 90033
    suberror: str | None = None
    claims: Mapping[str, Any] | None = None
    megabytes: int = 64
    location: str = "https://127.0.0.1:1/"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    members: Mapping[str, Any] = field(default_factory=dict)
    part: str = "body"
    lines: int = 90
    width: int = 60_000
    id: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError with the member's name first when a value is not usable."""
        if self.kind not in KINDS:
            raise ValueError(f"kind: must be one of {', '.join(KINDS)}")
        if self.target not in TARGETS:
            raise ValueError(f"target: must be one of {', '.join(TARGETS)}")
        if self.match.leg is not None and self.match.leg not in LEGS:
            raise ValueError(f"match: leg must be one of {', '.join(LEGS)}")
        if self.count is not None and self.count < 1:
            raise ValueError("count: must be at least 1, or null")
        if self.kind == "status" and self.status not in _ERROR_STATUSES:
            raise ValueError("status: must be an HTTP error status")
        if self.kind == "answer" and self.status not in _STATUSES:
            raise ValueError("status: must be an HTTP status from 200 on")
        if self.part not in PARTS:
            raise ValueError(f"part: must be one of {', '.join(PARTS)}")
        if not all(isinstance(value, str) for value in self.headers.values()):
            raise ValueError("headers: must be an object of texts")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Fault:
        """A fault from its JSON form; raises ValueError with the member's name first."""
        members = dict(document)
        for name, value in members.items():
            if name not in _MEMBER_TYPES or not isinstance(value, _MEMBER_TYPES[name]):
                raise ValueError(f"{name}: is not a member of a fault, or has the wrong type")
        if "kind" not in members:
            raise ValueError("kind: is missing")
        match = members.pop("match", {})
        for name, value in match.items():
            if name not in Match.__dataclass_fields__ or not isinstance(value, str | None):
                raise ValueError(f"match: '{name}' is not a member with a text")
        return cls(match=Match(**match), **members)

    def as_json(self) -> dict[str, Any]:
        """The JSON form, as `from_json` takes it, with the fault's `id`."""
        return asdict(self)


_MEMBER_TYPES: Mapping[str, Any] = {
    "kind": str,
    "target": str,
    "match": dict,
    "count": int | None,
    "seconds": int | float,
    "status": int,
    "retry_after": int | str | None,
    "code": int,
    "suberror": str | None,
    "claims": dict | None,
    "megabytes": int,
    "location": str,
    "headers": dict,
    "body": object,
    "members": dict,
    "part": str,
    "lines": int,
    "width": int,
}


@dataclass(frozen=True, slots=True)
class Occasion:
    """A call that may meet a fault; `tenant` holds every name of its tenant, `users` of its user."""

    target: str
    tenant: frozenset[str] = frozenset()
    leg: str | None = None
    client_id: str | None = None
    users: frozenset[str] = frozenset()

    def meets(self, fault: Fault) -> bool:
        """Whether the fault is for this call."""
        match = fault.match
        return (
            fault.target == self.target
            and match.leg in (None, self.leg)
            and match.client_id in (None, self.client_id)
            and (match.tenant is None or match.tenant.lower() in self.tenant)
            and (match.user is None or match.user.lower() in self.users)
        )


class Faults:
    """The faults in force; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force and return it with its `id`."""
        added = replace(fault, id=str(uuid.uuid4()))
        with self._lock:
            self._faults.append(added)
        return added

    def clear(self, fault_id: str | None = None) -> None:
        """End one fault, or all of them."""
        with self._lock:
            self._faults = [f for f in self._faults if fault_id not in (None, f.id)]

    def active(self) -> tuple[Fault, ...]:
        """The faults in force, with what is left of their counts."""
        return tuple(self._faults)

    def take(self, occasion: Occasion) -> tuple[Fault, ...]:
        """The faults this call meets, and use them up: those that leave an answer, then at most one other."""
        if not self._faults:
            return ()
        taken: list[Fault] = []
        with self._lock:
            for index, fault in enumerate(self._faults):
                if not occasion.meets(fault):
                    continue
                taken.append(fault)
                if fault.count is not None:
                    self._faults[index] = _used_once(fault)
                if fault.kind not in _TOGETHER:
                    break
            self._faults = [f for f in self._faults if f.id]
        return tuple(taken)


def _used_once(fault: Fault) -> Fault:
    if fault.count is None or fault.count == 1:
        return replace(fault, id="")
    return replace(fault, count=fault.count - 1)
