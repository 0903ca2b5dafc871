"""`Event`: what is counted and logged, each kind with what it tells. None of them decides anything."""

from collections.abc import Sequence
from typing import NamedTuple

from authz.core.errors import AuthzError
from authz.core.exchange import TokenExchange
from authz.core.outcome import Granted
from authz.core.record import CacheName, CacheResult, CheckRecord


class Decided(NamedTuple):
    """A Check was decided, and not by an earlier answer.

    Attributes:
        record: All that is reported about it.
    """

    record: CheckRecord


class Repeated(NamedTuple):
    """Checks were answered by answers that stand. They are many, so they come together.

    Attributes:
        answers: The answer to each Check, and how many seconds it took.
        records: The record of each, where an observer reads them; else none: what was asked is not kept.
    """

    answers: Sequence[tuple[Granted, float]]
    records: Sequence[CheckRecord]


class LookedUp(NamedTuple):
    """A cache was asked.

    Attributes:
        cache: Which.
        result: How the look-up ended.
    """

    cache: CacheName
    result: CacheResult


class Exchanged(NamedTuple):
    """An exchange, or a leg of one, called Entra.

    Attributes:
        exchange: Which. It holds the user's token, as a `Secret`.
        error: Why nothing was issued; None where a token was.
        seconds: How long it took.
        route: The egress route for which it was begun, if it was for one.
    """

    exchange: TokenExchange
    error: AuthzError | None
    seconds: float
    route: str | None


class Called(NamedTuple):
    """An API was called for a caller of the HTTP API.

    Attributes:
        route: The egress route of the API.
        outcome: The status of its answer, or why there is none.
        seconds: How long it took.
    """

    route: str
    outcome: int | AuthzError
    seconds: float


class Prefetched(NamedTuple):
    """A prefetch ended.

    Attributes:
        route: The egress route of the token.
        outcome: `issued`, `known`, `skipped`, or the reason of a denial.
    """

    route: str
    outcome: str


class SecretSent(NamedTuple):
    """One Envoy was given a token ahead, or an empty value in its place.

    Attributes:
        route: The egress route; None for a name that no route has.
        is_empty: Whether there was no token to give.
    """

    route: str | None
    is_empty: bool


class SecretRejected(NamedTuple):
    """One Envoy could not use a value.

    Attributes:
        route: The egress route; None for a name that no route has.
    """

    route: str | None


Event = (
    Decided | Repeated | LookedUp | Exchanged | Called | Prefetched | SecretSent | SecretRejected
)
