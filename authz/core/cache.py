"""Bounded caches that take the time as an argument: tokens, verified principals, recent failures.

An entry ends as soon as one of the two clocks of a `Moment` says so.

Each is bounded in entries and in estimated bytes, and O(1) in what it holds. What is evicted is the least
recently used, unless more comes round than there is room for: then any, so that part of the round is kept.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from authz.core.errors import AuthzError
from authz.core.exchange import CacheKey, IssuedToken
from authz.core.lifetime import usable_until
from authz.core.moment import Moment, earliest
from authz.core.principal import Principal

Value = TypeVar("Value")

ENTRY_OVERHEAD: Final = 700
"""Bytes a cached entry takes beside its token, measured with tracemalloc and rounded up."""
NAME_OVERHEAD: Final = 80
"""Bytes a scope or role takes beside its text."""


REMEMBERED: Final = 4
"""One in so many entries: how many evicted keys a generation remembers. There are two generations."""


@dataclass(slots=True)
class _Entry(Generic[Value]):
    value: Value
    wall: float
    steady: float
    size: int
    place: int


class BoundedCache(Generic[Value]):
    """A cache whose entries end at a given time, or are evicted before that for want of room.

    For a new key the least recently used entry is evicted. Alone, that rule keeps nothing of a round that is
    too large: when 12,000 users call in turn and there is room for 10,000, each is evicted shortly before
    their next call. So the cache remembers hashes of keys that it evicted of late. For a key that comes back
    among them any entry but the last used one is evicted, so most of the round is found again.

    Args:
        max_entries: Most entries held.
        max_bytes: Most estimated bytes held.
        size_of: Estimates the bytes of a value.
        choose: Returns one of so many numbers from 0 on, for the key that comes back.
    """

    def __init__(
        self,
        *,
        max_entries: int,
        max_bytes: int,
        size_of: Callable[[Value], int],
        choose: Callable[[bytes, int], int] | None = None,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._size_of = size_of
        # Not a method of our own: only a full collection frees a cache that holds itself, and those are rare.
        self._choose = choose
        # By use, the latest last.
        self._entries: OrderedDict[bytes, _Entry[Value]] = OrderedDict()
        # In any order, each at its entry's `place`.
        self._keys: list[bytes] = []
        self._evicted: set[int] = set()
        self._evicted_before: set[int] = set()
        self._bytes = 0
        self.evictions = 0

    def get(self, key: bytes, now: Moment) -> Value | None:
        """Return the live value under the key; an expired one is dropped."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        # As `Moment.has_come` has it, less a call: this is the hit path.
        if now[0] >= entry.wall or now[1] >= entry.steady:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: bytes, value: Value, *, expires_at: Moment, now: Moment) -> None:
        """Hold the value until `expires_at`, evicting others for it.

        A value that has expired already, or is larger than the whole cache, is not held.
        """
        self.drop(key)
        size = self._size_of(value)
        if expires_at.has_come(now) or size > self._max_bytes or self._max_entries < 1:
            return
        came_back = self._came_back(key)
        while len(self._entries) >= self._max_entries or self._bytes + size > self._max_bytes:
            self._evict(instead_for=key if came_back else None)
        self._entries[key] = _Entry(
            value, expires_at.wall, expires_at.steady, size, len(self._keys)
        )
        self._keys.append(key)
        self._bytes += size

    def drop(self, key: bytes) -> None:
        """Forget the key, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
            # The last one takes its place.
            last = self._keys.pop()
            if last != key:
                self._keys[entry.place] = last
                self._entries[last].place = entry.place

    def _came_back(self, key: bytes) -> bool:
        """Whether the key was evicted of late; forget that. Another key with the same hash does no harm."""
        remembered = hash(key)
        for evicted in (self._evicted, self._evicted_before):
            if remembered in evicted:
                evicted.remove(remembered)
                return True
        return False

    def _anyone(self, key: bytes, number: int) -> int:
        # Python's hash of bytes differs in each process, so nobody can aim at an entry.
        return hash((key, self.evictions)) % number

    def _evict(self, *, instead_for: bytes | None) -> None:
        key = next(iter(self._entries))
        if instead_for is not None:
            choose = self._anyone if self._choose is None else self._choose
            chosen = self._keys[choose(instead_for, len(self._keys))]
            key = key if chosen == next(reversed(self._entries)) else chosen
        if len(self._evicted) * REMEMBERED >= len(self._entries):
            self._evicted_before, self._evicted = self._evicted, set()
        self._evicted.add(hash(key))
        self.drop(key)
        self.evictions += 1

    def knows(self, key: bytes) -> bool:
        """Whether something is held under the key, live or not; it does not count as used."""
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes(self) -> int:
        """Estimated bytes held."""
        return self._bytes


class TokenCache:
    """Exchanged tokens by `CacheKey`.

    An entry ends `margin` seconds before its token does, and with the subject token at the latest.

    Args:
        max_entries: Most tokens held.
        max_bytes: Most estimated bytes held.
        margin: Seconds before a token's own expiry at which it is no longer handed out, so that it
            still lives when the API looks at it.
    """

    def __init__(self, *, max_entries: int, max_bytes: int, margin: float) -> None:
        self.margin = margin
        self._cache: BoundedCache[IssuedToken] = BoundedCache(
            max_entries=max_entries,
            max_bytes=max_bytes,
            size_of=lambda token: len(token.secret) + ENTRY_OVERHEAD,
        )

    def get(self, key: CacheKey, now: Moment) -> IssuedToken | None:
        """Return a token that may still be used."""
        return self._cache.get(key, now)

    def put(
        self, key: CacheKey, token: IssuedToken, *, subject_expires_at: float | None, now: Moment
    ) -> None:
        """Hold a token; `subject_expires_at` is the `exp` of the user's token it rests on, if any."""
        expires_at = usable_until(token, self.margin)
        if subject_expires_at is not None:
            expires_at = earliest(expires_at, now.epoch(subject_expires_at))
        self._cache.put(key, token, expires_at=expires_at, now=now)

    def drop(self, key: CacheKey) -> None:
        """Forget the token, if it is there."""
        self._cache.drop(key)

    def __len__(self) -> int:
        return len(self._cache)

    @property
    def evictions(self) -> int:
        """How many live entries were evicted."""
        return self._cache.evictions


@dataclass(frozen=True, slots=True)
class _Failure:
    error: AuthzError
    retry_at: float | None


class FailureCache:
    """Recent failures, each under the key of the very exchange that failed: nobody else meets it.

    How long one is repeated is counted by the monotonic clock: setting the wall clock changes nothing.
    """

    def __init__(self, *, max_entries: int) -> None:
        self._cache: BoundedCache[_Failure] = BoundedCache(
            max_entries=max_entries, max_bytes=max_entries, size_of=lambda _: 1
        )

    def get(self, key: CacheKey, now: Moment) -> AuthzError | None:
        """Return the failure that is still repeated, with the time that is left as its `retry_after`."""
        failure = self._cache.get(key, now)
        if failure is None:
            return None
        if failure.retry_at is None:
            return failure.error
        return failure.error.retrying_in(failure.retry_at - now.steady)

    def put(self, key: CacheKey, failure: AuthzError, *, seconds: float, now: Moment) -> None:
        """Repeat the failure for some seconds."""
        wait = failure.retry_after
        retry_at = None if wait is None else now.steady + max(wait, seconds)
        self._cache.put(key, _Failure(failure, retry_at), expires_at=now.counted(seconds), now=now)

    def drop(self, key: CacheKey) -> None:
        """Forget the failure, if there is one."""
        self._cache.drop(key)

    def __len__(self) -> int:
        return len(self._cache)


@dataclass(frozen=True, slots=True)
class _Rejection:
    until: float
    pause: float


class RejectionCache:
    """Of which exchanges an API has refused the token of late, so that a new one is asked for not too often.

    Args:
        max_entries: Most exchanges remembered.
        first: Seconds after which a second token may be dropped. The pause doubles with each.
        longest: Seconds of the longest pause.
    """

    def __init__(self, *, max_entries: int, first: float = 60.0, longest: float = 3600.0) -> None:
        self._first = first
        self._longest = longest
        self._cache: BoundedCache[_Rejection] = BoundedCache(
            max_entries=max_entries, max_bytes=max_entries, size_of=lambda _: 1
        )

    def note(self, key: CacheKey, now: float) -> bool:
        """Note that a token was refused; return whether it may be dropped for that (monotonic second)."""
        moment = Moment(0.0, now)
        last = self._cache.get(key, moment)
        if last is not None and now < last.until:
            return False
        pause = self._first if last is None else min(self._longest, 2 * last.pause)
        until = now + pause
        # After as long again without a refusal it is forgotten.
        forgotten = moment.counted(2 * pause)
        self._cache.put(key, _Rejection(until, pause), expires_at=forgotten, now=moment)
        return True


def _size_of(principal: Principal) -> int:
    names = (*principal.scopes, *principal.roles, *principal.auth_contexts)
    return ENTRY_OVERHEAD + NAME_OVERHEAD * len(names) + sum(map(len, names))


class PrincipalCache:
    """Verified tokens: the digest of a token and of the expectation it met, to its principal.

    Never past `exp`, by either clock. The reader must still ask whether the principal's key is trusted.
    """

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._cache: BoundedCache[Principal] = BoundedCache(
            max_entries=max_entries,
            max_bytes=max_bytes,
            size_of=_size_of,
        )

    def get(self, expectation: bytes, token: bytes, now: Moment) -> Principal | None:
        """Return the principal of a token that met this expectation before and has not expired."""
        return self._cache.get(expectation + token, now)

    def put(self, expectation: bytes, token: bytes, principal: Principal, *, now: Moment) -> None:
        """Remember a verification until the token's `exp`."""
        expires_at = now.epoch(principal.expires_at)
        self._cache.put(expectation + token, principal, expires_at=expires_at, now=now)

    def drop(self, expectation: bytes, token: bytes) -> None:
        """Forget a verification."""
        self._cache.drop(expectation + token)

    def __len__(self) -> int:
        return len(self._cache)

    @property
    def evictions(self) -> int:
        """How many live verifications were evicted."""
        return self._cache.evictions
