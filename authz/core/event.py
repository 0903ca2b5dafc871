"""`Event`: what is counted and logged, each kind with what it tells. None of them decides anything."""

from dataclasses import dataclass

from authz.core.errors import AuthzError
from authz.core.exchange import TokenExchange
from authz.core.record import CacheName, CacheResult, CheckRecord


@dataclass(frozen=True, slots=True)
class Decided:
    """Checks have been decided, each once. Those that repeat an answer may come together.

    Attributes:
        records: One for each Check.
    """

    records: tuple[CheckRecord, ...]


@dataclass(frozen=True, slots=True)
class LookedUp:
    """A cache was asked.

    Attributes:
        cache: Which.
        result: How the look-up ended.
    """

    cache: CacheName
    result: CacheResult


@dataclass(frozen=True, slots=True)
class Exchanged:
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


@dataclass(frozen=True, slots=True)
class Called:
    """An API was called for a caller of the HTTP API.

    Attributes:
        route: The egress route of the API.
        outcome: The status of its answer, or why there is none.
        seconds: How long it took.
    """

    route: str
    outcome: int | AuthzError
    seconds: float


@dataclass(frozen=True, slots=True)
class Prefetched:
    """A prefetch ended.

    Attributes:
        route: The egress route of the token.
        outcome: `issued`, `known`, `skipped`, or the reason of a denial.
    """

    route: str
    outcome: str


@dataclass(frozen=True, slots=True)
class SecretSent:
    """One Envoy was given a token ahead, or an empty value in its place.

    Attributes:
        route: The egress route; None for a name that no route has.
        is_empty: Whether there was no token to give.
    """

    route: str | None
    is_empty: bool


@dataclass(frozen=True, slots=True)
class SecretRejected:
    """One Envoy could not use a value.

    Attributes:
        route: The egress route; None for a name that no route has.
    """

    route: str | None


Event = Decided | LookedUp | Exchanged | Called | Prefetched | SecretSent | SecretRejected
