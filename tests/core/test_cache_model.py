"""`BoundedCache` against a model: any sequence of calls keeps its bounds and its promises."""

import math
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from authz.core.cache import BoundedCache
from support.fakes.clock import at
from support.fakes.properties import examples

KEYS: Final = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])


class CacheMachine(RuleBasedStateMachine):
    """Remembers what was put last under each key and for how long it may be found."""

    @initialize(max_entries=st.integers(0, 4), max_bytes=st.integers(0, 12))
    def start(self, max_entries: int, max_bytes: int) -> None:
        """Begin with an empty cache of any size."""
        self.cache: BoundedCache[str] = BoundedCache(
            max_entries=max_entries, max_bytes=max_bytes, size_of=len
        )
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.now = 0.0
        self.last_put: dict[bytes, tuple[str, float]] = {}
        self.serial = 0

    @rule(key=KEYS, size=st.integers(1, 6), lifetime=st.integers(-1, 6))
    def put(self, key: bytes, size: int, lifetime: int) -> None:
        """What is alive and fits is found right after it was put."""
        self.serial += 1
        value = chr(0x100 + self.serial) * size
        expires_at = self.now + lifetime
        self.cache.put(key, value, expires_at=at(expires_at), now=at(self.now))
        self.last_put[key] = (value, expires_at)

        fits = size <= self.max_bytes and self.max_entries > 0
        assert (value if fits and lifetime > 0 else None) == self.cache.get(key, at(self.now))

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        """What is found is the last value put, and has not expired."""
        value = self.cache.get(key, at(self.now))

        if value is not None:
            expected, expires_at = self.last_put.get(key, ("", -math.inf))
            assert expected == value
            assert self.now < expires_at

    @rule(key=KEYS, other=KEYS)
    def what_was_used_last_outlives_the_next_put(self, key: bytes, other: bytes) -> None:
        """With room for two small entries, the one just looked at is not the one that goes."""
        value = self.cache.get(key, at(self.now))
        if value is None or other == key or self.max_entries < 2 or len(value) >= self.max_bytes:
            return
        self.put(other, 1, 1)

        assert value == self.cache.get(key, at(self.now))

    @rule(key=KEYS)
    def drop(self, key: bytes) -> None:
        """What is dropped is not found."""
        self.cache.drop(key)
        self.last_put.pop(key, None)

        assert self.cache.get(key, at(self.now)) is None

    @rule(seconds=st.integers(1, 4))
    def pass_time(self, seconds: int) -> None:
        """Entries grow old without anybody looking."""
        self.now += seconds

    @invariant()
    def every_entry_has_its_place(self) -> None:
        """Whichever is chosen to make room is one that is there."""
        cache = self.cache
        assert sorted(cache._keys) == sorted(cache._entries)
        assert all(cache._keys[entry.place] == key for key, entry in cache._entries.items())

    @invariant()
    def keeps_its_bounds(self) -> None:
        """Never more entries or bytes than allowed; an empty cache weighs nothing."""
        assert 0 <= len(self.cache) <= self.max_entries
        assert 0 <= self.cache.bytes <= self.max_bytes
        assert (len(self.cache) == 0) is (self.cache.bytes == 0)


TestBoundedCache = CacheMachine.TestCase
TestBoundedCache.settings = settings(examples(60), stateful_step_count=40)
