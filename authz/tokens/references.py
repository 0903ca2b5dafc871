"""`SubjectMemory`: verified users' tokens by random reference, in this process, for as long as they count.

Who may use a reference is decided in `authz.core.subject`; here it is only found, and ends in time.
"""

import heapq
import secrets
from collections.abc import Callable
from typing import Final

from authz.core.cache import ENTRY_OVERHEAD, BoundedCache
from authz.core.errors import UnknownSubject
from authz.core.moment import Moment, earliest
from authz.core.secret import Secret
from authz.core.subject import REFERENCE_BYTES, Origin, Reference, Subject

_EPOCH_BYTES: Final = 6
_SPARE_ENDS: Final = 64
"""How many ends of entries that are gone already may be remembered beside as many as there are entries."""


class SubjectMemory:
    """References in memory, the least recently used first to make room.

    What made room, has ended, or was given out before a restart is unknown: it is refused, and never
    stands for somebody else. The same user at the same place gets the same reference again, so that
    what is held grows with users and not with requests.

    Args:
        max_entries: Most references held.
        max_bytes: Most estimated bytes held.
        max_age: Seconds after which a reference ends, if its token does not end before.
        random: Returns so many unguessable bytes as base64url text.

    Attributes:
        epoch: Names this memory. It is no secret: Envoy's access log may print it.
    """

    def __init__(
        self,
        *,
        max_entries: int,
        max_bytes: int,
        max_age: float,
        random: Callable[[int], str] = secrets.token_urlsafe,
    ) -> None:
        self.max_age = max_age
        self._max_entries = max_entries
        self._random = random
        self.epoch = random(_EPOCH_BYTES)
        self._subjects: BoundedCache[Subject] = BoundedCache(
            max_entries=max_entries,
            max_bytes=max_bytes,
            size_of=lambda subject: 2 * ENTRY_OVERHEAD + len(subject.token),
        )
        self._given: BoundedCache[Reference] = BoundedCache(
            max_entries=max_entries, max_bytes=max_bytes, size_of=lambda _: ENTRY_OVERHEAD
        )
        self._ends: list[tuple[float, bytes]] = []

    async def give(
        self, token: Secret, origin: Origin, *, expires_at: float, now: Moment
    ) -> Reference:
        """Return the reference to a verified token.

        Args:
            token: The token.
            origin: Where the user came in.
            expires_at: Epoch second at which the token ends.
            now: The present.
        """
        place = token.digest() + Secret(repr(origin)).digest()
        given = self._given.get(place, now)
        if given is not None and self.holds(given.secret, now):
            return given
        ends_with_token = expires_at - now.wall <= self.max_age
        end = earliest(now.epoch(expires_at), now.counted(self.max_age))
        # Another one would end no later where it is the token that ends.
        renew_at = end if ends_with_token else earliest(end, now.counted(self.max_age / 2))
        reference = Reference(Secret(self._random(REFERENCE_BYTES)), end, renew_at)
        self._subjects.put(
            reference.secret.digest(), Subject(token, origin, end), expires_at=end, now=now
        )
        self._given.put(place, reference, expires_at=renew_at, now=now)
        self._remember_end(end.steady, reference.secret.digest())
        return reference

    async def find(self, reference: Secret, now: Moment) -> Subject:
        """Return what a reference stands for.

        Raises:
            UnknownSubject: It was never given out, has ended, or was evicted.
        """
        # By digest: how long the look-up takes says nothing about references that are near.
        subject = self._subjects.get(reference.digest(), now)
        if subject is None:
            raise UnknownSubject("never given out, ended, or evicted")
        return subject

    def holds(self, reference: Secret, now: Moment) -> bool:
        """Whether a reference still stands for somebody; it counts as used then."""
        return self._subjects.get(reference.digest(), now) is not None

    def sweep(self, now: Moment) -> None:
        """Forget what has ended, whether or not anybody asks for it."""
        while self._ends and self._ends[0][0] <= now.steady:
            self._subjects.get(heapq.heappop(self._ends)[1], now)

    def __len__(self) -> int:
        return len(self._subjects)

    @property
    def evictions(self) -> int:
        """How many live references were evicted."""
        return self._subjects.evictions

    def _remember_end(self, end: float, key: bytes) -> None:
        heapq.heappush(self._ends, (end, key))
        if len(self._ends) > 2 * self._max_entries + _SPARE_ENDS:
            # Ends of what was evicted. Nothing else could make them so many.
            self._ends = [entry for entry in self._ends if self._subjects.knows(entry[1])]
            heapq.heapify(self._ends)
