"""Odd answers of Entra, as the emulator gives them: one of each kind, for one user, agent or tenant.

What they look like on the wire is in `authz_dev.emulator.fault_response`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from authz_dev.emulator import Fault, Match

ODD_ERRORS: Final[tuple[object, ...]] = (
    7,
    None,
    True,
    [],
    ["invalid_grant"],
    {},
    "two\r\nlines",
    "é",
    "\ud800",
    "x" * 100_000,
)
"""Values of `error` that no answer should have (RFC 6749, section 5.2)."""

ODD_MEMBERS: Final[tuple[Mapping[str, object], ...]] = (
    {"access_token": 7},
    {"access_token": ""},
    {"access_token": "x\r\nhost: evil"},
    {"token_type": "pop"},
    {"expires_in": 0},
    {"expires_in": -1},
    {"expires_in": "soon"},
    {"expires_in": 10**400},
    {"id_token": "garbage"},
    {"refresh_in": []},
    {"client_info": 7},
    {"scope": 7},
)
"""Members in an answer that is good otherwise. Some of them make it no answer, others do no harm."""

REFUSALS: Final = (50173, 65001, 50013, 90033, 50196)
"""AADSTS numbers that concern one user, or nobody for long."""

Drawn = Callable[[Random, Match], Fault]


@dataclass(frozen=True, slots=True)
class OddAnswer:
    """A kind of answer.

    Attributes:
        name: Words for it.
        draw: Makes one for whom it is meant.
        slow: Whether it keeps who asks waiting for longer than a Check has.
    """

    name: str
    draw: Drawn
    slow: bool = False


def _fault(kind: str, **values: Any) -> Drawn:
    return lambda _, match: Fault(kind, match=match, **values)


ODD_ANSWERS: Final = (
    OddAnswer("a server error", lambda pick, to: Fault("status", status=pick.choice([500, 502, 503, 504]), match=to)),
    OddAnswer("a throttling", _fault("status", status=429, retry_after=1)),
    OddAnswer("a throttling until an unreadable date", _fault("status", status=429, retry_after="soon")),
    OddAnswer("an `error` that is no text", lambda pick, to: Fault("answer", status=400, body={"error": pick.choice(ODD_ERRORS)}, match=to)),
    OddAnswer("a good answer with an odd member", lambda pick, to: Fault("members", members=pick.choice(ODD_MEMBERS), match=to)),
    OddAnswer("a refusal", lambda pick, to: Fault("error", code=pick.choice(REFUSALS), match=to)),
    OddAnswer("JSON that is no object", lambda pick, to: Fault("answer", status=200, body=pick.choice([None, [], 7, "x"]), match=to)),
    OddAnswer("half a JSON text", _fault("malformed")),
    OddAnswer("a redirect", _fault("redirect")),
    OddAnswer("a large body", _fault("huge", megabytes=8)),
    OddAnswer("a connection that is cut", _fault("down")),
    OddAnswer("a body that is cut", _fault("truncated")),
    OddAnswer("large heads", _fault("heads", lines=40)),
    OddAnswer("no answer", _fault("hang"), slow=True),
    OddAnswer("a head that drips", _fault("drip", part="head", seconds=0.5), slow=True),
    OddAnswer("a chunk that drips", _fault("drip", part="chunk", seconds=0.5), slow=True),
    OddAnswer("a body that drips", _fault("drip", part="body", seconds=0.5), slow=True),
)  # fmt: skip
"""Of the token endpoint. Each can be given to one user only."""

ODD_DOCUMENTS: Final[tuple[Mapping[str, Any], ...]] = (
    {"kind": "answer", "status": 200, "body": {}},
    {"kind": "answer", "status": 200, "body": []},
    {"kind": "answer", "status": 200, "body": {"keys": []}},
    {"kind": "answer", "status": 200, "body": {"keys": [{"kty": "oct", "k": "x"}]}},
    {"kind": "members", "members": {"issuer": "https://evil.example", "keys": 7}},
    {"kind": "malformed"},
    {"kind": "status", "status": 503},
    {"kind": "down"},
    {"kind": "truncated"},
    {"kind": "hang"},
    {"kind": "drip", "part": "head", "seconds": 0.5},
    {"kind": "drip", "part": "chunk", "seconds": 0.5},
    {"kind": "heads", "lines": 40},
)
"""In place of a discovery document or a key set."""
