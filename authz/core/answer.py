"""Answers that may be given again: whole Checks, remembered for as long as all they rest on holds.

Only allowances are remembered. Before one is repeated, ask whether the signing key of its
principal is trusted; time is watched here, and a new configuration begins with an empty cache.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from authz.core.baggage import is_plain
from authz.core.cache import ENTRY_OVERHEAD, BoundedCache
from authz.core.decision import Allow
from authz.core.moment import Moment
from authz.core.policy import Route
from authz.core.principal import Principal
from authz.core.request import CheckRequest
from authz.core.secret import Secret

MAX_SITUATIONS: Final = 4096
"""Situations known at a time. They are few: routes times peers; names of odd headers could add some."""
_NO_VALUE: Final = bytes(32)
"""In place of a digest, so that keys of one situation cannot be mistaken for one another."""


@dataclass(slots=True)
class Answer:
    """An allowance that was given, and what its repetition needs.

    Attributes:
        route: The route it was given on.
        principal: Whom it was given to; None where the flow needs no caller.
        decision: What was answered.
        expires_at: When it becomes wrong: the earliest end of a token it rests on.
        until: When to go the whole path again, to fetch a token's successor ahead.
        has_token: Whether an exchange stands behind it.
        reference: The reference that an inbound answer hands to the app; None where it hands out none.
        edge_ttl: The `edge_ttl` that `reply` was made for.
        reply: The door's bytes for it, once made. They hold the token, so they are not printed.
        told: The fixed part of its log record, once made.
    """

    route: Route
    principal: Principal | None
    decision: Allow
    expires_at: Moment
    until: Moment
    has_token: bool
    reference: Secret | None = None
    edge_ttl: float = 0.0
    reply: bytes | None = field(default=None, repr=False)
    told: bytes | None = None


def _size_of(answer: Answer) -> int:
    token = answer.decision.authorization
    baggage = answer.decision.baggage
    # The reply holds both a second time.
    return ENTRY_OVERHEAD + 2 * sum(len(part) for part in (token, baggage) if part is not None)


class AnswerCache:
    """Answers by what decides: the situation, and those values of which the route reads something.

    `Authorization` counts on routes that read it. `baggage` counts wherever it is not plain, which may
    change it, and on routes that put a member of ours in among the others.

    Args:
        max_entries: Most answers held.
        max_bytes: Most estimated bytes held.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._answers: BoundedCache[Answer] = BoundedCache(
            max_entries=max_entries, max_bytes=max_bytes, size_of=_size_of
        )
        self._situations: dict[Hashable, tuple[bytes, bool, bool]] = {}
        self._numbers = count()

    def get(
        self,
        situation: Hashable,
        authorization: Secret | None,
        baggage: Secret | None,
        now: Moment,
    ) -> Answer | None:
        """Return the answer that stands for such a request."""
        # As `_key` has it, less a call: this is the hit path.
        known = self._situations.get(situation)
        if known is None:
            return None
        key, reads_authorization, reads_baggage = known
        if reads_authorization:
            key += _NO_VALUE if authorization is None else authorization.digest()
        if baggage is not None and (reads_baggage or not is_plain(baggage)):
            key += baggage.digest()
        return self._answers.get(key, now)

    def put(self, request: CheckRequest, answer: Answer, now: Moment) -> None:
        """Let the answer stand until its `until`."""
        situation = request.situation
        if situation not in self._situations:
            if len(self._situations) >= MAX_SITUATIONS:
                # Numbers are never given twice, so what was known under the old ones is met no more.
                self._situations.clear()
            number = next(self._numbers).to_bytes(8, "big")
            route = answer.route
            self._situations[situation] = (number, route.reads_authorization, route.reads_baggage)
        key = self._key(situation, request.authorization, request.baggage)
        assert key is not None
        self._answers.put(key, answer, expires_at=answer.until, now=now)

    def drop(
        self, situation: Hashable, authorization: Secret | None, baggage: Secret | None
    ) -> None:
        """Forget the answer to such a request, if there is one."""
        key = self._key(situation, authorization, baggage)
        if key is not None:
            self._answers.drop(key)

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def evictions(self) -> int:
        """How many live answers were evicted."""
        return self._answers.evictions

    def _key(
        self, situation: Hashable, authorization: Secret | None, baggage: Secret | None
    ) -> bytes | None:
        known = self._situations.get(situation)
        if known is None:
            return None
        key, reads_authorization, reads_baggage = known
        if reads_authorization:
            key += _NO_VALUE if authorization is None else authorization.digest()
        if baggage is not None and (reads_baggage or not is_plain(baggage)):
            key += baggage.digest()
        return key
